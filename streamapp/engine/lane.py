"""The batch lane: whole lists of records of one source partition, decoded once, merged into every table on it.

One chunk at a time per partition, in order of offset, short enough that the event loop stays free for readers. What
cannot be decoded becomes a dead letter and the lane goes on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, cast

from streamapp.clock import Clock
from streamapp.engine.deadletters import DeadLetters, KafkaRecord
from streamapp.errors import RecordError
from streamapp.metrics import Metrics
from streamapp.records.codec import Codec
from streamapp.state.definition import event_time_ms

if TYPE_CHECKING:
    from streamapp.kafka.producer import OutMessage

#: records that are decoded at once; between two tables the event loop gets a turn, after a few milliseconds of work
CHUNK_MAX_RECORDS = 8_192

_YIELD_MIN_RECORDS = 512
_SEQUENCE_BOUND = 1 << 63  # beyond it a number can neither be a column nor be written down
_timestamp = attrgetter("timestamp")


@dataclass(slots=True)
class Decoded:
    """The readable records of a chunk; all sequences have the same length."""

    raw: Sequence[KafkaRecord]
    offsets: Sequence[int]
    keys: Sequence[str]
    records: Sequence[Any]
    times: Sequence[int]
    sequences: Sequence[int]
    end: int
    columns: dict[Any, Any] = field(default_factory=dict)


class Tap(Protocol):
    """What a lane feeds: a partition of a table, or the forwarding of a re-keyed table's source."""

    codec: Codec
    time_field: str | None
    needs_key: bool

    async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
        """Take a chunk; when this returns, readers see it. Answers which records, by index, could not be used."""
        ...

    def position(self) -> int | None:
        """The offset that this tap wants to read next; None: wherever the group is."""
        ...


class SourceLane:
    """One partition of one source topic on its way into the tables.

    Args:
        topic, partition: the source.
        taps: what is fed from it.
        dead_letters: makes the messages for what cannot be used; they wait in `rejected` for the next checkpoint.
        max_future_ms: how far event time may run ahead of the record's arrival.
        max_record_bytes: a larger value is rejected undecoded.
        queue_max_records: `full` from this many waiting records on.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        taps: Sequence[Tap],
        *,
        dead_letters: DeadLetters,
        metrics: Metrics,
        clock: Clock,
        max_future_ms: int,
        max_record_bytes: int,
        queue_max_records: int,
    ) -> None:
        self.topic, self.partition, self.taps = topic, partition, taps
        self.rejected: list[OutMessage] = []
        self.applied = -1  # last offset that every tap has taken
        self.durable = -1  # last offset that is safe to commit
        self.last_activity_ms = clock.monotonic_ms()
        self.ready = False  # everything restored, position set
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock
        self._max_future_ms = max_future_ms
        self._max_record_bytes = max_record_bytes
        self._queue_max_records = queue_max_records
        self._queue: deque[Sequence[KafkaRecord]] = deque()
        self._queued = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._groups = _group_taps(taps)
        self._on_room: Callable[[], None] | None = None
        self._queued_gauge = metrics.queued_records.labels(topic, str(partition))
        self._batch_size = metrics.batch_records.labels(topic)
        self._batch_time = metrics.batch_seconds.labels(topic)

    @property
    def full(self) -> bool:
        """Whether fetching has to stop until some of the queue is worked off."""
        return self._queued >= self._queue_max_records

    def start(self, on_room: Callable[[], None], on_failure: Callable[[BaseException], None]) -> None:
        """Begin to work; `on_room` is called when a full queue has room again, `on_failure` when the lane broke."""
        self._on_room = on_room

        def finished(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and task.exception() is not None:
                on_failure(task.exception() or RuntimeError("lane ended"))

        self._task = asyncio.create_task(self._run(), name=f"lane-{self.topic}-{self.partition}")
        self._task.add_done_callback(finished)

    async def stop(self) -> None:
        """Stop between two chunks and drop what waits: it was not acknowledged and will be fetched again."""
        self.ready = False
        self._queue.clear()
        self._queued = 0
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def offer(self, records: Sequence[KafkaRecord]) -> None:
        """Queue a fetched list. Never refuses: the consumer stops fetching when `full`."""
        self._queue.append(records)
        self._queued += len(records)
        self._arrived.set()

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._arrived.clear()
                self._queued_gauge.set(0)
                await self._arrived.wait()
                continue
            records = self._queue.popleft()
            for begin in range(0, len(records), CHUNK_MAX_RECORDS):
                chunk = records[begin : begin + CHUNK_MAX_RECORDS]
                with self._batch_time.time():
                    await self._process(chunk)
                self._batch_size.observe(len(chunk))
                was_full = self.full
                self._queued -= len(chunk)
                self._queued_gauge.set(self._queued)
                if was_full and not self.full and self._on_room is not None:
                    self._on_room()
                await asyncio.sleep(0)

    async def _process(self, chunk: Sequence[KafkaRecord]) -> None:
        usable, values = chunk, [record.value for record in chunk]
        try:
            fits = max(map(len, values)) <= self._max_record_bytes  # type: ignore[arg-type]
        except TypeError:  # a null value has no length
            fits = False
        if not fits:
            usable = [record for record in chunk if self._is_usable(record)]
            values = [record.value for record in usable]
        end = chunk[-1].offset
        for (codec, time_field, needs_key), taps in self._groups.items():
            decoded = self._judge(usable, codec.decode_all(cast("list[bytes]", values)), time_field, needs_key, end)
            for tap in taps:
                for index, problem in await tap.accept(decoded):
                    self._reject(decoded.raw[index], problem)
                if len(chunk) > _YIELD_MIN_RECORDS:
                    await asyncio.sleep(0)
        self.applied = end
        self.last_activity_ms = self._clock.monotonic_ms()

    def _is_usable(self, record: KafkaRecord) -> bool:
        """Whether there is a value to decode; a record without one, or with too large a one, is set aside."""
        if record.value is None:
            self._reject(record, RecordError("null_value", "expected a JSON value, got null (a tombstone)"))
            return False
        if len(record.value) > self._max_record_bytes:
            size = f"expected at most {self._max_record_bytes} bytes, got {len(record.value)}"
            self._reject(record, RecordError("oversized", size))
            return False
        return True

    def _reject(self, record: KafkaRecord, problem: RecordError) -> None:
        message = self._dead_letters.make(self.topic, self.partition, record, problem)
        if message is not None:
            self.rejected.append(message)

    def _judge(
        self, chunk: Sequence[KafkaRecord], records: list[Any], time_field: str | None, needs_key: bool, end: int
    ) -> Decoded:
        """Judge decoded records; the quick way where all of them are good, one by one where something is not."""
        try:
            keys = [record.key.decode() for record in chunk] if needs_key else [""] * len(chunk)  # type: ignore[union-attr]
            times = [record.timestamp for record in chunk] if time_field is None else _attribute(records, time_field)
            good = (
                _all_integers(times)
                and (not times or (min(times) >= 0 and self._none_in_the_future(times, chunk)))
                and RecordError not in set(map(type, records))
            )
        except (AttributeError, UnicodeDecodeError, TypeError):
            good = False
        if not good:
            chunk, keys, records, times = self._judge_carefully(chunk, records, time_field, needs_key)
        return Decoded(chunk, [record.offset for record in chunk], keys, records, times, _sequences(records), end)

    def _none_in_the_future(self, times: Sequence[int], chunk: Sequence[KafkaRecord]) -> bool:
        bound = self._max_future_ms
        # the earliest arrival, not the first: a clock set back must not make the answer depend on where a chunk begins
        if max(times) <= min(map(_timestamp, chunk)) + bound:
            return True
        return all(time <= record.timestamp + bound for time, record in zip(times, chunk, strict=True))

    def _judge_carefully(
        self, chunk: Sequence[KafkaRecord], decoded: Sequence[Any], time_field: str | None, needs_key: bool
    ) -> tuple[list[KafkaRecord], list[str], list[Any], list[int]]:
        raws: list[KafkaRecord] = []
        keys: list[str] = []
        records: list[Any] = []
        times: list[int] = []
        for raw, record in zip(chunk, decoded, strict=True):
            try:
                if isinstance(record, RecordError):
                    raise record
                key = _key_of(raw) if needs_key else ""
                time = raw.timestamp if time_field is None else event_time_ms(_time_value(record, time_field))
                if time > raw.timestamp + self._max_future_ms:
                    raise RecordError(
                        "future_event_time",
                        f"expected an event time of at most {self._max_future_ms} ms after the arrival at "
                        f"{raw.timestamp}, got {time}: it would close every window before it",
                    )
            except RecordError as problem:
                self._reject(raw, problem)
                continue
            raws.append(raw)
            keys.append(key)
            records.append(record)
            times.append(time)
        return raws, keys, records, times


def _group_taps(taps: Sequence[Tap]) -> dict[tuple[Codec, str | None, bool], list[Tap]]:
    """Taps that read the same schema and time share one decoding."""
    groups: dict[tuple[Codec, str | None, bool], list[Tap]] = {}
    for tap in taps:
        groups.setdefault((tap.codec, tap.time_field, tap.needs_key), []).append(tap)
    return groups


def _attribute(records: Sequence[Any], name: str) -> list[Any]:
    get = attrgetter(name)
    return [get(record) for record in records]


def _all_integers(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {int}


def _sequences(records: Sequence[Any]) -> list[int]:
    try:
        values = [record.sequence for record in records]
    except AttributeError:
        return [-1] * len(records)
    if _all_integers(values) and (not values or (min(values) >= -_SEQUENCE_BOUND and max(values) < _SEQUENCE_BOUND)):
        return values
    return [value if type(value) is int and -_SEQUENCE_BOUND <= value < _SEQUENCE_BOUND else -1 for value in values]


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
