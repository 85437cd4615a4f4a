"""What waits for the next checkpoint: how much it is, what hurries because of it, and what has to wait."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from streamapp.state.partition import PartitionState

#: so many times what forces a checkpoint may be waiting for it before nothing more is merged
_OVERFULL_FACTOR = 2
#: what fewer records may change is not worth a look ahead
_FEW_RECORDS = 1_024
#: how long a large chunk waits before it is looked again: a lane does not say that it is done until it asks for more
_LOOK_S = 0.01
Place = tuple[str, int]


class Lane(Protocol):
    """What is asked of a lane."""

    offered: int

    @property
    def queued(self) -> int:
        """Records that it has been offered and is not done with."""
        ...


class Backlog:
    """Bounds the memory of changed state that is not durable yet.

    What a chunk changes is known only once it is merged, so lanes that begin at once would all find room that is there for
    one of them. Where records change windows that were not changed before, a large chunk therefore waits until there is
    room for it beside the chunks that others have begun. Where they meet windows that are changed already, which is the
    rule, a chunk needs next to none, and no lane waits for another.

    Args:
        states: all partitions that are open.
        lanes: what feeds them.
        cache_max_bytes: with more of it than this a checkpoint begins at once.
    """

    def __init__(
        self, states: Callable[[], Iterable[PartitionState]], lanes: Mapping[Place, Lane], cache_max_bytes: int
    ) -> None:
        self._states = states
        self._lanes = lanes
        self._cache_max_bytes = cache_max_bytes
        self._moved = asyncio.Event()
        self._line: deque[object] = deque()  # who waits with a large chunk
        # large chunks: the lane, as another may come to its place; what it was done with before; records of the chunk
        self._begun: dict[Place, tuple[Lane, int, int]] = {}
        self._changes_each = 1.0  # windows that one record brings among the changed ones, as seen lately
        self._seen = (0, 0)  # changes and records up to which that was seen

    @property
    def pending_bytes(self) -> int:
        """Roughly what the next checkpoint writes, of all partitions."""
        return sum(state.pending_bytes for state in self._states())

    @property
    def urgent(self) -> bool:
        """Whether a checkpoint should begin before its time."""
        return self.pending_bytes > self._cache_max_bytes or any(state.behind for state in self._states())

    @property
    def overfull(self) -> bool:
        """Whether nothing more may be merged before a checkpoint is through."""
        return self.pending_bytes > _OVERFULL_FACTOR * self._cache_max_bytes

    async def until_room(self, place: Place, records: int) -> None:
        """Return when a lane may begin with a chunk; what waits in the lanes would else outgrow any bound on changed state.

        Args:
            place: the lane. That it asks says that it is done with the chunk before.
            records: how many it takes, at most.
        """
        if self._begun.pop(place, None) is not None:
            self._moved.set()
        if records <= _FEW_RECORDS:
            while self.overfull:
                await self._until_moved()
            return
        self._learn()
        own = object()
        self._line.append(own)
        try:
            while self._line[0] is not own or not self._has_room(records):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._until_moved()
        finally:
            self._line.remove(own)
            self._moved.set()  # the next one looks
        lane = self._lanes.get(place)
        if lane is not None:
            self._begun[place] = lane, _done(lane), records

    def flushed(self) -> None:
        """A checkpoint has ended: who waits looks again."""
        self._moved.set()

    async def _until_moved(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def _has_room(self, records: int) -> bool:
        pending, bound = self.pending_bytes, _OVERFULL_FACTOR * self._cache_max_bytes
        if pending > bound:
            return False
        # a lane that has nothing more to do, or is not there any more, does not say so
        begun = [
            count
            for place, (lane, done, count) in self._begun.items()
            if self._lanes.get(place) is lane and _done(lane) == done
        ]
        if not begun:
            return True
        entry_bytes = max((state.entry_bytes for state in self._states()), default=0)
        return pending + (sum(begun) + records) * self._changes_each * entry_bytes <= bound

    def _learn(self) -> None:
        changes = sum(state.changes for state in self._states())
        records = sum(map(_done, self._lanes.values()))
        new_changes, new_records = changes - self._seen[0], records - self._seen[1]
        self._seen = changes, records
        if new_records > 0 and new_changes >= 0:  # else partitions have come or gone
            self._changes_each = max(new_changes / new_records, self._changes_each / 2)


def _done(lane: Lane) -> int:
    return lane.offered - lane.queued
