"""Point reads over HTTP: idle and while events come in, against the least that aiohttp can do."""

import asyncio
import sys
from typing import Any

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.load import SteadyLoad
from benchmarks.load_test import pace, saturate
from benchmarks.processes import Program, free_port
from benchmarks.worker import Worker

_PACED_PER_S = 500
_START_TIMEOUT_S = 60.0
#: trades that the worker has before anything is read
_SEED_TRADES = 50_000


async def measure(context: Context) -> dict[str, Any]:
    """Requests/s and milliseconds: of a bare handler, idle, and while events come in."""
    seconds = context.sizes.read_s
    paths = [f"/v1/tables/candles/keys/{topics.symbol(index)}" for index in range(0, topics.SYMBOLS, 4)]
    figures: dict[str, Any] = {}
    try:
        figures["bare"] = {"what": "bare aiohttp", **await _bare(context, paths, seconds)}
        context.say(f"bare aiohttp: {figures['bare']['requests_per_s']:,.0f} requests/s")
    except Exception as problem:
        context.fail(f"bare aiohttp: {problem}")
    topic = await context.topic("reads")
    await asyncio.to_thread(topics.fill_with_trades, context.brokers, topic, _SEED_TRADES)
    worker = Worker(context, "candles", topic, app_id=context.name("reads"))
    await worker.start()
    try:
        await worker.first_and_last(_SEED_TRADES, _START_TIMEOUT_S)
        figures["idle"] = {
            "what": "streamapp, idle",
            **await saturate(worker.port, paths, seconds, context.folder),
        }
        figures["paced_idle"] = {
            "what": "streamapp, idle, paced",
            **await pace(worker.port, paths, seconds, _PACED_PER_S),
        }
        context.say(f"idle: {figures['idle']['requests_per_s']:,.0f} requests/s")
        try:
            figures |= await _loaded(context, worker, topic, paths, seconds)
        except Exception as problem:
            context.fail(f"while events come in: {problem}")
    finally:
        await worker.stop(hard=True)
    await context.drop(topic)
    return figures


async def _loaded(context: Context, worker: Worker, topic: str, paths: list[str], seconds: float) -> dict[str, Any]:
    rate = context.sizes.read_load
    sender = context.steady_load(topic, rate, 4 * seconds + 4 * _START_TIMEOUT_S)
    async with SteadyLoad(sender, rate, worker) as load:
        begin = await load.settled()
        paced = await pace(worker.port, paths, seconds, _PACED_PER_S)
        applied = await load.kept_up(begin)
        full = await saturate(worker.port, paths, seconds, context.folder)
        lag = await worker.metric("streamapp_lag_records")
    context.say(f"at {applied:,.0f} events/s: p99 {paced['p99_ms']} ms paced; {full['requests_per_s']:,.0f} requests/s")
    return {
        "paced_loaded": {"what": f"streamapp, {rate:,} events/s, paced", "applied_per_s": round(applied), **paced},
        "loaded": {"what": f"streamapp, {rate:,} events/s", "lag_after": lag, **full},
    }


async def _bare(context: Context, paths: list[str], seconds: float) -> dict[str, Any]:
    port = free_port()
    program = Program("bare", [sys.executable, "-m", "benchmarks.apps.bare_http", str(port)], context.folder)
    await program.start()
    try:
        await program.mark("ready", _START_TIMEOUT_S)
        return await saturate(port, paths, seconds, context.folder)
    finally:
        await program.stop()
