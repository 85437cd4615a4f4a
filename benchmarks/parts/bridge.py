"""Frames of one socket until they are acknowledged in Kafka: a simulated venue at full speed, and the bridge."""

import asyncio
import sys
import time
from typing import Any

import aiohttp

from benchmarks.context import Context
from benchmarks.processes import Program, ProgramError, free_port
from benchmarks.worker import metric_sum

_TIMEOUT_S = 300.0
_LOOK_S = 0.1
_TOPICS = ("trades", "quotes", "feed-status")


async def measure(context: Context) -> dict[str, Any]:
    """Trades per second that Kafka has acknowledged, one frame each."""
    frames = context.sizes.frames
    port, metrics = free_port(), free_port()
    environment = {"STREAMAPP_KAFKA_BROKERS": context.brokers, "STREAMAPP_BRIDGE_METRICS_PORT": str(metrics)}
    command = [sys.executable, "-m", "streamapp"]
    simulator = Program(
        "simulator",
        [
            *command,
            *f"simulate --venue coinbase --port {port} --rate 0 --symbols 50 --seed 1 --events {frames}".split(),
        ],
        context.folder / "bridge",
        environment,
    )
    bridge = Program(
        "bridge",
        [*command, *f"bridge --feed coinbase --url ws://127.0.0.1:{port}".split()],
        context.folder / "bridge",
        environment,
    )
    await simulator.start()
    await bridge.start()
    try:
        first, begin = await _until(metrics, 1, bridge)
        cpu, broker = bridge.tree.cpu_seconds(), context.broker_cpu_seconds()
        last, end = await _until(metrics, frames, bridge)
        cpu, broker = bridge.tree.cpu_seconds() - cpu, context.broker_cpu_seconds() - broker
    finally:
        await bridge.stop()
        await simulator.stop()
    await context.drop(*_TOPICS)
    done = last - first
    if done <= 0:
        raise ProgramError("all frames were through before the first look: give it more of them")
    rate = round(done / (end - begin))
    context.say(f"{rate:,} frames/s")
    return {
        "frames": frames,
        "acknowledged_frames_per_s": rate,
        "cpu_s_per_million": round(cpu * 1e6 / done, 2),
        "broker_cpu_s_per_million": round(broker * 1e6 / done, 2),
    }


async def _until(port: int, least: int, bridge: Program) -> tuple[float, float]:
    """Wait until so many trades are acknowledged: how many, and when that was seen."""
    end = time.perf_counter() + _TIMEOUT_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        while time.perf_counter() < end:
            try:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    count = metric_sum(await answer.text(), "streamapp_bridge_records_total", 'topic="trades"')
            except (aiohttp.ClientError, TimeoutError):
                count = None  # not listening yet
            if count is not None and count >= least:
                return count, time.perf_counter()
            await asyncio.sleep(_LOOK_S)
    raise ProgramError(f"expected {least} acknowledged trades within {_TIMEOUT_S:.0f} s; {bridge.last_words()}")
