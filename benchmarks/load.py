"""A steady load beside which something else is measured: whether it is the load that was meant."""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Self

from benchmarks.processes import Mark, Program, ProgramError
from benchmarks.worker import APPLIED, LOOK_S, Worker

_START_TIMEOUT_S = 60.0
#: how long a worker may take to catch up before anything is measured
_SETTLE_TIMEOUT_S = 45.0
#: load that must have been worked off first: compilers and caches are warm then
_WARM_S = 1.0
#: of the time measured, how far behind a worker may be at its end; a slower one does less than nine tenths of the load
_BEHIND_SHARE = 0.1
#: checkpoints, garbage collection and looks take fractions of a second, however short the measurement is
BEHIND_MIN_S = 1.0


class OverloadError(ProgramError):
    """A worker did not keep up with a steady load.

    Args:
        message: what was expected, what became of it, and what to do.
        events_per_s: what it did instead.
    """

    def __init__(self, message: str, events_per_s: float) -> None:
        super().__init__(message)
        self.events_per_s = events_per_s


@dataclass(frozen=True)
class Reached:
    """A worker has applied everything that was due at some moment.

    Attributes:
        records: so many, since the load began.
        due_at: that moment, by `time.perf_counter`.
        at: when they were found applied.
    """

    records: int
    due_at: float
    at: float

    @property
    def behind_s(self) -> float:
        """How far the worker was behind."""
        return self.at - self.due_at


class SteadyLoad:
    """A sender of `Context.steady_load` and a worker that is to keep up with it, as a context manager.

    Counts over a short time say little, as a worker applies in batches: 2 s hold a tenth more or less than was sent in
    them. So what was due at a moment is followed until exactly these records are applied, at the beginning and at the end.

    Args:
        program: the sender, not started yet.
        rate: its events/s.
        worker: has applied everything that was on the topic before.
    """

    def __init__(self, program: Program, rate: float, worker: Worker) -> None:
        self._program = program
        self._rate = rate
        self._worker = worker
        self._before = 0.0
        self._begin = 0.0

    async def __aenter__(self) -> Self:
        before = await self._worker.metric(APPLIED)
        if before is None:
            raise ProgramError("expected the worker to say what it has applied, got no answer of /metrics")
        self._before = before
        try:
            await self._program.start()
            started: Mark = await self._program.mark("started", _START_TIMEOUT_S)
        except BaseException:
            await self._program.stop(hard=True)
            raise
        self._begin = started.content["at"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._program.stop(hard=True)

    async def settled(self) -> Reached:
        """Wait until the first second has been worked off and the worker is no more than a second behind.

        Raises:
            OverloadError: that did not happen in time.
            ProgramError: the sender or the worker ended.
        """
        end = time.perf_counter() + _SETTLE_TIMEOUT_S
        await asyncio.sleep(max(0.0, self._begin + _WARM_S - time.perf_counter()))
        while True:
            reached = await self._reach(end - time.perf_counter())
            if reached is None:
                raise await self._overload(BEHIND_MIN_S, Reached(0, self._begin, self._begin))
            if reached.behind_s <= BEHIND_MIN_S:
                return reached

    async def kept_up(self, since: Reached) -> float:
        """Events/s that were applied since then, all that has become due by now included.

        Raises:
            OverloadError: the worker is too far behind: it was not under the load that was meant.
            ProgramError: the sender or the worker ended.
        """
        limit_s = behind_limit_s(time.perf_counter() - since.at)
        reached = await self._reach(limit_s)
        if reached is None:
            raise await self._overload(limit_s, since)
        return _rate(since, reached)

    async def _reach(self, patience_s: float) -> Reached | None:
        """Wait until what is due now is applied; None where that took longer."""
        due_at = time.perf_counter()
        due = int((due_at - self._begin) * self._rate)
        while True:
            applied = await self._worker.applied() - self._before
            at = time.perf_counter()
            if at - due_at > patience_s:
                return None
            if applied >= due:
                return Reached(due, due_at, at)
            await asyncio.sleep(LOOK_S)

    async def _overload(self, limit_s: float, since: Reached) -> OverloadError:
        self._program.check_alive()
        tally, now = await self._worker.tally(), time.perf_counter()
        done = Reached(0 if math.isnan(tally.applied) else int(tally.applied - self._before), now, now)
        due = int((now - self._begin) * self._rate)
        paces = self._program.marks_so_far("pace")
        sent = "{sent} sent and {delivered} acknowledged".format(**paces[-1].content) if paces else "nothing"
        return OverloadError(
            f"expected {self._rate:.0f} events/s to be applied within {limit_s:.1f} s each, got {done.records} of {due} by "
            f"now; the sender's last word: {sent}; of the whole topic the worker has applied {tally}: not the load meant, "
            "measure again with less going on beside it",
            _rate(since, done),
        )


def _rate(begin: Reached, end: Reached) -> float:
    return (end.records - begin.records) / max(end.at - begin.at, LOOK_S)


def behind_limit_s(seconds: float) -> float:
    """How far a worker may be behind its load after a measurement of some seconds."""
    return max(BEHIND_MIN_S, _BEHIND_SHARE * seconds)
