"""Windowed aggregation: every engine over the same topic, in turn, several times."""

import asyncio
from typing import Any

from benchmarks import topics
from benchmarks.baseline import consume
from benchmarks.context import Context
from benchmarks.engines import ENGINES, OURS, OURS_PURE, Engine, Run, peer_environment, prepare, run_peer, run_worker
from benchmarks.figures import Spread
from streamapp.columns.library import load


async def measure(context: Context) -> dict[str, Any]:
    """Events/s, processor seconds per million events, of each engine."""
    count = context.sizes.trades
    topic = await context.topic("trades")
    context.say(f"producing {count:,} trades")
    expected = await asyncio.to_thread(topics.fill_with_trades, context.brokers, topic, count)
    wanted = [engine for engine in ENGINES if not context.engines or engine.name in context.engines]
    if load("auto") is None and any(engine.name == OURS_PURE for engine in wanted):
        # without the native library the two are one
        wanted = [engine for engine in wanted if engine.name != OURS_PURE]
        context.skip(f"{OURS_PURE}: the native decoder is not built, so {OURS} is just that")
    commands = {engine.name: await prepare(context, engine) for engine in wanted if engine.command is not None}
    wanted = [engine for engine in wanted if engine.command is None or commands[engine.name] is not None]
    runs: dict[str, list[Run]] = {engine.name: [] for engine in wanted}
    for number in range(context.sizes.rounds):
        # in turn, and every other round backwards: whatever else the machine does then falls on everybody
        for engine in wanted if number % 2 == 0 else reversed(wanted):
            try:
                run = await _run(context, engine, commands.get(engine.name), topic, expected)
            except Exception as problem:
                context.fail(f"{engine.name}, round {number + 1}: {problem}")
                continue
            runs[engine.name].append(run)
            context.say(f"round {number + 1}: {engine.name}: {run.events_per_s:,.0f} events/s")
    baseline = await consume(context.brokers, topic, count)
    await context.drop(topic)
    return {
        "events_on_topic": count,
        "partitions": topics.PARTITIONS,
        "symbols": topics.SYMBOLS,
        "engines": {
            engine.name: _summary(engine, engine.events(context.sizes), runs[engine.name])
            for engine in wanted
            if runs[engine.name]
        },
        "aiokafka_alone_records_per_s": round(baseline),
    }


async def _run(
    context: Context, engine: Engine, command: list[str] | None, topic: str, expected: dict[str, int]
) -> Run:
    if command is None:
        return await run_worker(
            context, "candles", topic, engine.events(context.sizes), expected, settings=engine.settings
        )
    environment = peer_environment(context, topic, engine.events(context.sizes), engine.threads)
    return await run_peer(context, engine.name, command, environment)


def _summary(engine: Engine, events: int, runs: list[Run]) -> dict[str, Any]:
    return {
        "events": events,
        "durable": engine.durable,
        "events_per_s": Spread.of([run.events_per_s for run in runs]).as_json(),
        "cpu_s_per_million": Spread.of([run.cpu_s_per_million for run in runs]).as_json(),
        "broker_cpu_s_per_million": Spread.of([run.broker_cpu_s_per_million for run in runs]).as_json(),
    }
