"""One topic shared out over 1, 2 and 4 workers of this machine, with what the broker takes of its cores."""

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.engines import OURS
from benchmarks.figures import significant
from benchmarks.processes import ProgramError
from benchmarks.worker import LOOK_S, Tally, Worker

_WORKERS = (1, 2, 4)
_TIMEOUT_S = 240.0
_STALL_S = 20.0
_QUIET_S = 1.5
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _Moment:
    applied: float
    at: float
    cpu_s: float
    broker_cpu_s: float


async def measure(context: Context) -> dict[str, Any]:
    """Events/s of all workers together, from when each has applied something; cores used by workers and broker."""
    count = context.sizes.scaling_trades
    topic = await context.topic("scaling")
    context.say(f"producing {count:,} trades")
    await asyncio.to_thread(topics.fill_with_trades, context.brokers, topic, count)
    figures: dict[str, Any] = {}
    for workers in _WORKERS:
        try:
            figures[str(workers)] = await _run(context, topic, workers, count)
        except Exception as problem:
            context.fail(f"{workers} workers: {problem}")
            continue
        context.say(f"{workers} workers: {figures[str(workers)]['events_per_s']:,.0f} events/s")
    await context.drop(topic)
    return {"events": count, "partitions": topics.PARTITIONS, "cores": os.cpu_count(), "workers": figures}


async def _run(context: Context, topic: str, number: int, count: int) -> dict[str, Any]:
    app_id = context.name(f"{OURS}-x{number}")
    gate = context.folder / f"{app_id}.gate"
    workers = [
        Worker(context, "gated_candles", topic, app_id=app_id, environment={"BENCH_GATE": str(gate)})
        for _ in range(number)
    ]
    try:
        for worker in workers:
            await worker.start()
        for worker in workers:
            await worker.program.mark("waiting", _START_TIMEOUT_S)
        gate.touch()
        return await _observe(context, workers, count)
    finally:
        await asyncio.gather(*(worker.stop(hard=True) for worker in workers))


async def _observe(context: Context, workers: list[Worker], count: int) -> dict[str, Any]:
    end = time.perf_counter() + _TIMEOUT_S
    begin = last = None
    while True:
        applied = await asyncio.gather(*(worker.applied() for worker in workers))
        now = _Moment(sum(applied), time.perf_counter(), _cpu(workers), context.broker_cpu_seconds())
        if last is None or now.applied > last.applied:
            last = now
        if begin is None and all(applied):
            begin = now
        # what was fetched just before a rebalance may be counted twice (in a table it never is): the run is over when all
        # has been counted and nothing more comes
        quiet_s = now.at - last.at
        if last.applied >= count and quiet_s > _QUIET_S:
            break
        if now.at > end or (last.applied and quiet_s > _STALL_S):
            total = sum(await asyncio.gather(*(worker.tally() for worker in workers)), Tally(0.0, 0.0, 0.0))
            by_worker = [int(one) for one in applied]
            raise ProgramError(f"expected {count} records to be applied, got {total}, {by_worker} by worker")
        await asyncio.sleep(LOOK_S)
    if begin is None or last.applied <= begin.applied:
        raise ProgramError(f"all {count} events were applied before every worker had begun: give them more")
    elapsed, done = last.at - begin.at, last.applied - begin.applied
    own, broker = last.cpu_s - begin.cpu_s, last.broker_cpu_s - begin.broker_cpu_s
    return {
        "events_per_s": significant(done / elapsed),
        "measured_share": round(done / count, 2),
        "applied_by": [int(one) for one in applied],
        "worker_cores": round(own / elapsed, 2),
        "broker_cores": round(broker / elapsed, 2),
        "cpu_s_per_million": round(own * 1e6 / done, 2),
        "broker_cpu_s_per_million": round(broker * 1e6 / done, 2),
    }


def _cpu(workers: list[Worker]) -> float:
    return sum(worker.program.tree.cpu_seconds() for worker in workers)
