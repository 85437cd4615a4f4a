"""What the bridge has accepted and Kafka has not yet acknowledged: in order, bounded, with water marks."""

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import islice

from streamapp.errors import ConfigurationError
from streamapp.feeds.protocol import DedupKey


class Entry:
    """One accepted record on its way.

    Attributes:
        topic: where it goes.
        key: the Kafka key.
        value: the bytes; emptied once acknowledged.
        venue: for the metrics.
        replaceable: a newer one of the same topic and key may take its place while it waits.
        dedup: what identifies it, or None.
        barrier: nothing after it is handed over until it is acknowledged.
        done: acknowledged, or given up.
        error: why the last try failed.
    """

    __slots__ = (
        "barrier",
        "dedup",
        "done",
        "error",
        "key",
        "replaceable",
        "size_bytes",
        "topic",
        "value",
        "venue",
    )

    def __init__(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        venue: str,
        *,
        replaceable: bool = False,
        dedup: DedupKey | None = None,
        barrier: bool = False,
    ) -> None:
        self.topic = topic
        self.key = key
        self.value = value
        self.venue = venue
        self.replaceable = replaceable
        self.dedup = dedup
        self.barrier = barrier
        self.done = False
        self.error: Exception | None = None
        self.size_bytes = len(key) + len(value)


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

    def put(self, entry: Entry) -> bool:
        """Accept an entry; False where it took the place of an older one, which is dropped."""
        if self._conflate and entry.replaceable and self._replaced(entry):
            return False
        self._waiting.append(entry)
        self._count(entry, 1)
        self._empty.clear()
        bounds = self._bounds
        if (self.records >= bounds.high_records or self.size_bytes >= bounds.high_bytes) and self._room.is_set():
            self._room.clear()
            self.bound_hits += 1
        return True

    async def room(self) -> None:
        """Wait until it is not full."""
        await self._room.wait()

    def release(self) -> None:
        """Let go of everybody who waits for room; for stopping."""
        self._room.set()

    async def drained(self) -> None:
        """Wait until everything accepted is acknowledged."""
        await self._empty.wait()

    def head(self) -> Entry | None:
        """The next entry to hand over."""
        return self._waiting[0] if self._waiting else None

    def hand_over(self) -> None:
        """The head is with the producer now."""
        entry = self._waiting.popleft()
        if self._conflate and entry.replaceable and self._newest.get((entry.topic, entry.key)) is entry:
            del self._newest[entry.topic, entry.key]
        self._sent.append(entry)
        self.in_flight += 1

    def settle(self, entry: Entry) -> None:
        """An entry that was handed over is acknowledged, or given up."""
        if entry.done:
            return
        entry.done = True
        entry.value = b""
        self.in_flight -= 1
        self._count(entry, -1)
        while self._sent and self._sent[0].done:
            self._sent.popleft()
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
        for entry in list(self._sent):
            self.settle(entry)

    def first(self, count: int) -> list[Entry]:
        """The first waiting entries, in order."""
        return list(islice(self._waiting, count))

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

    def _count(self, entry: Entry, sign: int) -> None:
        self.records += sign
        self.size_bytes += sign * entry.size_bytes
