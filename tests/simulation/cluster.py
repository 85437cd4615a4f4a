"""A simulated Kafka: topics, partitions, compaction, and the committed offsets of a group."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple

from streamapp.kafka.partitioner import partition_for
from streamapp.state.entry import NO_EPOCH
from streamapp.state.epochs import epoch_of
from tests.simulation.world import World

Place = tuple[str, int]


class Stored(NamedTuple):
    """A record in a partition; it has what the engine reads of a consumer's records."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


class Partition:
    """The records of one partition, with gaps where compaction or other clients' markers left them."""

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.end = 0
        self._cleaned = 0  # tombstones below were seen by a compaction before; the next one may drop them

    def append(
        self, key: bytes | None, value: bytes | None, timestamp: int, headers: Iterable[tuple[str, bytes]]
    ) -> int:
        offset = self.end
        self.records.append(Stored(offset, key, value, timestamp, tuple(headers)))
        self.end += 1
        return offset

    def read(self, offset: int, limit: int) -> list[Stored]:
        first = bisect_left(self.records, offset, key=lambda record: record.offset)
        return self.records[first : first + limit]

    def compact(self, cut: int, *, drop_tombstones: bool) -> None:
        """Keep the last record of each key below `cut`; tombstones that an earlier run has seen may go, too."""
        last = {record.key: record.offset for record in self.records if record.offset < cut}
        self.records = [
            record
            for record in self.records
            if record.offset >= cut
            or (
                last[record.key] == record.offset
                and not (drop_tombstones and record.value is None and record.offset < self._cleaned)
            )
        ]
        self._cleaned = max(self._cleaned, cut)

    @property
    def doubtful(self) -> int:
        """The first record of a replaced owner whose key the present one has not written again; the end without any.

        Compaction that went beyond would take the good value under it. On a real broker `min.compaction.lag.ms` keeps it
        from that for long enough; here it is kept from exactly that, so that it may come at any other moment.
        """
        highest = NO_EPOCH
        open_keys: dict[bytes | None, int] = {}
        for record in self.records:
            epoch = epoch_of(record)
            if epoch >= highest:
                highest = epoch
                open_keys.pop(record.key, None)
            else:
                open_keys.setdefault(record.key, record.offset)
        return min(open_keys.values(), default=self.end)


class Cluster:
    """The brokers, as far as the state protocol can see them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.partitions: dict[str, int] = {}
        self.logs: dict[Place, Partition] = {}
        self.compacted: set[str] = set()
        self.committed: dict[Place, int] = {}
        self.told: dict[Place, str] = {}  # what was committed beside a position
        self.last_change = 0.0
        self.on_append: Callable[[Place, Stored], None] | None = None

    def create(self, topic: str, partitions: int, *, compacted: bool = False) -> None:
        if topic in self.partitions:
            return
        self.partitions[topic] = partitions
        for partition in range(partitions):
            self.logs[topic, partition] = Partition()
        if compacted:
            self.compacted.add(topic)

    def place_of(self, topic: str, key: bytes | None, partition: int | None) -> Place:
        if partition is not None:
            return topic, partition
        count = self.partitions[topic]
        return topic, self.world.random.randrange(count) if key is None else partition_for(key, count)

    def append(
        self,
        place: Place,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]] = (),
        timestamp: int | None = None,
    ) -> int:
        log = self.logs[place]
        self.last_change = self.world.now
        at = self.world.now_ms() if timestamp is None else timestamp
        offset = log.append(key, value, at, headers)
        self.world.note("append", place, offset, key, value)
        if self.on_append is not None:
            self.on_append(place, log.records[-1])
        return offset

    def compact_something(self) -> None:
        """Compact one changelog partition up to some point; the newest record is in the active segment and stays."""
        places = [place for place in self.logs if place[0] in self.compacted]
        if not places:
            return
        random = self.world.random
        place = random.choice(places)
        log = self.logs[place]
        bound = min(log.end - 1, log.doubtful)
        if bound > 0:
            cut = random.randint(0, bound)
            drop = random.random() < 0.3
            log.compact(cut, drop_tombstones=drop)
            self.world.note("compact", place, cut, drop)

    def compact_all(self, place: Place) -> None:
        """Compact a changelog partition as far as it may be, until nothing more can go."""
        log = self.logs[place]
        cut = min(log.end - 1, log.doubtful)
        log.compact(cut, drop_tombstones=True)
        log.compact(cut, drop_tombstones=True)
        self.world.note("compact", place, cut, True)
