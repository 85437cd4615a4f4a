"""Turns of the event loop: what becomes ready together is not done in one go.

An answer of the broker has records of several partitions. Their lanes become ready together, and the event loop would run
them one after another before it looks at its sockets again: a reader then waits for all of them, and not for one.
"""

import asyncio
from collections import deque


class Turns:
    """Lets at most one of several tasks go on in each turn of the event loop, in the order in which they ask."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def next(self) -> None:
        """Return when the turn is the caller's: at once where this one has been nobody's, else in a later one."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._pass_on)
            return
        mine = loop.create_future()
        self._line.append(mine)
        await mine

    def _pass_on(self) -> None:
        while self._line:
            waiting = self._line.popleft()
            if not waiting.done():  # else it was cancelled
                waiting.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._taken = False
