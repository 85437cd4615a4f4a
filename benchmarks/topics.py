"""Topics of the measurements, each made anew and filled as fast as the broker takes it."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.producer import BulkProducer

PARTITIONS = 4
SYMBOLS = 200
#: event time between two trades: 1 M of them span 1,000 s
STEP_MS = 1
_CHUNK = 100_000
_POLL_EVERY = 10_000
_REQUEST_TIMEOUT_S = 30


def create(brokers: str, topic: str, partitions: int = PARTITIONS) -> None:
    """An empty topic whose records carry event time as their own and are kept whatever that is."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 3})
    config = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}
    made = admin.create_topics([NewTopic(topic, partitions, 1, config=config)], operation_timeout=_REQUEST_TIMEOUT_S)
    made[topic].result(_REQUEST_TIMEOUT_S)


def delete(brokers: str, topics: Iterable[str]) -> None:
    """Remove topics, and free their disk."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 3})
    for future in admin.delete_topics(list(topics), operation_timeout=_REQUEST_TIMEOUT_S).values():
        future.result(_REQUEST_TIMEOUT_S)


def symbol(index: int) -> str:
    """The name of an instrument, which is also the key of its records."""
    return f"S{index:04d}-USD"


def trades(
    count: int, *, symbols: int = SYMBOLS, seed: int = 1, end_ms: int | None = None
) -> Iterator[tuple[int, int, bytes]]:
    """Seeded trades: instrument, event time in ms, JSON of about 110 bytes.

    A few instruments trade often and most of them seldom (exponential). Event time grows by `STEP_MS`, up to `end_ms`.
    """
    chance = np.random.default_rng(seed)
    moment = (end_ms if end_ms is not None else time.time_ns() // 1_000_000) - count * STEP_MS
    bases = 100 + 1000 * chance.random(symbols)
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        chosen = np.minimum(chance.exponential(symbols / 4, size).astype(int), symbols - 1)
        prices = np.round(bases[chosen] * (1 + chance.normal(0, 1e-3, size)), 4)
        sizes = np.round(chance.random(size), 6)
        for number, index, price, amount in zip(
            range(begin, begin + size), chosen.tolist(), prices.tolist(), sizes.tolist(), strict=True
        ):
            at = moment + number * STEP_MS
            yield index, at, trade(symbol(index), price, amount, at, number)


def trade(name: str, price: float, size: float, event_time: int, number: int) -> bytes:
    """One trade as JSON."""
    side = "buy" if number & 1 else "sell"
    return (
        f'{{"symbol":"{name}","price":{price!r},"size":{size!r},"event_time":{event_time},'
        f'"trade_id":"{number}","side":"{side}"}}'
    ).encode()


def fill_with_trades(brokers: str, topic: str, count: int) -> dict[str, int]:
    """Produce trades; how many of them each instrument got."""
    names = [symbol(index).encode() for index in range(SYMBOLS)]
    counted: Counter[int] = Counter()

    def records() -> Iterator[tuple[bytes, bytes, int]]:
        for index, at, value in trades(count):
            counted[index] += 1
            yield names[index], value, at

    fill(brokers, topic, records())
    return {symbol(index): number for index, number in counted.items()}


def fill_with_keys(brokers: str, topic: str, count: int) -> None:
    """Produce one record of 64 bytes for each of `count` keys `k00000000`, `k00000001`, ..."""
    at = time.time_ns() // 1_000_000
    fill(brokers, topic, ((f"k{n:08d}".encode(), keyed_value(n, at), at) for n in range(count)))


def keyed_value(number: int, event_time: int) -> bytes:
    """A value of exactly 64 bytes."""
    text = hashlib.blake2b(number.to_bytes(8), digest_size=15).hexdigest()[:29]
    return f'{{"v":"{text}","event_time":{event_time}}}'.encode()


def fill_with_windows(brokers: str, topic: str, count: int) -> None:
    """Produce one trade for each of `count` instruments, all within the present minute of event time."""
    minute = time.time_ns() // 60_000_000_000 * 60_000

    def records() -> Iterator[tuple[bytes, bytes, int]]:
        for number in range(count):
            name = f"I{number:07d}-USD"
            at = minute + number * 50_000 // count
            yield name.encode(), trade(name, 100.5 + number % 977, 0.25, at, number), at

    fill(brokers, topic, records())


def fill(brokers: str, topic: str, records: Iterable[tuple[bytes, bytes, int]]) -> None:
    """Produce key, value and timestamp of each record, in order, partitioned as Kafka's Java clients do.

    Raises:
        DeliveryError: the broker did not take everything in time.
    """
    producer = BulkProducer(brokers, topic)
    for number, (key, value, at) in enumerate(records):
        producer.send(key, value, at)
        if number % _POLL_EVERY == 0:
            producer.poll()
    producer.flush()
