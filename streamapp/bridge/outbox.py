"""What the bridge has accepted and Kafka has not yet acknowledged: in order, bounded, with water marks."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamapp.errors import ConfigurationError
from streamapp.feeds.protocol import DedupKey
from streamapp.kafka.reports import Outgoing


class Entry(Outgoing, eq=False, gc=False):
    """One accepted record on its way; a struct that the garbage collector need not visit, for there are many.

    Attributes:
        topic: where it goes.
        key: the Kafka key.
        value: the bytes; emptied once acknowledged.
        venue: for the metrics.
        replaceable: a newer one of the same topic and key may take its place while it waits.
        dedup: what identifies it, or None.
        barrier: nothing after it is handed over until it is acknowledged.
        done: acknowledged, or given up.
        size_bytes: what it counts for in the bounds.
    """

    venue: str
    replaceable: bool = False
    dedup: DedupKey | None = None
    barrier: bool = False
    done: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The water marks of an outbox, in records and in bytes of keys and values."""

    high_records: int
    low_records: int
    high_bytes: int
    low_bytes: int

    def __post_init__(self) -> None:
        """Refuse marks that would never let go again."""
        if not (0 < self.low_records <= self.high_records and 0 < self.low_bytes <= self.high_bytes):
            raise ConfigurationError(
                "bridge: expected 0 < low water <= high water, got "
                f"{self.low_records}/{self.high_records} records and {self.low_bytes}/{self.high_bytes} bytes"
            )


class Outbox:
    """Entries in the order of acceptance: those that wait, and those handed to the producer.

    At the high-water mark it is full until it has fallen below the low-water mark; a caller that awaits `room` after
    every batch exceeds the high mark by one batch at most. With `conflate` a replaceable entry that still waits is
    replaced by its successor from the low-water mark on: the newest per topic and key wins, at the place of the older.

    For one event loop; not thread-safe.
    """

    def __init__(self, bounds: Bounds, *, conflate: bool = False) -> None:
        self._bounds = bounds
        self._conflate = conflate
        self._waiting: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()
        self._newest: dict[tuple[str, bytes], Entry] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.records = 0
        self.size_bytes = 0
        self.in_flight = 0
        self.bound_hits = 0

    @property
    def full(self) -> bool:
        """Whether the high-water mark was reached and the low one not yet again."""
        return not self._room.is_set()

    @property
    def waiting(self) -> int:
        """Entries that are not handed over."""
        return len(self._waiting)

    def put(self, entries: Sequence[Entry]) -> list[Entry]:
        """Accept entries in order; returns those that took the place of an older one, which is dropped."""
        replacing: list[Entry] = []
        if self._conflate:
            for entry in entries:
                entry.size_bytes = len(entry.key) + len(entry.value)
                if entry.replaceable and self._replaced(entry):
                    replacing.append(entry)
                else:
                    self._waiting.append(entry)
                    self.size_bytes += entry.size_bytes
                    self.records += 1
        else:
            total = 0
            for entry in entries:
                entry.size_bytes = size = len(entry.key) + len(entry.value)
                total += size
            self._waiting.extend(entries)
            self.size_bytes += total
            self.records += len(entries)
        if self.records:
            self._empty.clear()
        bounds = self._bounds
        if (self.records >= bounds.high_records or self.size_bytes >= bounds.high_bytes) and self._room.is_set():
            self._room.clear()
            self.bound_hits += 1
        return replacing

    async def room(self) -> None:
        """Wait until it is not full."""
        await self._room.wait()

    def release(self) -> None:
        """Let go of everybody who waits for room; for stopping."""
        self._room.set()

    async def drained(self) -> None:
        """Wait until everything accepted is acknowledged."""
        await self._empty.wait()

    def take(self, limit: int) -> list[Entry]:
        """The next entries to hand over, in order: at most `limit`, and none behind a barrier."""
        waiting = self._waiting
        taken: list[Entry] = []
        for _ in range(min(limit, len(waiting))):
            entry = waiting.popleft()
            taken.append(entry)
            if entry.barrier:
                break
        if self._conflate:
            for entry in taken:
                if entry.replaceable and self._newest.get((entry.topic, entry.key)) is entry:
                    del self._newest[entry.topic, entry.key]
        self._sent.extend(taken)
        self.in_flight += len(taken)
        return taken

    def untake(self, count: int) -> None:
        """The last `count` entries that were taken could not be handed over; they wait again, in their old order."""
        for _ in range(count):
            self._waiting.appendleft(self._sent.pop())
        self.in_flight -= count

    def settle(self, entries: Iterable[Entry]) -> None:
        """Entries that were handed over are acknowledged, or given up; those that were before count only once."""
        count = size = 0
        for entry in entries:
            if not entry.done:
                entry.done = True
                entry.value = b""
                count += 1
                size += entry.size_bytes
        self.in_flight -= count
        self.records -= count
        self.size_bytes -= size
        sent = self._sent
        while sent and sent[0].done:
            sent.popleft()
        bounds = self._bounds
        if self.records < bounds.low_records and self.size_bytes < bounds.low_bytes:
            self._room.set()
        if not self.records:
            self._empty.set()

    def take_back(self) -> list[Entry]:
        """Everything handed over and not settled waits again, in its old place and order; returns it."""
        back = [entry for entry in self._sent if not entry.done]
        self._sent.clear()
        self._waiting.extendleft(reversed(back))
        self.in_flight = 0
        return back

    def give_up_first(self, count: int, known: set[Entry]) -> None:
        """Settle those of the first `count` waiting entries that are in `known`."""
        head = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        keep = [entry for entry in head if entry not in known]
        self._sent.extend(entry for entry in head if entry in known)
        self._waiting.extendleft(reversed(keep))
        self.in_flight = len(self._sent)
        self.settle(list(self._sent))

    def _replaced(self, entry: Entry) -> bool:
        name = (entry.topic, entry.key)
        older = self._newest.get(name)
        bounds = self._bounds
        if older is None or (self.records < bounds.low_records and self.size_bytes < bounds.low_bytes):
            self._newest[name] = entry
            return False
        self.size_bytes += entry.size_bytes - older.size_bytes
        older.value, older.dedup, older.size_bytes = entry.value, entry.dedup, entry.size_bytes
        return True
