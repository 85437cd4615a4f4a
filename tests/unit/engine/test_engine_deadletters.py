"""One dead letter per record, with all that is needed to look into it."""

import base64

from streamapp.clock import ManualClock
from streamapp.engine import deadletters
from streamapp.engine.deadletters import DeadLetters
from streamapp.errors import RecordError
from streamapp.metrics import Metrics
from streamapp.records.models import DeadLetter
from tests.fakes.kafka_records import Raw

PROBLEM = RecordError("wrong_schema", "expected a number")


def test_a_record_gets_one_dead_letter_however_many_trip_over_it(clock: ManualClock, metrics: Metrics):
    letters = DeadLetters(metrics, clock, value_max_bytes=100)
    assert letters.make("trades", 1, Raw(5), PROBLEM) is not None
    assert letters.make("trades", 1, Raw(5), RecordError("agent_failed", "later")) is None
    for topic, partition, offset in (("trades", 1, 6), ("trades", 2, 5), ("quotes", 1, 5)):
        assert letters.make(topic, partition, Raw(offset), PROBLEM) is not None
    assert metrics.dead_letters.labels("trades", "wrong_schema")._value.get() == 3


def test_a_dead_letter_tells_where_when_and_why(clock: ManualClock, metrics: Metrics):
    letters = DeadLetters(metrics, clock, value_max_bytes=4)
    message = letters.make("trades", 1, Raw(5, b"\xff", b"\x00\xff\x01\x02\x03"), PROBLEM)
    assert message is not None
    assert (message.topic, message.key) == ("dead-letters", b"\xff")
    letter = DeadLetter.model_validate_json(message.value or b"")
    assert (letter.id, letter.topic, letter.partition, letter.offset) == ("trades-1-5", "trades", 1, 5)
    assert (letter.reason, letter.error) == ("wrong_schema", "expected a number")
    assert base64.b64decode(letter.value_base64) == b"\x00\xff\x01\x02"
    assert letter.first_time == letter.last_time == clock.now_ms()


def test_the_memory_of_dead_letters_is_bounded(clock: ManualClock, metrics: Metrics, monkeypatch):
    monkeypatch.setattr(deadletters, "_REMEMBERED_MAX", 3)
    letters = DeadLetters(metrics, clock, value_max_bytes=10)
    for offset in range(5):
        letters.make("trades", 0, Raw(offset), PROBLEM)
    assert letters.make("trades", 0, Raw(4), PROBLEM) is None
    assert letters.make("trades", 0, Raw(0), PROBLEM) is not None


def test_a_letter_that_may_not_have_been_sent_is_made_again_once_it_is_forgotten(clock: ManualClock, metrics: Metrics):
    letters = DeadLetters(metrics, clock, value_max_bytes=10)
    first = letters.make("trades", 0, Raw(1), PROBLEM)
    assert letters.make("trades", 0, Raw(1), PROBLEM) is None
    letters.forget()
    assert letters.make("trades", 0, Raw(1), PROBLEM) == first
