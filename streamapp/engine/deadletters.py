"""Records that could not be processed, kept with all that is needed to look into them.

A dead letter is made where the record is met and becomes durable before the record's offset is committed. Its id is the
record's place (`topic-partition-offset`), so that a repeat after a crash can be told from a second failure.
"""

import base64
from collections import OrderedDict
from typing import Protocol

from streamapp.clock import Clock
from streamapp.errors import RecordError
from streamapp.kafka.producer import OutMessage
from streamapp.metrics import Metrics
from streamapp.records.models import DeadLetter

DEAD_LETTERS_TOPIC = "dead-letters"
_REMEMBERED_MAX = 10_000


class KafkaRecord(Protocol):
    """What a consumer hands over: the fields of a Kafka record that the engine reads."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]


class DeadLetters:
    """Builds dead letters and counts them; one per record, however many tables and agents trip over it."""

    def __init__(self, metrics: Metrics, clock: Clock, *, value_max_bytes: int) -> None:
        self._metrics = metrics
        self._clock = clock
        self._value_max_bytes = value_max_bytes
        self._seen: OrderedDict[str, None] = OrderedDict()

    def forget(self) -> None:
        """Letters that were made may never have been sent: make them again where their records come again."""
        self._seen.clear()

    def make(self, topic: str, partition: int, record: KafkaRecord, problem: RecordError) -> OutMessage | None:
        """The message to send; None where this record already has its dead letter.

        A value beyond the size limit is cut there: the record itself is still in its source topic.
        """
        identity = f"{topic}-{partition}-{record.offset}"
        if identity in self._seen:
            return None
        self._seen[identity] = None
        if len(self._seen) > _REMEMBERED_MAX:
            self._seen.popitem(last=False)
        self._metrics.dead_letters.labels(topic, problem.reason).inc()
        now = self._clock.now_ms()
        letter = DeadLetter(
            id=identity,
            value_base64=base64.b64encode((record.value or b"")[: self._value_max_bytes]).decode(),
            reason=problem.reason,
            error=str(problem)[:1000],
            topic=topic,
            partition=partition,
            offset=record.offset,
            first_time=now,
            last_time=now,
        )
        return OutMessage(DEAD_LETTERS_TOPIC, record.key, letter.model_dump_json().encode())
