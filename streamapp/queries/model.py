"""What a read is made of: the question's result and how fresh it is.

Views know this module and `Queries` alone; they never touch a table. What every read makes anew is a msgspec struct, which
costs a third of a frozen dataclass.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from streamapp.engine.hot_keys import HotKey

JsonValue = Any  # what `json.dumps` takes: the fields of a value depend on the table

#: On a read that another worker forwarded (value: `peers.hop_token`): answer it here or refuse, never forward it again.
HOP_HEADER = "Streamapp-Hop"


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of a table's value."""

    name: str
    type: str  # a JSON Schema type: "number", "integer", "string", "boolean", "object", "array"
    unit: str | None = None
    nullable: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What a table is, the same at every worker. Times are milliseconds."""

    name: str
    kind: Literal["tumbling", "hopping", "session", "latest"]
    fields: Sequence[FieldInfo]
    key_form: str
    partitions: int
    size_ms: int | None = None
    step_ms: int | None = None
    gap_ms: int | None = None
    grace_ms: int | None = None
    retention_ms: int | None = None
    description: str = ""
    #: field -> what stands for its values of several windows in a row, and for a `mean` what it is weighted by; the others'
    #: is the last one
    combine: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class WindowSpan(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The window that a value belongs to: `start` inclusive, `end` exclusive, milliseconds of event time."""

    start: int
    end: int
    final: bool


class FeedFreshness(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Whether the feed behind a key is known to be live, and how many gaps it has had."""

    connected: bool
    gaps: int


class Freshness(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How fresh an answer is; the contract explains each field."""

    as_of: int
    watermark: int | None
    partition: int
    offset: int | None
    lag: int | None
    restoring: bool
    age_ms: int | None
    staleness_ms: int
    feed: FeedFreshness | None
    stale: bool | msgspec.UnsetType = msgspec.UNSET  # only where it is so: answered from a copy, as the owner is gone


class Reading(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One value with its window and freshness. `window` is None for tables without windows."""

    table: str
    key: str
    window: WindowSpan | None
    value: Mapping[str, JsonValue]
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Page:
    """A page of results; `cursor` is opaque, and None on the last page."""

    items: Sequence[Any]
    cursor: str | None = None
    missing_partitions: Sequence[int] = ()  # partitions that no worker answered for
    looked_at: int = 0  # values that were read here to choose the items, where those are more


class Predicate(Protocol):
    """A condition on the fields of a value."""

    @property
    def text(self) -> str:
        """As it was written, which is how another worker is told of it."""
        ...

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Whether a value meets it."""
        ...


class Change(msgspec.Struct, frozen=True, gc=False):
    """One change of a value, as a subscriber sees it.

    Attributes:
        id: opaque; what all that came up to here can be resumed from. Empty where that is not this one.
        kind: a `snapshot` is what there is at first, or in the place of changes that cannot be told.
        reading: the newest value.
        conflated: how many further changes this one stands for.
        resumed: of a snapshot to a subscriber who gave an id: why it is not told only what has changed since.
    """

    id: str
    kind: Literal["snapshot", "change"]
    reading: Reading
    conflated: int = 0
    resumed: str | None = None


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """Another worker's stream is alive, and all that came up to this id has been told."""

    id: str


@dataclass(frozen=True, slots=True)
class FeedInfo:
    """The state of one venue's feed, for the dashboard and for health."""

    venue: str
    connected: bool
    state: str
    detail: str
    last_heartbeat: int | None
    gaps: int
    symbols: Mapping[str, int] = field(default_factory=dict)  # gaps per symbol


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What this worker is doing, for `/health/ready` and the dashboard."""

    ready: bool
    restoring: Sequence[str]  # "table-partition" of what is not restored yet
    assigned: Mapping[str, Sequence[int]]  # topic -> partitions
    lag: Mapping[str, int]  # topic -> records not yet applied
    records_applied: int
    detail: str = ""
    hot_keys: Sequence[HotKey] = ()  # the hottest first


class Queries(Protocol):
    """All reads.

    Every method raises the `QueryError` subclass that tells what is wrong, and answers within the settings'
    time-outs. `local_only` is set on a forwarded read: this worker answers itself or refuses, it never forwards again.
    """

    def tables(self) -> Sequence[TableInfo]:
        """Every table, in order of declaration."""
        ...

    def table(self, name: str) -> TableInfo:
        """One table; UnknownTableError."""
        ...

    async def key_counts(self, tables: Sequence[str], *, local_only: bool = False) -> Sequence[int | None]:
        """How many keys each of these tables holds, over all workers.

        None where that is not known: while a partition restores, is counted or has no owner that answers, and where only
        some keys may be read.
        """
        ...

    async def keys(
        self, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None, local_only: bool = False
    ) -> Page:
        """Keys in order, as strings. A cursor is a place among all keys, so it may be given with another prefix."""
        ...

    async def get(
        self,
        table: str,
        key: str,
        *,
        at: int | None = None,
        max_staleness_ms: int | None = None,
        local_only: bool = False,
    ) -> Reading:
        """The current value of a key (see the contract for which window that is)."""
        ...

    def point(self, table: str, key: str) -> Reading | None:
        """The same as `get` without parameters, at once; None where that is not possible here, so ask `get`."""
        ...

    async def values(
        self, table: str, keys: Sequence[str], *, max_staleness_ms: int | None = None, local_only: bool = False
    ) -> Sequence[Reading | Exception]:
        """The current values of several keys, in the order asked; a QueryError in the place of a key without one."""
        ...

    async def windows(
        self,
        table: str,
        key: str,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
        local_only: bool = False,
    ) -> Page:
        """Readings of the windows whose start lies in [start, end), in order of start."""
        ...

    async def top(
        self,
        table: str,
        *,
        by: str,
        order: Literal["asc", "desc"] = "desc",
        limit: int = 10,
        prefixes: Sequence[str] = ("",),
        local_only: bool = False,
    ) -> Page:
        """Newest readings of the keys with one of these beginnings, by one numeric field; nulls last, ties by key.

        No prefix begins another one.
        """
        ...

    def changes(
        self,
        table: str,
        key: str | None = None,
        *,
        prefix: str = "",
        condition: Predicate | None = None,
        since: str | None = None,
        local_only: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """Snapshots of what is there, then every change, of all workers. A slow reader gets the newest value per key.

        Of a key, or of the keys with a prefix; only values that meet the condition. With the id of a change that was told
        before, only what has changed since comes first, in the place of snapshots.
        """
        ...

    def feeds(self) -> Sequence[FeedInfo]:
        """Every feed that `feed-status` told of."""
        ...

    def worker(self) -> WorkerInfo:
        """This worker's state."""
        ...
