"""A user's own Python: a function from state to state, and an agent, against the same agent in stock Faust."""

import asyncio
import sys
from typing import Any

from benchmarks import environments, topics
from benchmarks.context import Context
from benchmarks.engines import Run, peer_environment, run_peer, run_worker
from benchmarks.environments import PEERS
from benchmarks.figures import significant
from benchmarks.processes import free_port

_WORKER = ("worker", "-l", "warn")


async def measure(context: Context) -> dict[str, Any]:
    """Events/s of a table with `Fold`, of an `@app.agent`, and of stock Faust's agent."""
    sizes = context.sizes
    topic = await context.topic("steps")
    expected = await asyncio.to_thread(topics.fill_with_trades, context.brokers, topic, sizes.step_trades)
    figures: dict[str, Any] = {}
    try:
        run = await run_worker(context, "fold", topic, sizes.step_trades, expected)
        figures["fold"] = _figures(run)
    except Exception as problem:
        context.fail(f"a table with a user's function: {problem}")
    try:
        figures["agent"] = _figures(await _own_agent(context, topic))
    except Exception as problem:
        context.fail(f"an agent: {problem}")
    try:
        python = await asyncio.to_thread(environments.python_of, "faust", context.environments)
    except environments.UnavailableError as problem:
        context.skip(f"stock Faust's agent: {problem}")
    else:
        environment = peer_environment(context, topic, sizes.agent_trades_stock)
        command = [python, str(PEERS / "faust_agent.py"), *_WORKER, "--without-web"]
        try:
            figures["stock_agent"] = _figures(await run_peer(context, "stock Faust", command, environment))
        except Exception as problem:
            context.fail(str(problem))
    for name, content in figures.items():
        context.say(f"{name}: {content['events_per_s']:,.0f} events/s")
    await context.drop(topic)
    return figures


async def _own_agent(context: Context, topic: str) -> Run:
    environment = peer_environment(context, topic, context.sizes.agent_trades)
    group = environment["BENCH_GROUP"]
    del environment["PYTHONPATH"]
    environment |= {
        "BENCH_APP_ID": group,
        "STREAMAPP_KAFKA_BROKERS": context.brokers,
        "STREAMAPP_DATA_DIR": environment["BENCH_STATE"],
    }
    command = [sys.executable, "-m", "faust", "-A", "benchmarks.apps.agent", *_WORKER, "--web-port", str(free_port())]
    return await run_peer(context, "an agent", command, environment)


def _figures(run: Run) -> dict[str, float]:
    return {
        "events_per_s": significant(run.events_per_s),
        "cpu_s_per_million": significant(run.cpu_s_per_million),
    }
