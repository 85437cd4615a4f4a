"""From the producer's call until the event is visible: over HTTP here, in process in Kafka Streams, at steady rates."""

import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import environments
from benchmarks.context import Context
from benchmarks.engines import peer_environment
from benchmarks.figures import latency_summary
from benchmarks.probes import RATE_PER_S, probe_keys
from benchmarks.processes import Program, ProgramError
from benchmarks.worker import Worker

_RATES = (5_000, 20_000)
_START_TIMEOUT_S = 60.0
_SLACK_S = 60.0
#: how long after the last probe those under way are waited for
_TAIL_S = 10.0
#: load that must have been worked off before the first probe: compilers and caches are warm then
_WARM_S = 3
#: a sender that fell behind by more than this time did not send steadily
_BEHIND_MAX_S = 1.0


async def measure(context: Context) -> dict[str, Any]:
    """Quantiles in milliseconds, per rate."""
    figures: dict[str, Any] = {}
    for rate in _RATES:
        try:
            figures[f"http_{rate}"] = await _over_http(context, rate)
        except Exception as problem:
            context.fail(f"over HTTP at {rate} events/s: {problem}")
    try:
        command = await asyncio.to_thread(environments.kafka_streams, context.environments)
    except environments.UnavailableError as problem:
        context.skip(f"Kafka Streams: {problem}")
    else:
        for rate in _RATES:
            try:
                figures[f"kafka_streams_{rate}"] = await _in_kafka_streams(context, command, rate)
            except Exception as problem:
                context.fail(f"Kafka Streams at {rate} events/s: {problem}")
    for content in figures.values():
        context.say(
            f"{content['what']} at {content['events_per_s']:,.0f} events/s: p50 {content['p50_ms']} ms, "
            f"p99 {content['p99_ms']} ms, {content['lost']} of {content['samples'] + content['lost']} unseen"
        )
    return figures


async def _over_http(context: Context, rate: int) -> dict[str, Any]:
    topic = await context.topic("latency")
    worker = Worker(context, "candles", topic, app_id=context.name("latency"))

    async def warm() -> None:
        await worker.first_and_last(_WARM_S * rate, _START_TIMEOUT_S)

    await worker.start()
    try:
        await worker.ready()
        keys = await _send(context, topic, rate, worker.port, warm)
    finally:
        await worker.stop(hard=True)
    await context.drop(topic)
    taken, lost = latencies(keys, context.sizes.latency_warmup_s)
    return _figures("streamapp over HTTP", "over HTTP", rate, taken, lost)


async def _in_kafka_streams(context: Context, command: list[str], rate: int) -> dict[str, Any]:
    topic = await context.topic("latency")
    environment = peer_environment(context, topic, _WARM_S * rate)
    program = Program(
        environment["BENCH_GROUP"], [*command, "bench.Latency", *probe_keys()], context.folder / "peers", environment
    )

    async def warm() -> None:
        await program.mark("warm", _START_TIMEOUT_S)

    await program.start()
    try:
        await program.mark("ready", _START_TIMEOUT_S)
        keys = await _send(context, topic, rate, 0, warm)
        seen: dict[str, list[tuple[int, float]]] = {name: [] for name in keys}
        end = time.perf_counter() + _TAIL_S
        while time.perf_counter() < end and any(len(keys[name]["sent"]) > newest(seen[name]) for name in keys):
            # what it saw waits in its output; the last ones may still be on their way
            await asyncio.sleep(0.1)
            for mark in program.marks_so_far("seen"):
                seen[mark.content["key"]].append((mark.content["number"], mark.content["at"]))
    finally:
        await program.stop(hard=True)
    await context.drop(topic)
    for name, content in keys.items():
        content["seen"] = seen_times(len(content["sent"]), seen[name])
    taken, lost = latencies(keys, context.sizes.latency_warmup_s)
    return _figures("Kafka Streams in process", "Kafka Streams", rate, taken, lost)


async def _send(
    context: Context, topic: str, rate: int, port: int, warm: Callable[[], Awaitable[None]]
) -> dict[str, dict[str, list[float]]]:
    """Load, then probes for the time of this profile; when each probe was sent, and when it was seen.

    Args:
        context: where.
        topic: where to.
        rate: events/s, probes included.
        port: where the prober asks; 0 where somebody else watches.
        warm: returns once the first seconds of load have been worked off: what starts up is not what is measured.
    """
    seconds = context.sizes.latency_s
    load = context.steady_load(topic, rate - RATE_PER_S, seconds + 2 * _START_TIMEOUT_S)
    probes = Program(
        context.name("probes"),
        [sys.executable, "-m", "benchmarks.probes", context.brokers, topic, str(seconds), str(port)],
        context.folder / "senders",
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(load.stop, hard=True)
        await load.start()
        await load.mark("started", _START_TIMEOUT_S)
        await warm()
        stack.push_async_callback(probes.stop, hard=True)
        await probes.start()
        await probes.mark("started", _START_TIMEOUT_S)
        load.marks_so_far("pace")
        result = await probes.mark("probes", seconds + _SLACK_S)
        behind = max((mark.content["behind"] for mark in load.marks_so_far("pace")), default=0)
    if behind > rate * _BEHIND_MAX_S:
        raise ProgramError(f"the load fell {behind} records behind its {rate}/s: a busy machine")
    keys: dict[str, dict[str, list[float]]] = result.content["keys"]
    return keys


def newest(seen: list[tuple[int, float]]) -> int:
    """The number of the last probe that was seen; 0 for none."""
    return seen[-1][0] if seen else 0


def seen_times(sent: int, seen: list[tuple[int, float]]) -> list[float]:
    """When each of `sent` probes became visible, from sightings (newest number, time): a later number implies all before.

    Shorter than `sent` where the last ones were never seen.
    """
    numbers = [number for number, _ in seen]
    places = [bisect_left(numbers, number) for number in range(1, sent + 1)]
    return [seen[place][1] for place in places if place < len(seen)]


def latencies(keys: dict[str, dict[str, list[float]]], warmup_s: float) -> tuple[list[float], int]:
    """Milliseconds from sent to seen of all probes after the warm-up, and how many were never seen.

    Args:
        keys: per key, `sent` and `seen` in seconds, in order; a missing end of `seen` was never seen.
        warmup_s: probes of this long from the first one do not count.
    """
    begin = min(content["sent"][0] for content in keys.values() if content["sent"]) + warmup_s
    taken, lost = [], 0
    for content in keys.values():
        lost += sum(at >= begin for at in content["sent"][len(content["seen"]) :])
        taken += [
            (seen - sent) * 1000 for sent, seen in zip(content["sent"], content["seen"], strict=False) if sent >= begin
        ]
    return taken, lost


def _figures(what: str, where: str, rate: int, taken: list[float], lost: int) -> dict[str, Any]:
    if not taken:
        raise ProgramError(f"{what}: none of {lost} probes was seen")
    return {"what": what, "where": where, "events_per_s": rate, **latency_summary(taken), "lost": lost}
