"""Resident memory of a worker that holds many live windows."""

import asyncio
import time
from typing import Any

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.figures import significant
from benchmarks.processes import ProgramError
from benchmarks.worker import LOOK_S, Worker

_TIMEOUT_S = 240.0
#: how long after the last event memory is looked at again: checkpoints are over then
_SETTLE_S = 5.0


async def measure(context: Context) -> dict[str, Any]:
    """MiB resident: idle, at its peak, and settled with all windows live; each is one key's present minute."""
    count = context.sizes.windows
    topic, empty = await context.topic("windows"), await context.topic("empty")
    idle = await _idle(context, empty)
    await asyncio.to_thread(topics.fill_with_windows, context.brokers, topic, count)
    worker = Worker(context, "candles", topic, app_id=context.name("memory"))
    await worker.start()
    peak = 0
    try:
        await worker.ready()
        begin, cpu = time.perf_counter(), worker.program.tree.cpu_seconds()
        end = begin + _TIMEOUT_S
        while await worker.applied() < count:
            peak = max(peak, worker.program.tree.rss_bytes())
            if time.perf_counter() > end:
                raise ProgramError(
                    f"expected {count} records to be applied within {_TIMEOUT_S:.0f} s, got {await worker.tally()}; "
                    f"{worker.program.last_words()}"
                )
            await asyncio.sleep(LOOK_S)
        elapsed = time.perf_counter() - begin
        end = time.perf_counter() + _SETTLE_S
        while time.perf_counter() < end:
            peak = max(peak, worker.program.tree.rss_bytes())
            await asyncio.sleep(LOOK_S)
        settled, cpu = worker.program.tree.rss_bytes(), worker.program.tree.cpu_seconds() - cpu
        # all of them are live: the last one answers as well as the first
        for number in (0, count - 1):
            await worker.read(f"/v1/tables/candles/keys/I{number:07d}-USD")
    finally:
        await worker.stop(hard=True)
    await context.drop(topic, empty)
    figures = {
        "windows": count,
        "idle_mib": _mib(idle),
        "peak_mib": _mib(peak),
        "settled_mib": _mib(settled),
        "settled_bytes_per_window": round((settled - idle) / count),
        # every event has a window of its own, so each goes to the changelog: what a change costs that nothing merges
        "new_windows_per_s": significant(count / elapsed),
        "cpu_s_per_million": significant(cpu * 1e6 / count),
    }
    context.say(
        f"{count:,} windows: {figures['settled_mib']} MiB (idle {figures['idle_mib']}, peak {figures['peak_mib']})"
    )
    return figures


async def _idle(context: Context, topic: str) -> int:
    worker = Worker(context, "candles", topic, app_id=context.name("idle"))
    await worker.start()
    try:
        await worker.ready()
        await asyncio.sleep(1.0)
        return worker.program.tree.rss_bytes()
    finally:
        await worker.stop(hard=True)


def _mib(size: int) -> int:
    return round(size / (1 << 20))
