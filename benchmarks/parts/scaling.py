"""One topic shared out over 1, 2 and 4 workers of this machine, with what the broker takes of its cores."""

import asyncio
import os
import time
from typing import Any

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.engines import OURS
from benchmarks.figures import significant
from benchmarks.processes import ProgramError
from benchmarks.worker import LOOK_S, Worker

_WORKERS = (1, 2, 4)
_TIMEOUT_S = 240.0
_STALL_S = 20.0
_START_TIMEOUT_S = 60.0


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
    begin: tuple[float, float, float, float] | None = None
    total, moved = 0.0, time.perf_counter()
    while True:
        applied = await asyncio.gather(*(worker.applied() for worker in workers))
        at = time.perf_counter()
        if sum(applied) > total:
            total, moved = sum(applied), at
        if begin is None and all(applied):
            begin = (at, total, _cpu(workers), context.broker_cpu_seconds())
        # what was fetched just before a rebalance may be applied twice by count, never in a table: what ends the run is
        # that nothing is left
        if total >= count and begin is not None and not await _lag(workers):
            break
        if at > end or (total and at - moved > _STALL_S):
            raise ProgramError(f"expected {count} records to be applied, got {applied}")
        await asyncio.sleep(LOOK_S)
    elapsed, done = moved - begin[0], total - begin[1]
    if elapsed <= 0 or done <= 0:
        raise ProgramError(f"all {count} events were applied before every worker had begun: give them more")
    return {
        "events_per_s": significant(done / elapsed),
        "measured_share": round(done / count, 2),
        "worker_cores": round((_cpu(workers) - begin[2]) / elapsed, 2),
        "broker_cores": round((context.broker_cpu_seconds() - begin[3]) / elapsed, 2),
        "broker_cpu_s_per_million": round((context.broker_cpu_seconds() - begin[3]) * 1e6 / done, 2),
        "cpu_s_per_million": round((_cpu(workers) - begin[2]) * 1e6 / done, 2),
    }


async def _lag(workers: list[Worker]) -> float:
    return sum([await worker.metric("streamapp_lag_records") or 0.0 for worker in workers])


def _cpu(workers: list[Worker]) -> float:
    return sum(worker.program.cpu_seconds() for worker in workers)
