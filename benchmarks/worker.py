"""One worker of this project under measurement, seen through its public face only: HTTP and `/metrics`."""

import asyncio
import math
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from benchmarks.context import Context
from benchmarks.processes import Program, ProgramError, free_port

#: between two looks at a counter
LOOK_S = 0.1
APPLIED = "streamapp_records_applied_total"
_READY_LOOK_S = 0.02
_START_TIMEOUT_S = 120.0
_REQUEST_TIMEOUT_S = 30.0
#: a counter that stands still for so long will not reach its end
_STALL_S = 30.0


@dataclass(frozen=True)
class Sample:
    """A counter's value, and when it was that."""

    count: float
    at: float
    cpu_s: float
    broker_cpu_s: float


@dataclass(frozen=True)
class Tally:
    """What became of the records that workers have taken: counts since each of them started, `nan` where nobody answered."""

    applied: float
    late: float
    dead_letters: float

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.applied + other.applied, self.late + other.late, self.dead_letters + other.dead_letters)

    def __str__(self) -> str:
        if math.isnan(self.applied):
            return "an unknown number, as /metrics does not answer"
        return f"{self.applied:.0f} ({self.late:.0f} were late, {self.dead_letters:.0f} became dead letters)"


class Worker:
    """A worker process that runs one module of `benchmarks.apps`.

    Args:
        context: where.
        app: the module.
        topic: what it reads.
        app_id: its consumer group; a second worker with the same one shares the work.
        state: the name of its folder of local state; the same one means the same disk.
        environment: further settings.
    """

    def __init__(
        self,
        context: Context,
        app: str,
        topic: str,
        *,
        app_id: str,
        state: str = "",
        environment: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state_dir = context.folder / (state or f"{app_id}-state")
        self._context = context
        self.program = Program(
            f"{app_id}-{self.port}",
            [
                *(sys.executable, "-m", "faust", "-A", f"benchmarks.apps.{app}", "worker", "-l", "warn"),
                *("--web-port", str(self.port)),
            ],
            context.folder / "workers",
            {
                "STREAMAPP_KAFKA_BROKERS": context.brokers,
                "STREAMAPP_DATA_DIR": str(self.state_dir),
                # as Kafka Streams is set here: durable once a second
                "STREAMAPP_COMMIT_INTERVAL_MS": "1000",
                "BENCH_APP_ID": app_id,
                "BENCH_TOPIC": topic,
                **(environment or {}),
            },
        )
        self._session: aiohttp.ClientSession | None = None
        self.started_at = 0.0

    async def start(self) -> None:
        """Start the process; returns at once."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_REQUEST_TIMEOUT_S))
        self.started_at = time.perf_counter()
        await self.program.start()

    async def ready(self, timeout_s: float = _START_TIMEOUT_S) -> float:
        """Wait until `/health/ready` says 200; seconds since the start.

        Raises:
            ProgramError: it did not within the time.
        """
        return await self.answers("/health/ready", timeout_s)

    async def answers(self, path: str, timeout_s: float = _START_TIMEOUT_S) -> float:
        """Wait until a path answers 200; seconds since the start."""
        end = time.perf_counter() + timeout_s
        while time.perf_counter() < end:
            if await self._status(path) == 200:
                return time.perf_counter() - self.started_at
            self.program.check_alive()
            await asyncio.sleep(_READY_LOOK_S)
        raise ProgramError(f"{path} did not answer 200 within {timeout_s:.0f} s; {self.program.last_words()}")

    async def is_ready(self) -> bool:
        """Whether `/health/ready` says 200 right now."""
        return await self._status("/health/ready") == 200

    async def read(self, path: str) -> Any:
        """The JSON of a path.

        Raises:
            ProgramError: it does not answer 200.
        """
        assert self._session is not None, "start() first"
        async with self._session.get(self.url + path) as answer:
            if answer.status != 200:
                raise ProgramError(f"GET {path}: {answer.status} {(await answer.text())[:300]}")
            return await answer.json()

    async def try_read(self, path: str) -> Any | None:
        """As `read`; None where it is refused, or nobody answers."""
        try:
            return await self.read(path)
        except (aiohttp.ClientError, TimeoutError, ProgramError):
            self.program.check_alive()
            return None

    async def metric(self, name: str, labels: str = "") -> float | None:
        """The sum of a metric over its labels (those that hold the text `labels`); None while nothing answers.

        Raises:
            ProgramError: the worker has ended.
        """
        text = await self._metrics()
        return None if text is None else metric_sum(text, name, labels)

    async def applied(self) -> float:
        """Records merged into tables since the process started."""
        return await self.metric(APPLIED) or 0.0

    async def tally(self) -> Tally:
        """What became of all records since the process started.

        Raises:
            ProgramError: the worker has ended.
        """
        text = await self._metrics()
        return Tally(*[math.nan] * 3) if text is None else tally(text)

    async def sample(self) -> Sample:
        """Records applied, and what that has cost so far."""
        count = await self.applied()
        return Sample(count, time.perf_counter(), self.program.tree.cpu_seconds(), self._context.broker_cpu_seconds())

    async def first_and_last(self, events: int, timeout_s: float) -> tuple[Sample, Sample]:
        """Two samples: as soon as anything has been applied, and as soon as all of it has.

        Where the second look already finds everything applied, the first sample is the last one of nothing.

        Raises:
            ProgramError: the count stood still before its end, or the time is over.
        """
        end, moved = time.perf_counter() + timeout_s, time.perf_counter()
        first = nothing = None
        last = 0.0
        while True:
            sample = await self.sample()
            if sample.count > last:
                last, moved = sample.count, sample.at
                first = first or sample
            else:
                nothing = sample
            if first is not None and sample.count >= events:
                return (nothing if first is sample and nothing is not None else first), sample
            idle_s = _STALL_S if first is not None else _START_TIMEOUT_S
            if sample.at > end or sample.at - moved > idle_s:
                raise ProgramError(
                    f"expected {events} records to be applied, got {await self.tally()}, "
                    f"{sample.at - moved:.0f} s without any; {self.program.last_words()}"
                )
            await asyncio.sleep(LOOK_S)

    async def stop(self, *, hard: bool = False) -> None:
        """End it, by SIGTERM or as a crash would, and wait until it is gone."""
        try:
            await self.program.stop(hard=hard)
        finally:
            if self._session is not None:
                await self._session.close()

    async def _metrics(self) -> str | None:
        """What `/metrics` answers; None while nothing does."""
        assert self._session is not None, "start() first"
        try:
            async with self._session.get(f"{self.url}/metrics") as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            self.program.check_alive()
            return None

    async def _status(self, path: str) -> int | None:
        assert self._session is not None, "start() first"
        try:
            async with self._session.get(self.url + path) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None


def tally(text: str) -> Tally:
    """What became of the records, from what `/metrics` answers."""
    names = (APPLIED, "streamapp_late_records_total", "streamapp_dead_letters_total")
    # a reason that nothing was set aside for has no sample
    return Tally(*(metric_sum(text, name) or 0.0 for name in names))


def metric_sum(text: str, name: str, labels: str = "") -> float | None:
    """The sum of a metric's samples in Prometheus' text format; None where there is none.

    Args:
        text: what `/metrics` answers.
        name: the sample's full name, `_total` included.
        labels: only samples whose labels hold this text, e.g. `table="candles"`.
    """
    pattern = re.compile(rf"^{re.escape(name)}(?:{{([^}}]*)}})? (\S+)", re.MULTILINE)
    values = [float(value) for found, value in pattern.findall(text) if labels in found]
    return sum(values) if values else None
