"""A worker that is killed, and how long its keys are without an answer while another one keeps copies of them."""

import asyncio
import time
from typing import Any

from benchmarks import topics
from benchmarks.context import Context
from benchmarks.processes import ProgramError
from benchmarks.worker import LOOK_S, Worker
from streamapp.kafka.partitioner import partition_for

#: how long a silent member counts as alive; the broker's own lower bound is the same
SESSION_TIMEOUT_MS = 6_000
_TIMEOUT_S = 240.0
_LOOK_S = 0.02
#: several commit intervals, so that the copies have what the owners have
_SETTLE_S = 5.0


async def measure(context: Context) -> dict[str, Any]:
    """Seconds from the kill until a key of each lost partition is answered: by a copy, and by a new owner."""
    count = context.sizes.keys
    topic = await context.topic("taken")
    await asyncio.to_thread(topics.fill_with_keys, context.brokers, topic, count)
    app_id = context.name("takeover")
    environment = {
        "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        "STREAMAPP_STANDBY_REPLICAS": "1",
    }
    left, lost = (
        Worker(context, "keyed", topic, app_id=app_id, state=f"{app_id}-{name}", environment=environment)
        for name in ("left", "lost")
    )
    await left.start()
    await lost.start()
    try:
        await _share(left, lost, topic, count)
        await asyncio.sleep(_SETTLE_S)
        partitions = await _assigned(lost, topic)
        restored = await left.metric("streamapp_restore_records_total") or 0.0
        begin = time.perf_counter()
        await lost.stop(hard=True)
        copies, owners = await _until_taken(left, topic, _key_of_each(partitions), begin)
        after = (await left.metric("streamapp_restore_records_total") or 0.0) - restored
    finally:
        await left.stop(hard=True)
        await lost.stop(hard=True)
    await context.drop(topic)
    figures = {
        "keys": count,
        "partitions_lost": len(partitions),
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "copy_s": round(max(copies.values()), 2),
        "owner_s": round(max(owners.values()), 2),
        "beyond_session_s": round(max(owners.values()) - SESSION_TIMEOUT_MS / 1000, 2),
        "restored": int(after),
    }
    context.say(
        f"{count:,} keys: a copy answers after {figures['copy_s']} s, a new owner after {figures['owner_s']} s "
        f"(session time-out {SESSION_TIMEOUT_MS / 1000:.0f} s)"
    )
    return figures


async def _share(left: Worker, lost: Worker, topic: str, count: int) -> None:
    """Wait until each of the two has partitions and everything is applied."""
    end = time.perf_counter() + _TIMEOUT_S
    while time.perf_counter() < end:
        if await left.is_ready() and await lost.is_ready():
            shared = await _assigned(left, topic) and await _assigned(lost, topic)
            # what moved between the two is counted by the one that applied it
            if shared and await left.applied() + await lost.applied() >= count:
                return
        await asyncio.sleep(LOOK_S)
    raise ProgramError(
        f"expected two workers to share {count} records within {_TIMEOUT_S:.0f} s, got "
        f"{await left.tally() + await lost.tally()} of both; {left.program.last_words()}"
    )


async def _until_taken(
    worker: Worker, topic: str, keys: dict[int, str], begin: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Per partition, seconds until the first answer, and until the first of an owner."""
    answered: dict[int, float] = {}
    owned: dict[int, float] = {}
    while len(owned) < len(keys):
        if time.perf_counter() - begin > _TIMEOUT_S:
            raise ProgramError(f"{keys} were not answered within {_TIMEOUT_S:.0f} s; {worker.program.last_words()}")
        for partition, key in keys.items():
            reading = await worker.try_read(f"/v1/tables/values/keys/{key}")
            if reading is None:
                continue
            answered.setdefault(partition, time.perf_counter() - begin)
            if not reading["freshness"].get("stale"):
                owned.setdefault(partition, time.perf_counter() - begin)
        await asyncio.sleep(_LOOK_S)
    return answered, owned


async def _assigned(worker: Worker, topic: str) -> list[int]:
    status = await worker.try_read("/v1/status")
    return list(status["worker"]["assigned"].get(topic, [])) if status else []


def _key_of_each(partitions: list[int]) -> dict[int, str]:
    """A key of each of these partitions."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < len(partitions):
        key = f"k{number:08d}"
        partition = partition_for(key.encode(), topics.PARTITIONS)
        if partition in partitions:
            found.setdefault(partition, key)
        number += 1
    return found
