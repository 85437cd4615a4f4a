"""What a lane hands on, and what takes it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from streamapp.engine.deadletters import KafkaRecord
    from streamapp.errors import RecordError
    from streamapp.records.codec import Codec


@dataclass(slots=True)
class Decoded:
    """The readable records of a chunk; all sequences have the same length, in order of offset.

    Attributes:
        end: the last offset that the chunk accounts for.
        columns: what has been made of the chunk by name; tables that share a decoding share it.
    """

    raw: "Sequence[KafkaRecord]"
    offsets: Sequence[int]
    keys: Sequence[str]
    records: Sequence[Any]
    times: Sequence[int]
    sequences: Sequence[int]
    end: int
    columns: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ByColumns:
    """How a tap takes chunks that are decoded by columns.

    Attributes:
        fields: of the records, those that it takes as columns.
        min_records: from so many records on it takes them sooner so than one by one.
        quick: whether it works ahead on some hundred records in less time than a thread takes to begin.
        calls_per_record: whether each record costs it a call on the event loop all the same.
    """

    fields: Sequence[str]
    min_records: int
    quick: bool = False
    calls_per_record: bool = False


class Tap(Protocol):
    """What a lane feeds: a partition of a table, or the forwarding of a re-keyed table's source."""

    codec: "Codec"
    time_field: str | None
    needs_key: bool

    async def accept(self, decoded: Decoded) -> "Sequence[tuple[int, RecordError]]":
        """Take a chunk; when this returns, readers see it. Answers which records, by index, could not be used."""
        ...

    def position(self) -> int | None:
        """The offset that this tap wants to read next; None: wherever the group is."""
        ...

    @property
    def columns(self) -> ByColumns | None:
        """How it takes columns; None where it has to see the records themselves."""
        ...

    def prepare(self, decoded: Decoded) -> None:
        """Work ahead on a chunk that `accept` is given next; may run in a thread, changes nothing but the chunk."""
        ...


@runtime_checkable
class MarkedTap(Protocol):
    """A tap whose topic holds markers between the records: what has no value to decode, and is no dead letter."""

    def is_marker(self, raw: "KafkaRecord") -> bool:
        """Whether this is one."""
        ...

    def mark(self, markers: "Iterable[KafkaRecord]") -> None:
        """Take those of a chunk, after its records; what stands behind a marker agrees with it, so none is too late."""
        ...
