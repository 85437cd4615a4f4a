"""A time-out for every request at the price of two dictionary operations.

`asyncio.timeout` arms and cancels a timer per request, which shows in a point read that takes some tens of microseconds.
One timer that looks at all requests in flight a few times per time-out is enough for a bound of seconds.
"""

import asyncio


class Deadlines:
    """Cancels tasks that stay longer than the time-out, at most an eighth of it late.

    Args:
        timeout_s: the bound.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._started: dict[asyncio.Task[object], float] = {}  # in order of start
        self._expired: set[asyncio.Task[object]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def enter(self, task: asyncio.Task[object], now: float) -> None:
        """The task begins what is bounded; `now` is the event loop's time."""
        self._started[task] = now
        if self._sweep is None:
            self._sweep = task.get_loop().call_later(self._timeout_s / 8, self._look, task.get_loop())

    def leave(self, task: asyncio.Task[object]) -> None:
        """The task is done with it; to be called whatever happened."""
        self._started.pop(task, None)

    def expired(self, task: asyncio.Task[object]) -> bool:
        """Whether a CancelledError that just arrived was this time-out's; it is then taken back."""
        if task in self._expired:
            self._expired.discard(task)
            return task.uncancel() == 0
        return False

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep = None
        now = loop.time()
        for task, since in list(self._started.items()):
            if now - since < self._timeout_s:
                break
            del self._started[task]
            self._expired.add(task)
            task.cancel()
        if self._started:
            self._sweep = loop.call_later(self._timeout_s / 8, self._look, loop)
