"""A table of many keys after its worker is gone: disk lost, or intact after a clean stop and after kill -9."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks import environments, topics
from benchmarks.context import Context
from benchmarks.engines import peer_environment
from benchmarks.processes import Program, ProgramError, free_port
from benchmarks.worker import Worker

_TIMEOUT_S = 240.0
_LOOK_S = 0.02
#: each restores its share of the partitions side by side with the other
_THREADS = 2


async def measure(context: Context) -> dict[str, Any]:
    """Seconds from the start of the process until it is ready, and of restoring alone."""
    count = context.sizes.keys
    topic = await context.topic("keys")
    await asyncio.to_thread(topics.fill_with_keys, context.brokers, topic, count)
    runs: dict[str, Any] = {}
    try:
        await _ours(context, topic, count, runs)
    except Exception as problem:
        context.fail(f"streamapp: {problem}")
    try:
        command = await asyncio.to_thread(environments.kafka_streams, context.environments)
    except environments.UnavailableError as problem:
        context.skip(f"Kafka Streams: {problem}")
    else:
        try:
            await _kafka_streams(context, command, topic, count, runs)
        except Exception as problem:
            context.fail(f"Kafka Streams: {problem}")
    for content in runs.values():
        restoring = f", restoring {content['restore_s']} s" if content.get("restore_s") is not None else ""
        context.say(f"{content['what']}: ready after {content['ready_s']} s{restoring}")
    await context.drop(topic)
    return {"keys": count, "partitions": topics.PARTITIONS, "runs": runs} if runs else {}


async def _ours(context: Context, topic: str, count: int, runs: dict[str, Any]) -> None:
    app_id = context.name("recovery")
    # one worker that is started again and again: same address, same disk
    port = free_port()

    def worker() -> Worker:
        return Worker(context, "keyed", topic, app_id=app_id, port=port)

    first = worker()
    await first.start()
    try:
        await first.first_and_last(count, _TIMEOUT_S)
    finally:
        await first.stop()
    for name, what, lost, hard in (
        ("lost", "streamapp, disk lost", True, False),
        ("clean", "streamapp, disk intact, clean stop", False, True),
        ("killed", "streamapp, disk intact, kill -9", False, False),
    ):
        if lost:
            await asyncio.to_thread(shutil.rmtree, first.state_dir)
        again = worker()
        await again.start()
        try:
            runs[name] = {"what": what, **await _observe(again, count, lost=lost)}
        finally:
            # how this one ends is what the next one finds
            await again.stop(hard=hard)


async def _observe(worker: Worker, count: int, *, lost: bool) -> dict[str, Any]:
    """Look at the worker until it is ready.

    Restoring takes from the assignment, when the worker says that its partitions are to be restored, until none of them is:
    opening the empty stores is part of it. Looks are 20 ms apart.
    """
    end = time.perf_counter() + _TIMEOUT_S
    begin = finish = None
    while True:
        asked = time.perf_counter()
        status = await worker.try_read("/v1/status")
        at = time.perf_counter()
        if status is not None:
            if status["worker"]["restoring"]:
                begin, finish = begin or asked, None
            elif begin is not None:
                finish = finish or at
            if await worker.is_ready():
                break
        if at > end:
            raise ProgramError(f"not ready within {_TIMEOUT_S:.0f} s; {worker.program.last_words()}")
        await asyncio.sleep(_LOOK_S)
    finish = finish or time.perf_counter()
    ready_s = time.perf_counter() - worker.started_at
    restored = await worker.metric("streamapp_restore_records_total") or 0.0
    for number in (0, count // 2, count - 1):
        await worker.read(f"/v1/tables/values/keys/k{number:08d}")
    if lost and restored < count:
        raise ProgramError(f"expected {count} keys or more to be restored, got {restored:.0f}")
    return {
        "ready_s": round(ready_s, 2),
        "restore_s": round(finish - begin, 2) if lost and begin is not None else None,
        "restored": int(restored),
    }


async def _kafka_streams(context: Context, command: list[str], topic: str, count: int, runs: dict[str, Any]) -> None:
    environment = peer_environment(context, topic, count, _THREADS)
    # static membership, as a worker of this project has it: a restart need not wait for the session to end
    environment["BENCH_INSTANCE"] = environment["BENCH_GROUP"]
    state = Path(environment["BENCH_STATE"])

    def program(step: str) -> Program:
        name = f"{environment['BENCH_GROUP']}-{step}"
        return Program(name, [*command, "bench.Recovery"], context.folder / "peers", environment)

    first = program("load")
    await first.start()
    try:
        await first.mark("done", _TIMEOUT_S)
        # a commit interval, so that all of it is in the changelog
        await asyncio.sleep(2.0)
    finally:
        await first.stop()
    for name, what, lost, hard in (
        ("lost", "Kafka Streams, disk lost", True, False),
        ("clean", "Kafka Streams, disk intact, clean stop", False, True),
        ("killed", "Kafka Streams, disk intact, kill -9", False, True),
    ):
        if lost:
            await asyncio.to_thread(shutil.rmtree, state)
        again = program(name)
        begin = time.perf_counter()
        await again.start()
        try:
            ready = await again.mark("ready", _TIMEOUT_S)
            if lost and ready.content["restored"] < count:
                raise ProgramError(f"Kafka Streams restored {ready.content['restored']} of {count} keys")
            runs[f"kafka_streams_{name}"] = {
                "what": what,
                "ready_s": round(ready.seen - begin, 2),
                "restore_s": round(ready.content["restore_s"], 2) if lost else None,
                "restored": ready.content["restored"],
            }
        finally:
            await again.stop(hard=hard)
