"""What a table is: its sources, key, time, windows and aggregate. Declared once, used by every layer above."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from streamapp.errors import ConfigurationError, RecordError
from streamapp.records.codec import Codec
from streamapp.windows.aggregate import Aggregate
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session

Window = Tumbling | Hopping | Session
#: event times stay below; beyond it JSON numbers are no longer exact
MAX_TIME_MS = 1 << 53


@dataclass(frozen=True, slots=True)
class Source:
    """One topic that feeds a table.

    Attributes:
        topic: its name.
        codec: decodes its values.
        time_field: the attribute that holds the event time; None: the record's Kafka timestamp.
    """

    topic: str
    codec: Codec
    time_field: str | None = "event_time"


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """A table as it was declared.

    Attributes:
        name: unique in the app; lower-case letters, digits, `_` and `-`.
        sources: one topic, or several that are co-partitioned (same key, same number of partitions).
        window: None for a table with one value per key.
        aggregate: what is kept per key and window.
        rekey: the new key of a record, where the table is not keyed as its source; it then goes through a topic.
        start: where a new table begins to read its sources.
        publish_final: whether closed windows go to the table's final topic.
        description: one line for people and models.
    """

    name: str
    sources: Sequence[Source]
    aggregate: Aggregate
    window: Window | None = None
    rekey: Callable[[Any], str] | None = None
    rekey_name: str = ""
    start: Literal["earliest", "latest"] = "earliest"
    publish_final: bool = True
    description: str = ""
    key_form: str = "the record's key"
    _fingerprint: list[str] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name or not all(char.isascii() and (char.isalnum() or char in "_-") for char in self.name):
            raise ConfigurationError(f"table name {self.name!r}: expected ASCII letters, digits, `_` and `-`")
        if not self.sources:
            raise ConfigurationError(f"table {self.name}: expected at least one source topic")
        if isinstance(self.window, Session) and self.aggregate.ordered:
            raise ConfigurationError(
                f"table {self.name}: session windows merge, so their aggregate must; give Fold a merge= function"
            )
        if self.rekey is not None and len(self.sources) != 1:
            raise ConfigurationError(f"table {self.name}: key= works with one source, got {len(self.sources)}")

    def new_key(self, record: Any) -> str:
        """The key that a re-keyed table gives a record.

        Raises:
            TypeError: it is no text, or empty.
            Exception: whatever the user's function raises.
        """
        assert self.rekey is not None
        key = self.rekey(record)
        if not isinstance(key, str) or not key:
            raise TypeError(f"expected a key of text, got {key!r}")
        return key

    @property
    def kind(self) -> Literal["tumbling", "hopping", "session", "latest"]:
        """The word for the kind of window."""
        if isinstance(self.window, Tumbling):
            return "tumbling"
        if isinstance(self.window, Hopping):
            return "hopping"
        return "session" if isinstance(self.window, Session) else "latest"

    @property
    def windows_each(self) -> int:
        """In how many windows a record counts, at most; 1 where there are none."""
        window = self.window
        return -(-window.size_ms // window.step_ms) if isinstance(window, Hopping) else 1

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides what the stored values mean: another one makes them unusable."""
        if not self._fingerprint:
            window = self.window
            # grace and retention only decide how long values may change and are kept: they may be changed without a rebuild
            shape = "none" if window is None else window.fingerprint()
            text = "|".join(
                [
                    shape,
                    self.aggregate.fingerprint(),
                    ",".join(f"{source.topic}@{source.time_field}" for source in self.sources),
                    self.rekey_name,
                ]
            )
            self._fingerprint.append(hashlib.sha256(text.encode()).hexdigest()[:32])
        return self._fingerprint[0]


def event_time_ms(value: object) -> int:
    """An event time as milliseconds since the epoch: integers are ms, floats seconds, text ISO 8601, datetimes aware.

    Raises:
        RecordError: reason `bad_event_time`, where it is none of these, negative, or beyond 2**53.
    """
    if type(value) is int:
        time_ms = value
    elif isinstance(value, float):
        if not abs(value) < MAX_TIME_MS / 1000:
            raise RecordError("bad_event_time", f"expected seconds since the epoch, got {value!r}")
        time_ms = round(value * 1000)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise RecordError("bad_event_time", f"expected ISO 8601 text, got {value[:64]!r}") from None
        time_ms = _datetime_ms(moment)
    elif isinstance(value, datetime):
        time_ms = _datetime_ms(value)
    else:
        raise RecordError("bad_event_time", f"expected ms, seconds or ISO 8601 text, got {type(value).__name__}")
    if not 0 <= time_ms < MAX_TIME_MS:
        raise RecordError("bad_event_time", f"expected 0 <= ms < 2**53, got {time_ms}")
    return time_ms


def _datetime_ms(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)  # text without an offset is UTC
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
