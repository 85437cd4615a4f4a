"""Simulated time, and the event loops of simulated processes.

One heap holds everything that will happen, in any process or between them, in order of simulated time. A process has an
asyncio loop of its own that keeps asyncio's promises (callbacks in the order in which they were asked for, timers never
early); what varies is when the world outside answers, and how far each process gets meanwhile. All of it is drawn from
one seeded generator, so a seed is a schedule.
"""

import asyncio
import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

START_MS = 1_790_000_000_000
#: the loop whose "thread" runs now, for what such a thread constructs
running: list["SimulatedLoop"] = []


class Stuck(Exception):
    """Nothing was left to do, or too much was done, before what was waited for came."""


class World:
    """Time, chance and the record of what happened.

    Args:
        seed: decides everything.
        keep_trace: whether lines of the trace are kept, beside their hash.
    """

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self.violations: list[str] = []
        self.trace: list[str] | None = [] if keep_trace else None
        self._hash = hashlib.blake2b(digest_size=16)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def note(self, *what: object) -> None:
        """Put something that happened into the trace."""
        line = f"{self.now:.6f} {what}"
        self._hash.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    @property
    def digest(self) -> str:
        """The hash of everything noted so far."""
        return self._hash.hexdigest()

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Do something later; actions of the same moment happen in the order in which they were asked for."""
        self._serial += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._serial, action, args))

    def run(self, done: Callable[[], bool], *, limit_s: float, limit_steps: int = 2_000_000) -> None:
        """Let time pass until something is so.

        Raises:
            Stuck: it did not come to be.
        """
        deadline = self.now + limit_s
        while self.steps % 8 or not done():
            if self.violations:
                return
            if not self._heap:
                if done():
                    return
                raise Stuck("nothing is left to do")
            if self._heap[0][0] > deadline:
                raise Stuck(f"not within {limit_s} simulated seconds")
            self.steps += 1
            if self.steps > limit_steps:
                raise Stuck(f"not within {limit_steps} steps")
            when, _, action, args = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            action(*args)

    # --- chance ------------------------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.random.random() < probability

    def latency(self, typical_s: float) -> float:
        """Mostly about `typical_s`, sometimes a hundred times that."""
        draw = self.random.random()
        if draw < 0.9:
            return typical_s * draw
        return typical_s * (1 + 100 * self.random.random() ** 3)

    # --- the clock that code under test gets ------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Simulated wall time."""
        return START_MS + int(self.now * 1000)

    def monotonic_ms(self) -> int:
        """Simulated monotonic time."""
        return int(self.now * 1000)


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process: all of it runs on `World`'s time, and it can stop for good anywhere.

    Args:
        world: time and chance.
        after_step: called after each callback; True ends the process there.
    """

    def __init__(self, world: World, after_step: Callable[[], bool]) -> None:
        self.world = world
        self.dead = False
        self.paused_until = 0.0
        self.owner: Any = None
        self._after_step = after_step
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled = False

    # --- what asyncio asks of a loop ---------------------------------------------------------------------------------

    def time(self) -> float:
        return self.world.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody fetched: the process that it happened in has ended, or was ending."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self._ready.append(handle)
            self._schedule(0.0)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            self.world.after(max(when - self.world.now, 0.0), self._fire, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in the heap and does nothing there."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> "asyncio.Future[Any]":
        """Run it at some moment from now on, as a whole; the loop goes on before and after."""
        future = self.create_future()
        self.world.after(self.world.latency(0.001), self._run_thread, future, func, args)
        return future

    # --- running -----------------------------------------------------------------------------------------------------

    def _fire(self, timer: asyncio.TimerHandle) -> None:
        if not self.dead and not timer.cancelled():
            self._ready.append(timer)
            self._schedule(0.0)

    def _run_thread(self, future: "asyncio.Future[Any]", func: Any, args: Any) -> None:
        """One step of something that runs beside the loop; a generator is stepped, with pauses, to its end."""
        if self.dead:
            return
        if self.paused_until > self.world.now:
            self.world.after(self.paused_until - self.world.now, self._run_thread, future, func, args)
            return
        running.append(self)
        try:
            result = func(*args)
            if isinstance(result, Iterator):
                steps = result
                result = next(steps, None)
                if result is not None:
                    if not self._after_step():
                        self.world.after(self.world.latency(0.001), self._run_thread, future, iter, (steps,))
                    return
        except BaseException as problem:
            outcome: Any = (future.set_exception, problem)
        else:
            outcome = (future.set_result, result)
        finally:
            running.pop()
        if not self._after_step():
            self.call_soon(_settle, future, *outcome)

    def _schedule(self, delay_s: float) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.world.after(delay_s, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self.dead:
            return
        if self.paused_until > self.world.now:
            self._schedule(self.paused_until - self.world.now)
            return
        ready = self._ready
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                    if self._after_step():
                        return
        finally:
            asyncio._set_running_loop(None)
        if ready:
            self._schedule(self.world.random.random() * 0.0005)

    def kill(self) -> None:
        """Nothing of this process runs any more, not even what would clean up."""
        self.dead = True
        self._ready.clear()


def _settle(future: "asyncio.Future[Any]", setter: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        setter(value)
