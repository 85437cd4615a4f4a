"""What goes into a partition's state, and what comes out of it beside the values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamapp.state.entry import Checkpoint
from streamapp.state.store import WriteSet

#: names in `Batch.columns`: per record the place of its key, uint32, in the texts of the keys
KEY_NUMBERS, KEY_TEXTS = "numbers of keys", "texts of keys"
#: a mapping from names of fields to `Values`, where the batch was decoded by columns
DECODED = "columns as decoded"
#: a function from names of fields and places to records that hold these fields, or None
NARROW = "records of some fields"


@dataclass(slots=True)
class Batch:
    """Decoded records of one origin, in ascending order of offset; all sequences have the same length.

    Attributes:
        source: index of the source in the table's definition.
        origin: index of the offsets' origin; the same as `source` unless the table is re-keyed.
        end: the last offset that this batch accounts for, records that went to the dead letters included.
        offsets, keys, records, times, sequences: per record; times are event time in ms, sequences -1 where unknown.
        columns: what was made of the batch by name, on first need; tables that share a decoding share it.
        stream_times: per record the stream time of its origin, ms, where the batch holds only some of the origin's records;
            never falling. None: the records tell it themselves.
    """

    source: int
    origin: int
    end: int
    offsets: Sequence[int]
    keys: Sequence[str]
    records: Sequence[Any]
    times: Sequence[int]
    sequences: Sequence[int]
    columns: dict[Any, Any] = field(default_factory=dict)
    stream_times: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class LateRecord:
    """A record that at least one window was already closed for; it changed nothing there.

    Attributes:
        missed: the starts of those windows, milliseconds; for sessions the event's own time.
        watermark: the stream time that judged it.
    """

    key: str
    source: int
    origin: int
    offset: int
    event_time: int
    watermark: int
    missed: Sequence[int]
    record: Any


@dataclass(frozen=True, slots=True)
class FinalWindow:
    """A closed window with the value it will keep."""

    key: str
    start: int
    end: int
    value: Mapping[str, Any]

    def record(self, table: str) -> dict[str, Any]:
        """The fields of its `FinalRecord`; the same id and value however often it is sent."""
        return {
            "id": f"{table}:{self.key}:{self.start}",
            "table": table,
            "key": self.key,
            "window_start": self.start,
            "window_end": self.end,
            "value": dict(self.value),
            "event_time": self.end,
        }


@dataclass(slots=True)
class FlushPlan:
    """Everything that one checkpoint writes, in the order in which it must become durable.

    `values`, then `tombstones` and `late`, then `checkpoint`, then `finals`, and after all are acknowledged `changes` with
    the changelog's offset into the store.

    Final records follow the checkpoint because only then is it settled that their windows are closed: what closed them (an
    idle time-out, another source that was ahead) may come out differently when records are replayed.

    Attributes:
        values: key -> what it is now; `changes` holds the same mapping, as a plan may be most of a worker's memory.
        closed: the stream time up to which final records are out once `finals` are.
    """

    values: Mapping[bytes, bytes]
    tombstones: list[bytes]
    finals: list[FinalWindow]
    late: list[LateRecord]
    checkpoint: Checkpoint
    changes: WriteSet
    closed: int
    expired: int = 0
    evictable: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Applied:
    """What became of a batch.

    Attributes:
        merged, late, repeated: counts of records.
        failed: positions in the batch of records that the aggregate refused, with what it raised.
    """

    merged: int = 0
    late: int = 0
    repeated: int = 0
    failed: list[tuple[int, Exception]] = field(default_factory=list)
