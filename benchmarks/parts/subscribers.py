"""Many event streams on one worker: how late their events are, what they take from the worker, and how much memory."""

import asyncio
import os
import random
import signal
import sys
import time
from typing import Any

import psutil

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.figures import latency_summary, median, significant
from benchmarks.load import OverloadError, SteadyLoad
from benchmarks.processes import Program, ProgramError
from benchmarks.worker import Worker

_CHANGES_PER_S = 5_000
_STALLED = 10  # one in so many
_TIMEOUT_S = 60.0
_SETTLE_S = 2.0
#: filling the backlog must not cost the stopped worker its place in the group
_SESSION_MS = 45_000
#: a worker that was stopped owes all of its subscribers a heartbeat when it goes on, which a running one never does at once
_HEARTBEAT_MS = 60_000


async def measure(context: Context) -> dict[str, Any]:
    """Milliseconds from an event's own time to its receipt; events/s with and without subscribers; bytes for each."""
    count, trades = context.sizes.subscribers, context.sizes.subscriber_trades
    topic = await context.topic("subscribers")
    worker = Worker(
        context,
        "candles",
        topic,
        app_id=context.name("subscribers"),
        environment={
            "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": str(_SESSION_MS),
            "STREAMAPP_SSE_HEARTBEAT_MS": str(_HEARTBEAT_MS),
        },
    )
    await worker.start()
    without: list[dict[str, float]] = []
    beside: list[dict[str, float]] = []
    steady: list[dict[str, Any]] = []
    memory: list[float] = []
    try:
        await worker.ready()
        await _backlog(context, worker, topic, count, trades)  # compilers and caches are warm after this
        for _ in range(context.sizes.rounds):
            without.append(await _backlog(context, worker, topic, count, trades))
            await asyncio.sleep(_SETTLE_S)
            resident = worker.program.tree.rss_bytes()
            listeners = await _connect(context, worker, count)
            try:
                steady.append(await _steady(context, worker, topic, listeners))
                memory.append((worker.program.tree.rss_bytes() - resident) / count)
                listeners.marks_so_far("received")
                began = time.perf_counter()
                loaded = await _backlog(context, worker, topic, count, trades)
                await asyncio.sleep(_SETTLE_S)
                delays = _delays(listeners.marks_so_far("received"))
                loaded["told_per_s"] = len(delays) / (time.perf_counter() - began)
                beside.append(loaded)
            finally:
                await listeners.stop(hard=True)
            await asyncio.sleep(_SETTLE_S)
            context.say(_line(without[-1], beside[-1], steady[-1], memory[-1]))
    finally:
        await worker.stop(hard=True)
    await context.drop(topic)
    ratios = [more["events_per_s"] / less["events_per_s"] for less, more in zip(without, beside, strict=True)]
    return {
        "subscribers": count,
        "stalled": count // _STALLED,
        "changes_per_s": _CHANGES_PER_S,
        "delay": sorted(steady, key=lambda one: float(one["p99_ms"]))[len(steady) // 2],
        "delay_p99_ms_rounds": [one["p99_ms"] for one in steady],
        "events_per_s_without": significant(median([one["events_per_s"] for one in without])),
        "events_per_s": significant(median([one["events_per_s"] for one in beside])),
        "throughput_ratio": significant(median(ratios)),
        "throughput_ratio_rounds": [significant(ratio) for ratio in ratios],
        "cpu_s_per_million_without": significant(min(one["cpu_s_per_million"] for one in without)),
        "cpu_s_per_million": significant(min(one["cpu_s_per_million"] for one in beside)),
        "bytes_per_subscriber": round(memory[0]),  # the allocator keeps what the first round took
        "load_1min": round(os.getloadavg()[0], 1),
    }


def _line(less: dict[str, float], more: dict[str, float], steady: dict[str, Any], memory: float) -> str:
    return (
        f"p50 {steady['p50_ms']} ms, p99 {steady['p99_ms']} ms, {steady['told_per_s']:,.0f} told/s "
        f"of {steady['applied_per_s']:,.0f}; "
        f"{less['events_per_s']:,.0f} events/s without, {more['events_per_s']:,.0f} with them "
        f"({more['told_per_s']:,.0f} told/s): {more['events_per_s'] / less['events_per_s']:.3f}; "
        f"CPU s/M {less['cpu_s_per_million']:.2f} and {more['cpu_s_per_million']:.2f}; {memory:,.0f} bytes each"
    )


async def _connect(context: Context, worker: Worker, count: int) -> Program:
    listeners = Program(
        context.name("listeners"),
        [
            *(sys.executable, "-m", "benchmarks.listeners"),
            *(str(worker.port), "candles", str(count), str(count // _STALLED)),
        ],
        context.folder / "listeners",
    )
    await listeners.start()
    await listeners.mark("connected", _TIMEOUT_S)
    return listeners


async def _steady(context: Context, worker: Worker, topic: str, listeners: Program) -> dict[str, Any]:
    """The delays of those that read, at a load that the worker keeps up with."""
    seconds = context.sizes.subscriber_s
    sender = context.steady_load(topic, _CHANGES_PER_S, seconds + 3 * _TIMEOUT_S, keys=context.sizes.subscribers)
    async with SteadyLoad(sender, _CHANGES_PER_S, worker) as load:
        settled = await load.settled()
        listeners.marks_so_far("received")
        begin, before = time.perf_counter(), worker.program.tree.cpu_seconds()
        await asyncio.sleep(seconds)
        elapsed = time.perf_counter() - begin
        cores = (worker.program.tree.cpu_seconds() - before) / elapsed
        delays = _delays(listeners.marks_so_far("received"))
        try:
            applied = await load.kept_up(settled)
        except OverloadError as problem:
            context.fail(str(problem))
            applied = problem.events_per_s
    if not delays:
        raise ProgramError("no subscriber was told of anything")
    return {
        **latency_summary(delays),
        "told_per_s": significant(len(delays) / elapsed),
        "applied_per_s": significant(applied),
        "cores": significant(cores),
    }


async def _backlog(context: Context, worker: Worker, topic: str, keys: int, trades: int) -> dict[str, float]:
    """Events/s of a backlog that the worker finds when it is woken up: it is stopped while the backlog is produced."""
    processes = worker.program.tree.processes()
    applied = await worker.applied()
    _signal(processes, signal.SIGSTOP)
    try:
        await asyncio.to_thread(_fill, context.brokers, topic, keys, trades)
    finally:
        begin = time.perf_counter()
        cpu = worker.program.tree.cpu_seconds()
        _signal(processes, signal.SIGCONT)
    while await worker.applied() < applied + trades:
        if time.perf_counter() - begin > _TIMEOUT_S:
            raise ProgramError(
                f"expected {applied + trades:.0f} records to be applied within {_TIMEOUT_S:.0f} s, got "
                f"{await worker.tally()}; {worker.program.last_words()}"
            )
        await asyncio.sleep(0.05)
    elapsed = time.perf_counter() - begin
    return {
        "events_per_s": trades / elapsed,
        "cpu_s_per_million": (worker.program.tree.cpu_seconds() - cpu) * 1e6 / trades,
    }


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        process.send_signal(number)


def _fill(brokers: str, topic: str, keys: int, trades: int) -> None:
    """Trades of all keys, at random, with the present as their event time."""
    chance = random.Random(3)
    names = [topics.symbol(number) for number in range(keys)]
    raw = [name.encode() for name in names]
    now_ms = time.time_ns() // 1_000_000
    chosen = chance.choices(range(keys), k=10_000)
    values = [
        topics.trade(names[index], 100.0 + number % 17, 1.0, now_ms, number) for number, index in enumerate(chosen)
    ]
    topics.fill(
        brokers, topic, ((raw[chosen[number % 10_000]], values[number % 10_000], now_ms) for number in range(trades))
    )


def _delays(marks: list[Any]) -> list[int]:
    return [delay for mark in marks for delay in mark.content["delays"]]
