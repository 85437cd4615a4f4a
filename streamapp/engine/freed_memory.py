"""Freed memory goes back to the system once a load is over."""

import asyncio
from collections.abc import Callable

from streamapp.engine.process import release_freed_memory

#: a checkpoint of so many changed windows is a load that leaves something behind
_LOAD_MIN_CHANGES = 10_000
#: it is over once a checkpoint has no more than one of so many of its changes
_OVER_FACTOR = 10


class FreedMemory:
    """Looks at the size of each checkpoint, and gives memory back after large ones.

    The allocator keeps what is freed for whoever asks next, which is right while a load lasts: to give it back takes some
    20 ms and to get it again as much. After a million new windows it kept 150 MiB that nobody asked for any more.
    """

    def __init__(self, release: Callable[[], None] = release_freed_memory) -> None:
        self._release = release
        self._changes = 0
        self._largest = 0

    async def look(self, changes: int) -> None:
        """To be called after each checkpoint.

        Args:
            changes: how many changed windows there were since the start, of all partitions.
        """
        new, self._changes = changes - self._changes, changes
        self._largest = max(self._largest, new)
        if self._largest >= _LOAD_MIN_CHANGES and new * _OVER_FACTOR <= self._largest:
            self._largest = 0
            await asyncio.to_thread(self._release)
