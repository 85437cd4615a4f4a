"""Which offsets of a partition the agents are done with.

Faust's own bookkeeping can step over a record that is not acknowledged yet, and acknowledges a record whose agent was
cancelled. Here the committable position is the first record that was handed out and is not done, whatever came after it.
"""

from collections import deque


class AckTracker:
    """The records of one partition that were handed to agents, in order of offset."""

    def __init__(self) -> None:
        self._handed: deque[int] = deque()
        self._done: set[int] = set()
        self._refused: set[int] = set()
        self._next: int | None = None

    def handed_out(self, offset: int) -> None:
        """Note that a record goes to the agents now."""
        self._handed.append(offset)

    def done(self, offset: int) -> None:
        """Note that every agent has finished with a record."""
        self._done.add(offset)

    def refuse(self, offset: int) -> None:
        """Note that a record was given up half-way: it must be delivered again, whatever `done` says of it."""
        self._refused.add(offset)

    def position(self) -> int | None:
        """The offset to commit: the next one that has to be delivered; None before anything is done."""
        handed, done, refused = self._handed, self._done, self._refused
        while handed and handed[0] in done and handed[0] not in refused:
            offset = handed.popleft()
            done.discard(offset)
            self._next = offset + 1
        return self._next

    @property
    def pending(self) -> int:
        """How many records are handed out and not committable yet."""
        self.position()
        return len(self._handed)
