"""The producer of the measurements: every record once, in order, or an error that says how many are missing.

A record that overtakes another one may come late for its window, and one that never arrives is missed by whoever counts:
both would look like a fault of what is measured.
"""

import time

from confluent_kafka import KafkaError, KafkaException, Message, Producer

#: how long a record may be on its way, repeats included
DELIVERY_TIMEOUT_S = 120.0
_FULL_QUEUE_POLL_S = 0.1
_METADATA_TIMEOUT_S = 30.0
#: the client's own clock for a record starts a little later than that of a flush
_FLUSH_SLACK_S = 5.0


class DeliveryError(RuntimeError):
    """The broker did not take everything that it was sent."""


class _Failures:
    """What was not delivered. Apart from the producer, which would else hold itself and outlive its last user."""

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""

    def report(self, problem: KafkaError | None, _: Message) -> None:
        """Called by the client, for failures only."""
        if problem is not None:
            self.count += 1
            self.reason = self.reason or str(problem)


class BulkProducer:
    """Sends to one topic, placed by key as Kafka's Java clients do; each record is appended once, in the order of `send`.

    Success is not reported record by record, which would cost more than sending: what is neither waiting nor failed has
    been acknowledged.

    Args:
        brokers: `host:port`.
        topic: where to.
        linger_ms: how long a record may wait for company.
        compression: of a batch.
        timeout_s: how long a record may be on its way.

    Raises:
        KafkaException: the broker does not answer.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        linger_ms: float = 20,
        compression: str = "lz4",
        timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self.topic = topic
        #: records handed over so far
        self.sent = 0
        self._failures = _Failures()
        self._timeout_s = timeout_s
        self._producer = Producer(
            {
                "bootstrap.servers": brokers,
                "partitioner": "murmur2_random",
                # a repeat after a time-out would else be appended twice, or behind what was sent after it
                "enable.idempotence": True,
                "linger.ms": linger_ms,
                "batch.size": 500_000,
                "compression.type": compression,
                "queue.buffering.max.messages": 500_000,
                "message.timeout.ms": round(timeout_s * 1000),
                "delivery.report.only.error": True,
                "on_delivery": self._failures.report,
                "log_level": 3,
            }
        )

    def connect(self, timeout_s: float = _METADATA_TIMEOUT_S) -> None:
        """Learn where the partitions are, so that the first records need not wait for that.

        Raises:
            KafkaException: the broker did not answer in time.
        """
        self._producer.list_topics(self.topic, timeout=timeout_s)

    @property
    def delivered(self) -> int:
        """Records that the broker has acknowledged, as of the last `poll`; at least so many.

        The client counts its own reports among what waits, those of a connection that failed for one.
        """
        return max(0, self.sent - self._failures.count - len(self._producer))

    def send(self, key: bytes, value: bytes, at: int) -> None:
        """Hand over one record with its time in ms, waiting while the queue is full.

        Raises:
            DeliveryError: the queue stayed full, or the producer has given up.
        """
        end = 0.0
        while True:
            try:
                self._producer.produce(self.topic, value, key, timestamp=at)
            except BufferError:
                now = time.perf_counter()
                end = end or now + self._timeout_s
                if now > end:
                    raise self._error(f"its queue was full for {self._timeout_s:g} s") from None
                self._producer.poll(_FULL_QUEUE_POLL_S)
            except KafkaException as problem:
                raise self._error(str(problem)) from problem
            else:
                self.sent += 1
                return

    def poll(self) -> None:
        """Take in delivery reports that have come.

        Raises:
            DeliveryError: a record was not delivered.
        """
        self._producer.poll(0)
        if self._failures.count:
            raise self._error()

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything has been acknowledged, for `timeout_s` or as long as a record may be on its way.

        Raises:
            DeliveryError: a record was not delivered, or not in time.
        """
        patience_s = self._timeout_s + _FLUSH_SLACK_S if timeout_s is None else timeout_s
        waiting = self._producer.flush(patience_s)
        if self._failures.count or waiting:
            raise self._error(f"{waiting} still wait after {patience_s:g} s" if waiting else "")

    def _error(self, more: str = "") -> DeliveryError:
        why = "; ".join(part for part in (self._failures.reason, more) if part)
        return DeliveryError(
            f"{self.topic}: expected {self.sent} records to be delivered, got {self.delivered}, {self._failures.count} "
            f"failed ({why}): nothing measured with them counts; look at the broker's log and the machine's load"
        )
