"""One partition of a table with a list for a changelog, that can crash between any two acknowledgements.

The state code and the restoring code are the real ones; what is modelled is Kafka (an ordered list, compacted where asked)
and the process (everything in memory goes in a crash). Records are read again from where the restored state says, or
earlier.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamapp.records.codec import RawCodec
from streamapp.state.batch import Applied, Batch, FlushPlan
from streamapp.state.definition import Source, TableDefinition, Window
from streamapp.state.entry import CHECKPOINT_KEY, Entry, split_data_key
from streamapp.state.partition import PartitionState
from streamapp.state.replay import Replay
from streamapp.state.store import MemoryStore
from streamapp.windows.aggregate import Aggregate

Row = dict[str, Any]


class Event(NamedTuple):
    """A record on a source; its offset is its place in the list."""

    key: str
    event_time: int
    price: float = 1.0
    size: float = 1.0
    side: str | None = None
    sequence: int = -1
    bid: float = 1.0
    ask: float = 2.0


def definition(window: Window | None, aggregate: Aggregate, sources: int = 1, **options: Any) -> TableDefinition:
    topics = tuple(Source(f"source-{index}", RawCodec()) for index in range(sources))
    return TableDefinition(name="table", sources=topics, aggregate=aggregate, window=window, **options)


def batch(
    events: Sequence[Event], *, first: int = 0, origin: int = 0, source: int | None = None, end: int | None = None
) -> Batch:
    """These events at consecutive offsets."""
    last = first + len(events) - 1
    return Batch(
        origin if source is None else source,
        origin,
        last if end is None else end,
        range(first, first + len(events)),
        [event.key for event in events],
        list(events),
        [event.event_time for event in events],
        [event.sequence for event in events],
    )


class Message(NamedTuple):
    """As the changelog's reader hands it over."""

    at: int
    raw_key: bytes
    raw_value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()

    @property
    def key(self) -> bytes:
        return self.raw_key

    @property
    def value(self) -> bytes | None:
        return self.raw_value

    @property
    def offset(self) -> int:
        return self.at


def compacted(changelog: Iterable[Message]) -> list[Message]:
    """What compaction leaves in the end: the last value of each key, no tombstones."""
    last = {message.raw_key: message for message in changelog}
    return sorted(message for message in last.values() if message.raw_value is not None)


def replayed(changelog: Sequence[Message], store: MemoryStore, *, windowed: bool, chunk: int = 3) -> MemoryStore:
    """The store after the worker's own restoring, `chunk` records at a time."""
    replay = Replay(store, windowed=windowed)
    missing = [message for message in changelog if message.at >= replay.position]
    for begin in range(0, len(missing), chunk):
        part = missing[begin : begin + chunk]
        store.write(replay.take(part, part[-1].at + 1))
    return store


def rows_of(store: MemoryStore) -> dict[tuple[str, int], Entry]:
    """Every value in a store."""
    return {split_data_key(raw_key): Entry.decode(raw) for raw_key, raw in store.scan(b"d", b"e")}


@dataclass
class Worker:
    """Reads `sources`, one list per origin, into one partition of `table`."""

    table: TableDefinition
    sources: Sequence[Sequence[Event]]
    cache_max_entries: int = 200_000
    changelog: list[Message] = field(default_factory=list)
    finals: dict[tuple[str, int], list[Mapping[str, Any]]] = field(default_factory=dict)
    late: set[tuple[int, int]] = field(default_factory=set)
    rejected: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.state = self._over(MemoryStore())
        self.positions = [0] * len(self.sources)

    def _over(self, store: MemoryStore) -> PartitionState:
        return PartitionState(self.table, 0, store, origins=len(self.sources), cache_max_entries=self.cache_max_entries)

    def read(self, origin: int, count: int) -> Applied | None:
        """Apply the next records of an origin; None at its end."""
        first = self.positions[origin]
        events = self.sources[origin][first : first + count]
        if not events:
            return None
        self.positions[origin] = first + len(events)
        source = 0 if self.table.rekey is not None else origin
        return self.state.apply(batch(events, first=first, origin=origin, source=source))

    def read_all(self) -> None:
        for origin in range(len(self.sources)):
            self.read(origin, len(self.sources[origin]))

    def plan(self) -> FlushPlan | None:
        return self.state.prepare_flush("cluster", ("id",) * len(self.sources), (-1,) * len(self.sources))

    def flush(self, acknowledged: int | None = None, *, late_first: bool = False) -> bool:
        """A checkpoint of which so many records are acknowledged; True where it was completed."""
        plan = self.plan()
        if plan is None:
            return True
        beside: list[Callable[[], None]] = [lambda raw=raw: self._append(raw, None) for raw in plan.tombstones]  # type: ignore[misc]
        late: list[Callable[[], None]] = [
            lambda place=(record.origin, record.offset): self.late.add(place)  # type: ignore[misc]
            for record in plan.late
        ]
        steps: list[Callable[[], None]] = [
            *(lambda pair=pair: self._append(*pair) for pair in plan.values.items()),  # type: ignore[misc]
            *(late + beside if late_first else beside + late),
            lambda: self._append(CHECKPOINT_KEY, plan.checkpoint.encode()),
            *(
                lambda final=final: self.finals.setdefault((final.key, final.start), []).append(dict(final.value))  # type: ignore[misc]
                for final in plan.finals
            ),
        ]
        for step in steps[:acknowledged]:
            step()
        if acknowledged is not None and acknowledged < len(steps):
            return False
        checkpoint = max(message.at for message in self.changelog if message.raw_key == CHECKPOINT_KEY)
        if acknowledged == len(steps):
            return False  # all is acknowledged, the store is not written
        self.state.complete_flush(plan, checkpoint)
        return True

    def _append(self, raw_key: bytes, value: bytes | None) -> None:
        self.changelog.append(Message(len(self.changelog), raw_key, value))

    def crash(self, *, keep_store: bool = True, compact: bool = False, again: int = 0) -> None:
        """Lose what is in memory, and the disk where asked; then restore and go back, `again` records further."""
        if keep_store:
            assert isinstance(self.state.store, MemoryStore)
            store, log = self.state.store, self.changelog
        else:
            store, log = MemoryStore(), compacted(self.changelog) if compact else self.changelog
        self.state = self._over(replayed(log, store, windowed=self.table.window is not None))
        self.positions = [max(applied + 1 - again, 0) for applied in self.state.applied]

    # --- what there is now -------------------------------------------------------------------------------------------

    def views(self) -> list[dict[tuple[str, int], Row]]:
        """Everything, three times: as readers see it, from the store, and from the changelog in an empty store."""
        seen = {
            (key, start): entry for key in self.state.keys() for start, entry in self.state.windows(key, 0, 1 << 60)
        }
        assert isinstance(self.state.store, MemoryStore)
        windowed = self.table.window is not None
        fresh = replayed(self.changelog, MemoryStore(), windowed=windowed)
        small = replayed(compacted(self.changelog), MemoryStore(), windowed=windowed)
        stored = [rows_of(store) for store in (self.state.store, fresh, small)]
        return [{place: self.row(*place, entry) for place, entry in rows.items()} for rows in (seen, *stored)]

    def row(self, key: str, start: int, entry: Entry) -> Row:
        end = self.state.end_of(start, entry)
        return dict(self.table.aggregate.result(entry.state, (start, end)))
