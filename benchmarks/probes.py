"""Probes: records whose way from the producer to a reader is timed, as a program of its own.

`python -m benchmarks.probes BROKERS TOPIC SECONDS PORT_OR_0`. A probe is a trade of a key of its own, one key per
partition, whose price is its number. Probes go out at fixed instants, whatever has become of those before. For each key
one connection asks for the newest window, again a millisecond after each answer, for as long as a probe is under way; a
probe counts as visible when an answer's close has its number or a later one. With port 0 it only sends.
"""

import asyncio
import sys
import time

import orjson
import uvloop

from benchmarks.connection import Connection
from benchmarks.peers.marks import mark
from benchmarks.producer import BulkProducer
from benchmarks.topics import PARTITIONS, trade
from streamapp.kafka.partitioner import partition_for

#: of all keys together
RATE_PER_S = 100
_PAUSE_S = 0.001
#: how long after the last probe answers are waited for
_TAIL_S = 10.0
_FLUSH_TIMEOUT_S = 10.0


def probe_keys() -> list[str]:
    """One key per partition, in the order of the partitions."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < PARTITIONS:
        name = f"PROBE{number:03d}"
        found.setdefault(partition_for(name.encode(), PARTITIONS), name)
        number += 1
    return [found[partition] for partition in range(PARTITIONS)]


class Key:
    """The probes of one key: when each was sent, and when it was seen. Numbers begin with 1."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[float] = []
        self.seen: list[float] = []
        self.under_way = asyncio.Event()

    def saw(self, number: int, at: float) -> None:
        """Everything up to `number` is visible."""
        while len(self.seen) < min(number, len(self.sent)):
            self.seen.append(at)
        if len(self.seen) == len(self.sent):
            self.under_way.clear()


async def watch(key: Key, port: int) -> None:
    """Ask for a key for as long as one of its probes is under way."""
    connection = await Connection.open(port)
    path = f"/v1/tables/candles/keys/{key.name}"
    while True:
        await key.under_way.wait()
        status, body = await connection.get(path)
        if status == 200:
            key.saw(int(orjson.loads(body)["value"]["close"]), time.time())
        await asyncio.sleep(_PAUSE_S)


async def send(keys: list[Key], producer: BulkProducer, seconds: float) -> None:
    """Probes at fixed instants, one key after another."""
    begin = time.perf_counter()
    for number in range(int(RATE_PER_S * seconds)):
        await asyncio.sleep(max(0.0, begin + number / RATE_PER_S - time.perf_counter()))
        key = keys[number % len(keys)]
        now = time.time()
        value = trade(key.name, float(len(key.sent) + 1), 1.0, int(now * 1000), number)
        key.sent.append(now)
        key.under_way.set()
        producer.send(key.name.encode(), value, int(now * 1000))
        producer.poll()


async def main(brokers: str, topic: str, seconds: float, port: int) -> None:
    """Send, watch, and say when each probe was sent and seen."""
    producer = BulkProducer(brokers, topic, linger_ms=0, compression="none")
    producer.connect()
    keys = [Key(name) for name in probe_keys()]
    watching = [asyncio.create_task(watch(key, port)) for key in keys] if port else []
    mark("started")
    await send(keys, producer, seconds)
    await asyncio.to_thread(producer.flush, _FLUSH_TIMEOUT_S)
    end = time.perf_counter() + _TAIL_S
    while watching and time.perf_counter() < end and any(key.under_way.is_set() for key in keys):
        failed = [task for task in watching if task.done()]
        if failed:
            await failed[0]
        await asyncio.sleep(0.02)
    for task in watching:
        task.cancel()
    mark("probes", keys={key.name: {"sent": key.sent, "seen": key.seen} for key in keys})


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
