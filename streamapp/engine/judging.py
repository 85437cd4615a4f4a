"""Whether a record can be used: its value, its key, its event time. What cannot says why, for its dead letter."""

from typing import Any

from streamapp.engine.deadletters import KafkaRecord
from streamapp.errors import RecordError
from streamapp.state.definition import event_time_ms


class Judge:
    """Judges one record at a time; the lanes' quick ways only stand for what this says.

    Args:
        max_future_ms: how far event time may run ahead of the record's arrival.
        max_record_bytes: a larger value is not decoded.
    """

    def __init__(self, *, max_future_ms: int, max_record_bytes: int) -> None:
        self.max_future_ms = max_future_ms
        self.max_record_bytes = max_record_bytes

    def value(self, raw: KafkaRecord) -> bytes:
        """The value to decode; RecordError where there is none, or too large a one."""
        if raw.value is None:
            raise RecordError("null_value", "expected a JSON value, got null (a tombstone)")
        if len(raw.value) > self.max_record_bytes:
            size = f"expected at most {self.max_record_bytes} bytes, got {len(raw.value)}"
            raise RecordError("oversized", size)
        return raw.value

    def place(self, raw: KafkaRecord, record: Any, time_field: str | None, needs_key: bool) -> tuple[str, int]:
        """Key and event time of a decoded record; RecordError where one of them cannot be used.

        Args:
            raw: as it was fetched.
            record: decoded, or the RecordError that decoding came to.
            time_field: where the event time is; None: the record's timestamp.
            needs_key: else the key is not looked at, and empty.
        """
        if isinstance(record, RecordError):
            raise record
        key = _key_of(raw) if needs_key else ""
        if raw.timestamp < 0:  # brokers keep records of producers that send none
            raise RecordError(
                "missing_timestamp",
                "expected a record with a timestamp, which tells its arrival; set message.timestamp.type=LogAppendTime on "
                "the topic, or have the producer send one",
            )
        time = raw.timestamp if time_field is None else event_time_ms(_time_value(record, time_field))
        if time > raw.timestamp + self.max_future_ms:
            raise RecordError(
                "future_event_time",
                f"expected an event time of at most {self.max_future_ms} ms after the arrival at {raw.timestamp}, "
                f"got {time}: it would close every window before it",
            )
        return key, time


def _time_value(record: Any, name: str) -> object:
    if isinstance(record, dict):
        return record.get(name)
    try:
        return getattr(record, name)
    except AttributeError:
        raise RecordError("bad_event_time", f"expected the field {name!r}, the record has none") from None


def _key_of(raw: KafkaRecord) -> str:
    if raw.key is None:
        raise RecordError("missing_key", "expected a key, the record has none")
    try:
        return raw.key.decode()
    except UnicodeDecodeError:
        raise RecordError("undecodable_key", f"expected UTF-8, got {raw.key[:64]!r}") from None
