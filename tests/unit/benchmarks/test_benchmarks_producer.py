"""The producer of the measurements: all of it arrives in order, or somebody hears of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import producer as module
from benchmarks.producer import BulkProducer, DeliveryError
from benchmarks.topics import fill
from streamapp.kafka.partitioner import partition_for

_TIMEOUT_S = 60.0
#: the client's broker of its own for tests gives every topic so many
_PARTITIONS = 4


@pytest.fixture
def brokers() -> Iterator[str]:
    owner = Producer({"bootstrap.servers": "unused:1", "test.mock.num.brokers": 1, "log_level": 3})
    broker = next(iter(owner.list_topics(timeout=_TIMEOUT_S).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    del owner


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What producers are made with."""
    seen: list[dict[str, Any]] = []

    def make(given: dict[str, Any]) -> Producer:
        seen.append(given)
        return Producer(given)

    monkeypatch.setattr(module, "Producer", make)
    return seen


def read(brokers: str, topic: str, count: int) -> list[tuple[int, bytes, bytes]]:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "log_level": 3})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)])
        found = []
        while len(found) < count:
            messages = consumer.consume(count - len(found), _TIMEOUT_S)
            assert messages, f"{len(found)} of {count}"
            found += [(one.partition(), one.key(), one.value()) for one in messages]
        return found
    finally:
        consumer.close()


def test_fill_delivers_every_record_in_order_where_its_key_belongs(
    brokers: str, settings: list[dict[str, Any]]
) -> None:
    count = 25_000
    fill(brokers, "filled", ((f"k{n % 7}".encode(), str(n).encode(), n) for n in range(count)))
    assert settings[0]["enable.idempotence"] is True
    found = read(brokers, "filled", count)
    by_partition: dict[int, list[int]] = {}
    for partition, key, value in found:
        assert partition == partition_for(key, _PARTITIONS)
        by_partition.setdefault(partition, []).append(int(value))
    assert sorted(number for numbers in by_partition.values() for number in numbers) == list(range(count))
    assert all(numbers == sorted(numbers) for numbers in by_partition.values())


def test_delivered_counts_what_the_broker_has_taken(brokers: str) -> None:
    producer = BulkProducer(brokers, "counted", linger_ms=60_000)
    for number in range(100):
        producer.send(b"k", b"%d" % number, 1)
    assert (producer.sent, producer.delivered) == (100, 0)
    producer.flush()
    assert (producer.sent, producer.delivered) == (100, 100)


def test_records_that_expire_are_an_error_though_none_waits_any_more() -> None:
    producer = BulkProducer("127.0.0.1:1", "lost", timeout_s=0.2)
    for number in range(10):
        producer.send(b"k", b"%d" % number, 1)
    with pytest.raises(
        DeliveryError, match=r"lost: expected 10 records to be delivered, got 0, 10 failed \(.*timed out"
    ):
        producer.flush(_TIMEOUT_S)
    with pytest.raises(DeliveryError):
        producer.poll()


def test_flush_that_ends_before_everything_is_delivered_is_an_error() -> None:
    producer = BulkProducer("127.0.0.1:1", "slow")
    for number in range(10):
        producer.send(b"k", b"%d" % number, 1)
    with pytest.raises(DeliveryError, match=r"expected 10 .* got 0, 0 failed \(10 still wait after 0\.05 s\)"):
        producer.flush(0.05)


def test_queue_that_stays_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, _: dict[str, Any]) -> None:
            pass

        def produce(self, *_: object, **__: object) -> None:
            raise BufferError

        def poll(self, _: float) -> int:
            return 0

        def __len__(self) -> int:
            return 0

    monkeypatch.setattr(module, "Producer", Full)
    with pytest.raises(DeliveryError, match=r"queue was full for 0\.01 s"):
        BulkProducer("127.0.0.1:1", "full", timeout_s=0.01).send(b"k", b"v", 1)
