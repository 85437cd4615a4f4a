"""When the next checkpoint begins: after every interval, or earlier when much has piled up."""

import asyncio
from collections.abc import Awaitable, Callable

from streamapp.clock import Clock

_STEP_MAX_MS = 50


class CheckpointTimer:
    """Asks for one checkpoint after the other, never for two at once.

    Args:
        interval_ms: from the end of one to the beginning of the next.
        clock: tells when it is over.
        checkpoint: makes one.
        is_due_early: whether one should begin before its time.
        is_held: whether none may begin now.
        on_failure: called with what a checkpoint raised; there is none after it.
    """

    def __init__(
        self,
        interval_ms: int,
        clock: Clock,
        *,
        checkpoint: Callable[[], Awaitable[None]],
        is_due_early: Callable[[], bool],
        is_held: Callable[[], bool],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._interval_ms = interval_ms
        self._clock = clock
        self._checkpoint = checkpoint
        self._is_due_early = is_due_early
        self._is_held = is_held
        self._on_failure = on_failure
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        self._task = asyncio.create_task(self._run(), name="checkpoints")

    async def stop(self) -> None:
        """Ask for no more; one that is under way is broken off."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        step_s = min(self._interval_ms, _STEP_MAX_MS) / 1000
        due_ms = self._clock.monotonic_ms() + self._interval_ms
        try:
            while True:
                await asyncio.sleep(step_s)
                now_ms = self._clock.monotonic_ms()
                if self._is_held() or (now_ms < due_ms and not self._is_due_early()):
                    continue
                await self._checkpoint()
                due_ms = self._clock.monotonic_ms() + self._interval_ms
        except Exception as problem:
            self._on_failure(problem)
