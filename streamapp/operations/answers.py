"""What each operation answers. Every answer ends with how fresh it is; text from feeds has passed `untrusted`."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Value = dict[str, Any]


class Model(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(Model):
    """A window of event time, epoch ms; `final`: it is closed and does not change any more."""

    start: int
    end: int
    final: bool


class ItemFreshness(Model):
    """How fresh one value is."""

    age_ms: int | None = Field(description="time since the newest event in it")
    staleness_ms: int = Field(description="how far this view of it may be behind the world")
    lag: int | None = Field(description="records of its partition that are not applied yet")
    feed_connected: bool | None = Field(description="whether its feed is live; null: it has none")
    stale: bool = Field(False, description="answered from a copy, because its worker is gone")


class Freshness(Model):
    """How fresh an answer is; of several values the worst of each."""

    as_of: int = Field(description="when it was read, epoch ms")
    watermark: int | None = Field(None, description="event time up to which the data is complete, epoch ms")
    staleness_ms: int | None = Field(None, description="how far the view may be behind the world")
    age_ms: int | None = Field(None, description="time since the newest event of the oldest value")
    lag: int | None = Field(None, description="records not applied yet")
    restoring: bool = Field(False, description="whether a part is being restored and is left out")
    feeds_down: Sequence[str] = Field((), description="venues whose feed is not connected: their values are old")
    gaps: int = Field(0, description="gaps in the feeds of these values")
    missing_partitions: Sequence[int] = Field((), description="partitions that no worker answered for")


class Answer(Model):
    """Every answer."""

    freshness: Freshness


class FieldInfo(Model):
    """A field of a table's value."""

    name: str
    type: str
    unit: str | None
    nullable: bool
    description: str


class TableWindow(Model):
    """The windows of a table, milliseconds; null where it does not apply."""

    size_ms: int | None
    step_ms: int | None
    gap_ms: int | None
    grace_ms: int | None
    retention_ms: int | None


class TableEntry(Model):
    """One table in the list."""

    name: str
    kind: Literal["tumbling", "hopping", "session", "latest"]
    description: str
    fields: Sequence[str]
    key_form: str
    size_ms: int | None


class TableList(Answer):
    """`list_tables`."""

    tables: Sequence[TableEntry]


class ExampleCall(Model):
    """A call that works as it is."""

    tool: str
    arguments: dict[str, Any]


class TableDescription(Answer):
    """`describe_table`."""

    name: str
    kind: Literal["tumbling", "hopping", "session", "latest"]
    description: str
    key_form: str
    window: TableWindow | None
    fields: Sequence[FieldInfo]
    partitions: int
    keys: int | None = Field(description="how many there are; null where that is not known")
    example_keys: Sequence[str]
    example: ExampleCall


class Item(Model):
    """One value."""

    key: str
    window: Span | None
    value: Value
    freshness: ItemFreshness


class Missing(Model):
    """Why a key has no value here."""

    key: str
    code: str
    detail: str
    nearest: Sequence[str] = ()


class CurrentValues(Answer):
    """`get_current`: in the order asked; keys without a value are in `missing`."""

    table: str
    items: Sequence[Item]
    missing: Sequence[Missing] = ()


class Point(Model):
    """One point of a series: a window, or neighbours put together."""

    start: int
    end: int
    final: bool
    windows: int
    value: Value


class Downsampling(Model):
    """How many windows became how many points, and how."""

    windows: int
    windows_per_point: int
    rules: str


class WindowSeries(Answer):
    """`get_windows`: in order of start."""

    table: str
    key: str
    points: Sequence[Point]
    downsampled: Downsampling | None
    truncated: bool = Field(description="there were more windows than one call reads; narrow from_ms and to_ms")


class TopValues(Answer):
    """`get_top`."""

    table: str
    by: str
    order: Literal["desc", "asc"]
    items: Sequence[Item]


class FoundKey(Model):
    """A key, and the tables that hold it."""

    key: str
    tables: Sequence[str]


class FoundKeys(Answer):
    """`find_keys`: the best match first."""

    query: str
    keys: Sequence[FoundKey]
    truncated: bool = Field(description="there are more; narrow the query")


class Compared(Model):
    """One key over the span."""

    key: str
    windows: int
    first: float | None
    last: float | None
    change: float | None
    change_pct: float | None
    least: float | None
    greatest: float | None
    points: Sequence[float | None] = Field(description="last value of each point in `starts`; null where there is none")


class Comparison(Answer):
    """`compare`: in the order asked."""

    table: str
    field: str
    from_ms: int
    to_ms: int
    starts: Sequence[int]
    items: Sequence[Compared]
    missing: Sequence[Missing] = ()


class Signals(Answer):
    """`get_signals`: the newest first."""

    items: Sequence[Item]
    truncated: bool = Field(False, description="there may be more; name keys, or ask for stronger or newer ones")


class Feed(Model):
    """The feed of one venue."""

    venue: str
    connected: bool
    state: Literal["connected", "disconnected", "gap", "recovered", "error", "unknown"]
    last_heartbeat: int | None
    silent_ms: int | None
    gaps: int
    symbols_with_gaps: dict[str, int] = Field(description="gaps by symbol, the most first, at most 20")


class FeedHealth(Answer):
    """`get_feed_health`."""

    feeds: Sequence[Feed]


class LeftOut(Model):
    """What did not fit into a summary."""

    lines: int
    moves: int
    anomalies: int
    levels: int
    note: str


class Summary(Answer):
    """`summarize_state`."""

    summary: str
    tokens: int = Field(description="of the summary, by `counted_with`")
    budget_tokens: int
    counted_with: str
    left_out: LeftOut
    delta: bool = Field(description="whether only changes since the cursor are told")
    cursor: str = Field(description="give it to the next call to be told only what has changed")


class Waited(Answer):
    """`wait_for`."""

    held: bool = Field(description="whether the condition held before the deadline")
    table: str
    condition: str
    waited_ms: int
    deadline_ms: int
    item: Item = Field(description="the value that made it true, else the newest one")
