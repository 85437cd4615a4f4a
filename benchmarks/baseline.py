"""What the consumer library delivers when nothing is done with the records: it puts the other rates into proportion."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.topics import PARTITIONS

_TIMEOUT_S = 120.0


async def consume(brokers: str, topic: str, events: int) -> float:
    """Records/s of aiokafka alone, from the first list of records to the last."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", max_poll_records=20_000)
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        seen = first = 0
        begin = 0.0
        async with asyncio.timeout(_TIMEOUT_S):
            while seen < events:
                lists = await consumer.getmany(timeout_ms=1_000)
                seen += sum(map(len, lists.values()))
                if seen and not begin:
                    begin, first = time.perf_counter(), seen
        return (seen - first) / max(time.perf_counter() - begin, 1e-9)
    finally:
        await consumer.stop()
