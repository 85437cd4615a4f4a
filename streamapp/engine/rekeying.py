"""The way of a re-keyed table's records: from the source to a topic of the table's own, and from there into the table.

A record that is forwarded says where it came from, its event time, and the stream time of its origin, the source partition:
the greatest event time of all that was forwarded from there up to it, whatever the key. It is judged late by that, so what
is late does not depend on which keys share a partition, and each origin can tell every partition how far it has come, those,
too, to which it has no records to send. It does so by *markers*, records without a value, sent when all before them is
acknowledged: whatever is forwarded after one has a stream time of at least the marker's. An origin that has gone silent says
that as well; nobody else can tell a silent source from one that is not forwarded for the moment.
"""

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from streamapp.engine.deadletters import KafkaRecord
from streamapp.engine.forwarding import Forwarded
from streamapp.engine.tables import LivePartition, RunningTable, TableTap
from streamapp.engine.tap import ByColumns, Decoded
from streamapp.errors import RecordError
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.metrics import Metrics
from streamapp.state.batch import Batch
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.records.codec import Codec
    from streamapp.state.partition import PartitionState

ORIGIN_HEADER = "streamapp-origin"
#: partition and offset; the offset that was sent right before it to the same partition and may be missing there, or -1;
#: event time, and stream time of the origin with this record, in ms
ORIGIN = struct.Struct(">IQqqq")
MARKER_HEADER = "streamapp-origin-time"
#: partition; the offset up to which, exclusive, it speaks; stream time in ms, -1 where nothing was forwarded yet; whether it
#: is silent
MARKER = struct.Struct(">IQq?")
#: a source partition is at rest when so many looks have found nothing new
_REST_LOOKS = 10


class RekeyedTap(TableTap):
    """Feeds a re-keyed table from its re-key topic: offsets, their order and stream times are those of the origins."""

    def __init__(self, live: LivePartition, metrics: Metrics) -> None:
        super().__init__(live, 0, metrics)

    @property
    def columns(self) -> None:
        """Not at all: origins are told by headers, which only the records have."""

    def prepare(self, decoded: Decoded) -> None:
        """Nothing to do ahead."""

    async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
        """Merge a chunk, origin by origin; repeats of the forwarding are told by the origin's offset.

        What stands behind a record that is missing is passed over: its forwarding failed, so both come again, in order.
        """
        rejects: list[tuple[int, RecordError]] = []
        state = self._state
        by_origin: dict[int, list[tuple[int, int, int, int]]] = {}
        newest: dict[int, int] = {}
        repeated: list[tuple[int, int]] = []
        for index, raw in enumerate(decoded.raw):
            header = _header(raw, ORIGIN_HEADER)
            if header is None or len(header) != ORIGIN.size:
                rejects.append((index, RecordError("missing_origin", f"expected the header {ORIGIN_HEADER}")))
                continue
            origin, offset, before, time, stream_time = ORIGIN.unpack(header)
            if origin >= state.origins:
                continue
            reached = newest.get(origin, state.applied[origin])
            if before <= reached < offset:
                newest[origin] = offset
                by_origin.setdefault(origin, []).append((index, offset, time, stream_time))
            elif offset <= reached:
                repeated.append((origin, stream_time))
        for origin, found in by_origin.items():
            state.idle.discard(origin)
            picked = [index for index, *_ in found]

            def take(values: Sequence[Any], picked: Sequence[int] = picked) -> list[Any]:
                return [values[index] for index in picked]

            offsets = [offset for _, offset, _, _ in found]
            batch = Batch(
                0,
                origin,
                offsets[-1],
                offsets,
                take(decoded.keys),
                take(decoded.records),
                [time for _, _, time, _ in found],
                take(decoded.sequences),
                stream_times=[stream_time for *_, stream_time in found],
            )
            rejects += [(picked[position], problem) for position, problem in self._merge(batch)]
        # whoever goes on forwarding begins with repeats, which tell as much as markers and are taken when they are
        for origin, stream_time in repeated:
            state.advance(origin, stream_time)
        return rejects

    def is_marker(self, raw: KafkaRecord) -> bool:
        """Whether a record only tells how far an origin has come."""
        header = _header(raw, MARKER_HEADER) if raw.value is None else None
        return header is not None and len(header) == MARKER.size

    def mark(self, markers: Iterable[KafkaRecord]) -> None:
        """Take markers, in their order, after all that came before them: what comes later is no earlier than they say.

        That an origin is silent holds until something of it comes that lies behind the marker. So a marker that is read
        again, or comes late from a worker that has been replaced, makes nothing idle that has gone on since.
        """
        state = self._state
        for raw in markers:
            origin, end, stream_time, silent = MARKER.unpack(_header(raw, MARKER_HEADER) or b"")
            if origin >= state.origins:
                continue
            state.advance(origin, stream_time)
            state.note_silence(origin, end, silent=silent)

    @property
    def idle_origins(self) -> Collection[int]:
        """Those that say so themselves: what does not come may only be late in being forwarded, by a worker that is away."""
        return self._state.idle

    @property
    def _state(self) -> "PartitionState":
        state = self.live.state
        if state is None:
            raise RuntimeError(f"{self.live.table.name}-{self.live.partition} got records before it was restored")
        return state

    def position(self) -> int | None:
        """Wherever the group is, as a repeat is harmless here; the beginning where there is no state yet."""
        state = self.live.state
        return 0 if state is not None and state.checkpoint is None else None


class ForwardTap:
    """Sends the records of a re-keyed table's source to the re-key topic, under their new key.

    Args:
        first: where to go on, and the stream time of what was forwarded until then. What comes before that offset was
            forwarded already, or came before a table that starts at the latest.

    Attributes:
        silent: whether the source partition has had nothing for so long that it is to hold no window open.
    """

    needs_key = False
    columns: ByColumns | None = None  # the new key is a function of the record

    def __init__(self, table: RunningTable, partition: int, producer: DurableProducer, first: Forwarded) -> None:
        source = table.definition.sources[0]
        self.codec: Codec = source.codec
        self.time_field = source.time_field
        self.silent = False
        self._table = table
        self._partition = partition
        self._producer = producer
        self._first = first.next_offset
        self._stream_time = first.stream_time  # of all that is acknowledged
        self._end = first.next_offset  # all below it is acknowledged, or cannot be forwarded
        self._looked: tuple[int, bool] = (-1, False)
        self._looks = 0  # how often in a row they have found the same
        self._told: dict[int, tuple[int, bool]] = {}  # per partition of the re-key topic, by records or markers

    def prepare(self, decoded: Decoded) -> None:
        """Nothing to do ahead."""

    async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
        """Forward a chunk and wait until all of it is acknowledged."""
        new_key = self._table.definition.new_key
        rejects: list[tuple[int, RecordError]] = []
        messages: list[OutMessage] = []
        before: dict[int, int] = {}
        stream_time = self._stream_time
        told: dict[int, tuple[int, bool]] = {}
        for index, (raw, record) in enumerate(zip(decoded.raw, decoded.records, strict=True)):
            if raw.offset < self._first:
                continue
            try:
                key = new_key(record)
                raw_key = key.encode()
            except Exception as problem:  # a user's function
                rejects.append((index, RecordError("key_failed", f"table {self._table.name}: {problem!r}"[:500])))
                continue
            place = self._table.partition_of(key)
            # of records that are sent together, one may fail and a later one not; the event time may be the record's own
            # timestamp, which another one takes the place of on the re-key topic
            time = decoded.times[index]
            stream_time = max(stream_time, time)
            origin = ORIGIN.pack(self._partition, raw.offset, before.get(place, -1), time, stream_time)
            before[place] = raw.offset
            told[place] = (stream_time, False)
            messages.append(
                OutMessage(self._table.rekey_topic, raw_key, raw.value, place, headers=((ORIGIN_HEADER, origin),))
            )
        self.silent = self.silent and not messages
        await self._producer.send_all(messages)
        self._stream_time, self._end = stream_time, max(self._end, decoded.end + 1)
        self._told.update(told)
        return rejects

    async def tell(self) -> int:
        """Tell the partitions that need it how far this origin has come, and whether it is silent; how many they are.

        While records come, those are told that the last record or marker left before the end of a pane. When none has come
        for some looks, all are told the rest. A table without windows closes none, and nobody is told.

        Raises:
            ProduceError: a marker was not acknowledged.
        """
        if self._table.definition.window is None:
            return 0
        now = (self._stream_time, self.silent)
        self._looks = self._looks + 1 if now == self._looked else 0
        self._looked = now
        pane = self._pane(self._stream_time)
        untold: list[int] = []
        for place in range(self._table.partitions):
            told = self._told.get(place, (-1, False))
            if told != now and (self._looks >= _REST_LOOKS or told[1] != now[1] or self._pane(told[0]) < pane):
                untold.append(place)
        headers = ((MARKER_HEADER, MARKER.pack(self._partition, self._end, *now)),)
        topic = self._table.rekey_topic
        await self._producer.send_all([OutMessage(topic, None, None, place, headers=headers) for place in untold])
        # what a record told its place meanwhile is told once more, no harm done
        self._told.update(dict.fromkeys(untold, now))
        return len(untold)

    def _pane(self, stream_time: int) -> int:
        """A number that grows when windows may close; sessions, which close at any time, wait for their gap at most."""
        window = self._table.definition.window
        assert window is not None
        return (stream_time - window.grace_ms) // (window.gap_ms if isinstance(window, Session) else window.pane_ms)

    def position(self) -> int:
        """The first record to forward, wherever the group is: others may have moved it while this table was not there."""
        return self._first

    @property
    def name(self) -> str:
        """The table's name."""
        return self._table.name

    def forwarded(self, next_offset: int) -> Forwarded:
        """How far the table has come, where its lane has passed on all below `next_offset`."""
        return Forwarded(self._table.topic_ids[0], max(self._first, next_offset), self._stream_time)


def _header(raw: KafkaRecord, wanted: str) -> bytes | None:
    return next((value for name, value in raw.headers if name == wanted), None)
