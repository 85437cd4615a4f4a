"""What waits for the next checkpoint: how much it is, what hurries because of it, and what has to wait."""

import asyncio
from collections.abc import Callable, Iterable

from streamapp.state.partition import PartitionState

#: so many times what forces a checkpoint may be waiting for it before nothing more is merged
_OVERFULL_FACTOR = 2


class Backlog:
    """Bounds the memory of changed state that is not durable yet.

    Args:
        states: all partitions that are open.
        cache_max_bytes: with more of it than this a checkpoint begins at once.
    """

    def __init__(self, states: Callable[[], Iterable[PartitionState]], cache_max_bytes: int) -> None:
        self._states = states
        self._cache_max_bytes = cache_max_bytes
        self._flushed = asyncio.Event()

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

    async def until_room(self) -> None:
        """Return when more may be merged; what waits in the lanes would else outgrow any bound on changed state."""
        while self.overfull:
            self._flushed.clear()
            await self._flushed.wait()

    def flushed(self) -> None:
        """A checkpoint has ended: who waits looks again."""
        self._flushed.set()
