"""The broker's first half minute, in which its compiler takes a core of those that are measured."""

import asyncio
import threading

from confluent_kafka import Consumer, TopicPartition

from benchmarks import topics
from benchmarks.context import Context

_PER_S = 10_000
_START_TIMEOUT_S = 60.0


async def warm(context: Context) -> None:
    """Produce and fetch in small requests for as long as the profile says; nothing of it is measured.

    What is measured is then a broker as it runs for days, for every engine alike.
    """
    seconds = context.sizes.broker_warmup_s
    if not seconds:
        return
    topic = await context.topic("warm-up")
    load = context.steady_load(topic, _PER_S, seconds + _START_TIMEOUT_S, linger_ms=0)
    over = threading.Event()
    await load.start()
    try:
        await load.mark("started", _START_TIMEOUT_S)
        reading = asyncio.create_task(asyncio.to_thread(_fetch, context.brokers, topic, over))
        before = context.broker_cpu_seconds()
        await asyncio.sleep(seconds)
        context.say(f"the broker took {context.broker_cpu_seconds() - before:.0f} s of processor time to get warm")
        over.set()
        await reading
    finally:
        over.set()
        await load.stop(hard=True)
    await context.drop(topic)


def _fetch(brokers: str, topic: str, over: threading.Event) -> None:
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": topic, "enable.auto.commit": False, "fetch.wait.max.ms": 20}
    )
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in range(topics.PARTITIONS)])
        while not over.is_set():
            consumer.consume(10_000, 0.01)
    finally:
        consumer.close()
