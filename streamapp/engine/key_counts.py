"""Counting keys in the background, where a store does not know how many it has.

A store that was restored from the changelog has to be walked through once. This goes on a few keys at a time, between
everything else, so that nobody waits for it; until then the number is not told.
"""

import asyncio

from streamapp.engine.tables import LivePartition

_PAUSE_S = 0.005


class KeyCounts:
    """Counts one partition after the other, on the event loop."""

    def __init__(self) -> None:
        self._waiting: list[LivePartition] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, live: LivePartition) -> None:
        """Have a partition counted, if it is not."""
        if live.state is None or live.state.index.is_counted:
            return
        self._waiting.append(live)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="count-keys")

    async def stop(self) -> None:
        """Stop; what is not counted stays so."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            live = self._waiting.pop(0)
            state = live.state
            if state is None:
                continue
            for _ in state.index.counting():
                await asyncio.sleep(_PAUSE_S)
                if live.state is not state:
                    break  # taken away, or restored anew
