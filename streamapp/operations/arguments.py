"""What each operation takes. The descriptions are what a model reads before it calls."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from streamapp.operations.conditions import CONDITION_MAX_CHARS

KEYS_MAX = 100
POINTS_MAX = 500
_EPOCH_MS_MAX = 9_999_999_999_999_999


def _listed(value: Any) -> Any:
    """A single text where a list is wanted: models often leave the brackets out."""
    return [value] if isinstance(value, str) else value


Table = Annotated[str, Field(min_length=1, max_length=128, description="a table's name, as list_tables gives it")]
Key = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
Instant = Annotated[int, Field(ge=0, le=_EPOCH_MS_MAX)]


class Arguments(BaseModel):
    """What every operation takes: nothing that is not named."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fresh(Arguments):
    """An operation that reads values."""

    max_staleness_ms: Annotated[int, Field(ge=0, le=_EPOCH_MS_MAX)] | None = Field(
        None, description="refuse to answer when the view may be further behind the world than this"
    )


class ListTables(Arguments):
    """`list_tables`."""


class DescribeTable(Arguments):
    """`describe_table`."""

    table: Table


class GetCurrent(Fresh):
    """`get_current`."""

    table: Table
    keys: Annotated[Sequence[Key], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=KEYS_MAX, description="one key or several; find_keys finds them"
    )


class GetWindows(Fresh):
    """`get_windows`."""

    table: Table
    key: Key = Field(description="one key")
    from_ms: Instant | None = Field(
        None, description="first window start, epoch ms, inclusive; default: as far back as max_points windows reach"
    )
    to_ms: Instant | None = Field(None, description="last window start, epoch ms, exclusive; default: now")
    max_points: int = Field(
        60, ge=1, le=POINTS_MAX, description="neighbouring windows are put together to keep to this many points"
    )


class GetTop(Fresh):
    """`get_top`."""

    table: Table
    by: str = Field(min_length=1, max_length=128, description="a numeric field of the table")
    order: Literal["desc", "asc"] = Field("desc", description="desc: largest first")
    limit: int = Field(10, ge=1, le=100, description="how many keys")


class FindKeys(Arguments):
    """`find_keys`."""

    query: str = Field(
        "", max_length=128, description="part of a key, any case; empty lists keys in order; btc finds coinbase:BTC-USD"
    )
    table: Table | None = Field(None, description="look in this table only; default: in all")
    limit: int = Field(20, ge=1, le=200, description="how many keys at most")


class Compare(Fresh):
    """`compare`."""

    table: Table
    keys: Annotated[Sequence[Key], BeforeValidator(_listed)] = Field(
        min_length=2, max_length=20, description="the keys to put side by side"
    )
    field: str | None = Field(
        None, max_length=128, description="the number to compare; default: close, price, mid or the first one"
    )
    span_ms: int = Field(3_600_000, ge=1, le=_EPOCH_MS_MAX, description="how far back from now to look")
    max_points: int = Field(12, ge=1, le=100, description="points per key")


class GetSignals(Fresh):
    """`get_signals`."""

    keys: Annotated[Sequence[Key], BeforeValidator(_listed)] | None = Field(
        None, min_length=1, max_length=KEYS_MAX, description="only these keys; default: all"
    )
    least_abs_z: float = Field(0.0, ge=0, le=1e6, description="leave out weaker anomalies than this |z|")
    since_ms: Instant | None = Field(None, description="leave out anomalies of minutes that began before this instant")
    limit: int = Field(20, ge=1, le=100, description="how many, the newest first")


class GetFeedHealth(Arguments):
    """`get_feed_health`."""

    venue: str | None = Field(None, min_length=1, max_length=128, description="one venue; default: all")


class SummarizeState(Fresh):
    """`summarize_state`."""

    tables: Annotated[Sequence[Table], BeforeValidator(_listed)] | None = Field(
        None, min_length=1, max_length=20, description="only these tables; default: all"
    )
    keys: Annotated[Sequence[Key], BeforeValidator(_listed)] | None = Field(
        None, min_length=1, max_length=KEYS_MAX, description="only these keys; default: all"
    )
    budget_tokens: int = Field(800, ge=100, le=20_000, description="the summary has at most this many tokens")
    style: Literal["text", "json"] = Field("text", description="lines of text, or compact JSON")
    cursor: str | None = Field(
        None, max_length=200, description="the cursor of an earlier summary: only what has changed since is told"
    )


class WaitFor(Fresh):
    """`wait_for`."""

    table: Table
    key: Key = Field(description="one key")
    condition: str = Field(
        min_length=1,
        max_length=CONDITION_MAX_CHARS,
        description="comparisons of the table's fields joined by `and`, such as `close > 70000 and count >= 10`",
    )
    timeout_ms: int = Field(
        30_000,
        ge=0,
        le=3_600_000,
        description="give up after this; the server has a bound of its own, told in the answer",
    )
