"""The batch lane: whole batches of one source partition, decoded once, merged into every table on it.

One chunk at a time per partition, in order of offset. A chunk is what waits, up to a bound: a few records where the worker
keeps up, so that they are seen at once, and many where it is behind, so that each costs little. Large chunks are decoded
by columns in a thread, the event loop stays free for readers meanwhile; those of some hundred records by columns on the
loop; the smallest, and what no column can hold, record by record. What cannot be decoded becomes a dead letter and the lane
goes on.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from streamapp.clock import Clock
from streamapp.columns.library import Mode
from streamapp.engine.columnar import ColumnGroup, column_group
from streamapp.engine.deadletters import DeadLetters, KafkaRecord
from streamapp.engine.hot_keys import HotKeys
from streamapp.engine.judging import Judge
from streamapp.engine.tap import Decoded, MarkedTap, Tap
from streamapp.engine.turns import Turns
from streamapp.errors import RecordError, without_frames
from streamapp.kafka.record_batch import RecordBatch
from streamapp.metrics import Metrics
from streamapp.records.codec import Codec

if TYPE_CHECKING:
    from streamapp.kafka.producer import OutMessage

#: records that are decoded at once one by one; between two tables the event loop gets a turn, after some milliseconds
CHUNK_MAX_RECORDS = 8_192
#: records of the batches that are decoded at once by columns; a batch is never cut
COLUMN_CHUNK_MAX_RECORDS = 32_768

#: no more than this wait where the lane keeps up; readers get a turn after each slice of them
_SLICED_MAX_RECORDS = 1_024
_SLICE_RECORDS = 256
_YIELD_MIN_RECORDS = 512
#: of so many records columns are made and grouped on the event loop: it takes a millisecond, and a thread's turns take more
_QUICK_MAX_RECORDS = 1_024
_SEQUENCE_BOUND = 1 << 63  # beyond it a number can neither be a column nor be written down
_timestamp = attrgetter("timestamp")


class SourceLane:
    """One partition of one source topic on its way into the tables.

    Args:
        topic, partition: the source.
        taps: what is fed from it.
        dead_letters: makes the messages for what cannot be used; they wait in `rejected` for the next checkpoint.
        max_future_ms: how far event time may run ahead of the record's arrival.
        max_record_bytes: a larger value is rejected undecoded.
        queue_max_records: `full` from this many waiting records on.
        until_room: awaited before each chunk; it returns when memory is there for what the chunk may change.
        turns: shared with the other lanes of the worker, so that readers get their turn between two chunks.
        stopwatch: seconds, finer than a clock's; only for what a record costs.
        native: whether batches may be, or have to be, decoded by the native library.
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
        native: Mode = "auto",
        until_room: Callable[[], Awaitable[None]] | None = None,
        turns: Turns | None = None,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.topic, self.partition, self.taps = topic, partition, taps
        self.rejected: list[OutMessage] = []
        self.applied = -1  # last offset that every tap has taken
        self.durable = -1  # last offset that is safe to commit
        self.last_activity_ms = clock.monotonic_ms()
        self.ready = False  # everything restored, position set
        self.offered = 0
        self.first_arrival_ms: int | None = None  # of the first record offered here, as its topic says
        # records taken one by one where the lane keeps up, and the seconds they took
        self.singly, self.singly_s = 0, 0.0
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock
        self._judge_one = Judge(max_future_ms=max_future_ms, max_record_bytes=max_record_bytes)
        self._queue_max_records = queue_max_records
        self._queue: deque[RecordBatch] = deque()
        self._queued = 0
        self._offered_to: int | None = None  # the offset behind the last one offered
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._groups = _group_taps(taps)
        self._marked = next((tap for tap in taps if isinstance(tap, MarkedTap)), None)
        self._column_groups: list[ColumnGroup] | None = None  # made when the first batch comes
        self._native = native
        self._until_room = until_room
        self._turns = turns or Turns()
        self._stopwatch = stopwatch
        self._on_room: Callable[[], None] | None = None
        self.hot_keys = HotKeys(topic, partition, clock)
        self._partition_records = metrics.partition_records.labels(topic, str(partition))
        self._queued_gauge = metrics.queued_records.labels(topic, str(partition))
        self._batch_size = metrics.batch_records.labels(topic)
        self._batch_time = metrics.batch_seconds.labels(topic)

    @property
    def full(self) -> bool:
        """Whether fetching has to stop until some of the queue is worked off."""
        return self._queued >= self._queue_max_records

    @property
    def queued(self) -> int:
        """How many records are not merged yet."""
        return self._queued

    @property
    def waiting(self) -> bool:
        """Whether there are records that are not merged yet."""
        return self._queued > 0

    @cached_property
    def columns_min_records(self) -> int | None:
        """From how many records on all its taps gain by columns; None where one of them takes none."""
        ways = [tap.columns for tap in self.taps]
        return max((way.min_records for way in ways if way is not None), default=None) if all(ways) else None

    @cached_property
    def _chunk_max_records(self) -> int:
        # a call per record keeps the loop from its readers as long whether the records come from columns or not
        ways = [tap.columns for tap in self.taps]
        singly = any(way is None or way.calls_per_record for way in ways)
        return CHUNK_MAX_RECORDS if singly else COLUMN_CHUNK_MAX_RECORDS

    @cached_property
    def _gains_from_records(self) -> float:
        """From how many records on any tap gains by columns."""
        return min((tap.columns.min_records for tap in self.taps if tap.columns is not None), default=math.inf)

    @cached_property
    def _quick(self) -> bool:
        """Whether all taps take some hundred records by columns in less time than a thread takes to begin."""
        return all(tap.columns is not None and tap.columns.quick for tap in self.taps)

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

    @property
    def next_offset(self) -> int:
        """The first offset that was not offered yet."""
        return self._offered_to if self._offered_to is not None else self.applied + 1

    def offer(self, batches: Sequence[RecordBatch]) -> bool:
        """Queue fetched batches: each offset once, none left out, whatever a fetch brings; also where it is `full`.

        What was offered before, or lies before the lane's position, is left out. A chunk is taken to hold each record once:
        of records that came twice between two chunks a state would know, of those within one it would count both.

        Returns:
            False where something is missing before or between them: nothing is taken then, and reading has to go on at
            `next_offset`.
        """
        found = self._unseen(batches)
        if found is None:
            return False
        for batch in found:
            if not batch.count and self._queue:
                # one without records only moves the end: those of idle transactions do not pile up behind a lane that waits
                self._queue[-1].next_offset = batch.next_offset
            else:
                self._queue.append(batch)
            if self.first_arrival_ms is None and batch.count and batch.arrived_ms >= 0:
                self.first_arrival_ms = batch.arrived_ms
        count = sum(batch.count for batch in found)
        self._queued += count
        self.offered += count
        self._arrived.set()
        return True

    def _unseen(self, batches: Sequence[RecordBatch]) -> list[RecordBatch] | None:
        """What of the batches was not offered yet; None where they do not go on where the last ones ended."""
        reached = self.next_offset
        found: list[RecordBatch] = []
        for batch in batches:
            if batch.min_offset > reached:
                return None
            if batch.next_offset > reached:
                batch.min_offset = reached
                reached = batch.next_offset
                found.append(batch)
        self._offered_to = reached
        return found

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._arrived.clear()
                self._queued_gauge.set(0)
                await self._arrived.wait()
                continue
            if self._until_room is not None:
                await self._until_room()
            await self._turns.next()
            batches = self._next_chunk()
            count = sum(batch.count for batch in batches)
            with self._batch_time.time():
                await self._process_batches(batches, count)
            self._done_with(count)

    def _next_chunk(self) -> list[RecordBatch]:
        """The batches that wait, as many as make a chunk; at least one."""
        found = [self._queue.popleft()]
        room = self._chunk_max_records - found[0].count
        while self._queue and self._queue[0].count <= room:
            room -= self._queue[0].count
            found.append(self._queue.popleft())
        return found

    def _done_with(self, count: int) -> None:
        if count:
            self._batch_size.observe(count)
        self._partition_records.inc(count)
        was_full = self.full
        self._queued -= count
        self._queued_gauge.set(self._queued)
        if was_full and not self.full and self._on_room is not None:
            self._on_room()

    async def _process_batches(self, batches: Sequence[RecordBatch], count: int) -> None:
        end = batches[-1].next_offset - 1
        # the last one has records, or it is the only one: `end` is that of the others as well
        batches = [batch for batch in batches if batch.count]
        if count >= self._gains_from_records:
            if self._column_groups is None:
                self._column_groups = self._make_column_groups()
            if self._column_groups and await self._process_columns(self._column_groups, batches, count):
                self._finished(end)
                return
        records = [record for batch in batches for record in batch.records()]
        sliced = len(records) <= _SLICED_MAX_RECORDS
        size = _SLICE_RECORDS if sliced else CHUNK_MAX_RECORDS
        for first in range(0, len(records), size):
            if first:
                await self._turns.next()
            chunk = records[first : first + size]
            last = first + size >= len(records)
            begin_s = self._stopwatch()
            await self._process(chunk, end if last else chunk[-1].offset)
            if sliced:  # the turns that others get in long ones would count as well
                self.singly += len(chunk)
                self.singly_s += self._stopwatch() - begin_s
        if not records:  # the taps get to know that there is nothing; which is no activity
            await self._take_records([], end)
            self.applied = end

    def _make_column_groups(self) -> list[ColumnGroup]:
        """One per group of taps; none where a group cannot be decoded by columns, or would gain nothing."""
        found: list[ColumnGroup] = []
        for (codec, time_field, needs_key), taps in self._groups.items():
            group = column_group(
                taps, codec, time_field, needs_key=needs_key, judge=self._judge_one, native=self._native
            )
            if group is None:
                return []
            found.append(group)
        return found

    async def _process_columns(self, groups: Sequence[ColumnGroup], batches: Sequence[RecordBatch], count: int) -> bool:
        """Decode all groups before any tap takes a record, so that what cannot be done so can be done anew."""
        if self._quick and count <= _QUICK_MAX_RECORDS:
            found = [group.decode(batches) for group in groups]
        else:
            found = await asyncio.to_thread(lambda: [group.decode(batches) for group in groups])
        done = [decoded for decoded in found if decoded is not None]
        if len(done) < len(found):
            return False
        keyed = next((chunk for group, (chunk, _) in zip(groups, done, strict=True) if group.needs_key), None)
        if keyed is not None:
            self.hot_keys.observe(keyed.keys)
        for group, (decoded, rejected) in zip(groups, done, strict=True):
            for raw, problem in rejected:
                self._reject(raw, problem)
            for tap in group.taps:
                for index, problem in await tap.accept(decoded):
                    self._reject(decoded.raw[index], problem)
                if count > _YIELD_MIN_RECORDS:
                    await asyncio.sleep(0)
        return True

    def _finished(self, end: int) -> None:
        self.applied = end
        self.last_activity_ms = self._clock.monotonic_ms()

    async def _process(self, chunk: Sequence[KafkaRecord], end: int) -> None:
        tap = self._marked
        markers: list[KafkaRecord] = []
        if tap is not None:
            markers = [raw for raw in chunk if tap.is_marker(raw)]
            if markers:
                chunk = [raw for raw in chunk if not tap.is_marker(raw)]
        if chunk:
            await self._take_records(chunk, end)
        if tap is not None:
            tap.mark(markers)
        self._finished(end)

    async def _take_records(self, chunk: Sequence[KafkaRecord], end: int) -> None:
        usable, values = chunk, [record.value for record in chunk]
        try:
            fits = max(map(len, values), default=0) <= self._judge_one.max_record_bytes  # type: ignore[arg-type]
        except TypeError:  # a null value has no length
            fits = False
        if not fits:
            usable = [record for record in chunk if self._is_usable(record)]
            values = [record.value for record in usable]
        seen = False  # groups share their keys
        for (codec, time_field, needs_key), taps in self._groups.items():
            decoded = self._judge(usable, codec.decode_all(cast("list[bytes]", values)), time_field, needs_key, end)
            if needs_key and not seen:
                self.hot_keys.observe(decoded.keys)
                seen = True
            for tap in taps:
                for index, problem in await tap.accept(decoded):
                    self._reject(decoded.raw[index], problem)
                if len(chunk) > _YIELD_MIN_RECORDS:
                    await asyncio.sleep(0)

    def _is_usable(self, record: KafkaRecord) -> bool:
        """Whether there is a value to decode; a record without one, or with too large a one, is set aside."""
        try:
            self._judge_one.value(record)
        except RecordError as problem:
            self._reject(record, problem)
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
        bound = self._judge_one.max_future_ms
        # the earliest arrival, not the first: a clock set back must not make the answer depend on where a chunk begins
        earliest = min(map(_timestamp, chunk))
        if earliest < 0:
            return False
        if max(times) <= earliest + bound:
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
                key, time = self._judge_one.place(raw, record, time_field, needs_key)
            except RecordError as problem:
                self._reject(raw, without_frames(problem))
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
