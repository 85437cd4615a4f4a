"""The lane sets aside what it cannot use, once each, and hands on the rest in order."""

import asyncio
import gc
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from streamapp.clock import ManualClock
from streamapp.engine import lane as lane_module
from streamapp.engine.deadletters import DeadLetters
from streamapp.engine.lane import SourceLane
from streamapp.engine.tap import ByColumns, Decoded
from streamapp.errors import RecordError
from streamapp.metrics import Metrics
from streamapp.records.codec import codec_for
from tests.fakes.batches import batch_of
from tests.fakes.kafka_records import Raw, trade
from tests.fakes.lanes import NEVER


class Tick(BaseModel):
    model_config = ConfigDict(strict=True)
    price: float
    size: float
    event_time: int
    sequence: int | None = None


class Loose(BaseModel):
    event_time: Any


class Sink:
    """Keeps what it is given; refuses the offsets that it is told to."""

    needs_key = True
    columns: ByColumns | None = ByColumns((), NEVER)

    def __init__(self, model: type = Tick, time_field: str | None = "event_time", refuse: Sequence[int] = ()) -> None:
        self.codec = codec_for(model)
        self.time_field = time_field
        self.refuse = refuse
        self.chunks: list[Decoded] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
        await self.gate.wait()
        self.chunks.append(decoded)
        return [
            (index, RecordError("aggregate_failed", "no"))
            for index, offset in enumerate(decoded.offsets)
            if offset in self.refuse
        ]

    def position(self) -> int | None:
        return None

    @property
    def offsets(self) -> list[int]:
        return [offset for chunk in self.chunks for offset in chunk.offsets]


class Passing(Sink):
    """Keeps nothing."""

    def __init__(self) -> None:
        super().__init__(Loose)
        self.alive: list[weakref.ref[Any]] = []

    async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
        self.alive += map(weakref.ref, decoded.records)
        return []


class Bench:
    def __init__(self, *sinks: Sink, queue: int = 100_000, future_ms: int = 1_000, record_bytes: int = 500) -> None:
        self.room = asyncio.Event()
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        clock, metrics = ManualClock(1_000_000), Metrics()
        self.lane = SourceLane(
            "trades",
            0,
            sinks,
            dead_letters=DeadLetters(metrics, clock, value_max_bytes=1_000),
            metrics=metrics,
            clock=clock,
            max_future_ms=future_ms,
            max_record_bytes=record_bytes,
            queue_max_records=queue,
        )
        self.lane.start(self.room.set, self.failure.set_result)

    def offer(self, records: Sequence[Raw]) -> None:
        self.lane.offer([batch_of(records)])

    async def until_applied(self, offset: int) -> None:
        async with asyncio.timeout(20):
            while self.lane.applied < offset:  # noqa: ASYNC110 - the lane announces nothing else
                await asyncio.sleep(0)

    def reasons(self) -> dict[int, str]:
        letters = [orjson.loads(message.value or b"") for message in self.lane.rejected]
        found = {letter["offset"]: letter["reason"] for letter in letters}
        assert len(found) == len(letters), "a record has two dead letters"
        return found


BAD = {
    1: (Raw(1, value=b"{"), "undecodable"),
    2: (Raw(2, value=b'{"price": "5", "size": 1, "event_time": 1}'), "wrong_schema"),
    3: (Raw(3, value=None), "null_value"),
    4: (Raw(4, value=b" " * 501), "oversized"),
    5: (trade(5, key=None), "missing_key"),
    6: (trade(6, key=b"\xff\xfe"), "undecodable_key"),
    7: (trade(7, time=1_001_001), "future_event_time"),
    8: (trade(8, time=-1), "bad_event_time"),
    9: (trade(9, sequence=1 << 70), "wrong_schema"),
    10: (Raw(10, value=b"\xff\xfe{}"), "undecodable"),
    11: (Raw(11, value=b"[" * 400), "wrong_schema"),
    12: (Raw(12, value=b"[]"), "wrong_schema"),
    13: (Raw(13, value=b""), "undecodable"),
}
NO_TIMESTAMP = Raw(0, value=b'{"price": 1, "size": 1, "event_time": 5}', timestamp=-1)


async def test_each_bad_record_is_set_aside_once_and_the_rest_goes_on():
    one, two = Sink(), Sink(refuse=[14])
    bench = Bench(one, two, Sink(Loose))
    records = [trade(0), *(raw for raw, _ in BAD.values()), trade(14), trade(15, time=1_001_000)]
    bench.offer(records)
    await bench.until_applied(15)
    reasons = bench.reasons()
    assert reasons == {offset: reason for offset, (_, reason) in BAD.items()} | {14: "aggregate_failed"}
    assert one.offsets == two.offsets == [0, 14, 15]
    assert one.chunks[0].end == 15
    assert not bench.failure.done()
    await bench.lane.stop()


async def test_first_arrival_is_that_of_the_first_record_that_has_one():
    bench = Bench(Sink())
    bench.lane.offer([])
    bench.offer([NO_TIMESTAMP])
    assert bench.lane.first_arrival_ms is None

    for offset, timestamp in ((1, 5_000), (2, 4_000)):
        bench.offer([Raw(offset, timestamp=timestamp)])
        assert bench.lane.first_arrival_ms == 5_000
    await bench.lane.stop()


def test_arrival_of_a_batch_is_the_brokers_time_where_the_topic_keeps_that():
    batch = batch_of([Raw(0, timestamp=1_000), Raw(1, timestamp=2_000)])
    assert batch.arrived_ms == 1_000

    batch.flags |= 0x08  # log append time: its greatest timestamp counts for all of its records
    assert batch.arrived_ms == 2_000


@pytest.mark.parametrize("time_field", ["event_time", None])
async def test_a_record_without_a_timestamp_is_set_aside_whatever_is_around_it(time_field: str | None):
    for others in ([], [[trade(1, time=5)]]):
        sink = Sink(time_field=time_field)
        bench = Bench(sink)
        bench.lane.offer([batch_of([NO_TIMESTAMP]), *map(batch_of, others)])
        await bench.until_applied(len(others))
        assert bench.reasons() == {0: "missing_timestamp"}
        assert sink.offsets == [1] * len(others)
        await bench.lane.stop()


async def test_a_chunk_of_bad_records_only_still_counts_as_applied():
    sink = Sink()
    bench = Bench(sink)
    bench.offer([raw for raw, _ in BAD.values()])
    await bench.until_applied(13)
    assert sink.offsets == []
    assert sink.chunks[0].end == 13
    await bench.lane.stop()


async def test_each_record_is_measured_by_its_own_arrival():
    # the clock of the broker was set back between the two: the second is in the future by its own arrival
    sink = Sink()
    bench = Bench(sink, future_ms=100)
    early = trade(1, time=1_000_050)
    early.timestamp = 900_000
    bench.offer([trade(0, time=1_000_050), early])
    await bench.until_applied(1)
    assert bench.reasons() == {1: "future_event_time"}
    assert sink.offsets == [0]
    await bench.lane.stop()


@pytest.mark.parametrize("form", ["1970-01-01T00:00:01.5Z", 1.5, 1_500])
async def test_event_times_of_other_forms_become_milliseconds(form: object):
    sink = Sink(Loose)
    bench = Bench(sink)
    bench.offer([Raw(0, value=orjson.dumps({"event_time": form}))])
    await bench.until_applied(0)
    assert list(sink.chunks[0].times) == [1_500]
    await bench.lane.stop()


async def test_without_a_time_field_the_arrival_is_the_time():
    sink = Sink(time_field=None)
    bench = Bench(sink)
    bench.offer([trade(0, time=5)])
    await bench.until_applied(0)
    assert list(sink.chunks[0].times) == [1_000_000]
    await bench.lane.stop()


async def test_unknown_sequences_are_minus_one():
    class Free(BaseModel):
        event_time: int
        sequence: Any = None

    sink = Sink(Free)
    bench = Bench(sink)
    wanted = [5, None, 1 << 63, -(1 << 63), "x", 1.5, True]
    bench.offer([trade(offset, sequence=value) for offset, value in enumerate(wanted)])
    await bench.until_applied(len(wanted) - 1)
    assert list(sink.chunks[0].sequences) == [5, -1, -1, -(1 << 63), -1, -1, -1]
    await bench.lane.stop()


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"_SLICED_MAX_RECORDS": 5, "CHUNK_MAX_RECORDS": 4, "_SLICE_RECORDS": 1}, id="long"),
        pytest.param({"_SLICED_MAX_RECORDS": 11, "CHUNK_MAX_RECORDS": 100, "_SLICE_RECORDS": 4}, id="short"),
    ],
)
async def test_lists_are_worked_off_in_parts_in_order(sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch):
    for name, size in sizes.items():
        monkeypatch.setattr(lane_module, name, size)
    sink = Sink()
    bench = Bench(sink)
    bench.offer([trade(offset) for offset in range(10)])
    bench.offer([trade(10)])
    await bench.until_applied(10)
    assert [len(chunk.offsets) for chunk in sink.chunks] == [4, 4, 3]
    assert sink.offsets == list(range(11))
    await bench.lane.stop()


@pytest.mark.parametrize(("calls", "sizes"), [(False, [9]), (True, [3, 3, 3])])
async def test_batches_are_taken_together_unless_each_record_is_a_call(
    calls: bool, sizes: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lane_module, "CHUNK_MAX_RECORDS", 4)
    sink = Sink()
    sink.columns = ByColumns((), NEVER, calls_per_record=calls)
    bench = Bench(sink)
    for first in (0, 3, 6):
        bench.offer([trade(offset) for offset in range(first, first + 3)])
    await bench.until_applied(8)
    assert [len(chunk.offsets) for chunk in sink.chunks] == sizes
    await bench.lane.stop()


async def test_a_full_queue_says_so_and_calls_when_there_is_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lane_module, "_SLICE_RECORDS", 3)
    sink = Sink()
    sink.gate.clear()
    bench = Bench(sink, queue=6)
    bench.offer([trade(offset) for offset in range(5)])
    assert not bench.lane.full
    bench.offer([trade(5)])
    assert bench.lane.full
    assert not bench.room.is_set()
    sink.gate.set()
    async with asyncio.timeout(20):
        await bench.room.wait()
    assert not bench.lane.full
    await bench.until_applied(5)
    await bench.lane.stop()


async def test_a_tap_that_breaks_is_reported_and_nothing_after_it_is_applied():
    class Broken(Sink):
        async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
            raise MemoryError("broken")

    bench = Bench(Broken())
    bench.offer([trade(0)])
    async with asyncio.timeout(20):
        assert isinstance(await bench.failure, MemoryError)
    assert bench.lane.applied == -1
    assert bench.lane.durable == -1
    await bench.lane.stop()


async def test_a_stopped_lane_drops_what_waits():
    sink = Sink()
    sink.gate.clear()
    bench = Bench(sink, queue=2)
    bench.offer([trade(0), trade(1), trade(2)])
    assert bench.lane.full
    await bench.lane.stop()
    assert not bench.lane.full
    assert bench.lane.applied == -1
    assert not bench.failure.done()


async def test_taps_of_one_schema_share_a_decoding_and_others_have_their_own():
    one, two, three = Sink(), Sink(), Sink(Loose)
    two.codec = one.codec
    bench = Bench(one, two, three)
    bench.offer([trade(0)])
    await bench.until_applied(0)
    assert one.chunks[0] is two.chunks[0]
    assert three.chunks[0] is not one.chunks[0]
    await bench.lane.stop()


async def test_records_beside_bad_ones_go_with_their_chunk():
    sink = Passing()
    bench = Bench(sink)
    gc.disable()  # a worker's collector comes after hundreds of chunks
    try:
        for first in (0, 20):
            bad = [(Raw(first + 1, value=b"{")), trade(first + 2, key=None), trade(first + 3, time=-1)]
            bench.offer([trade(first), *bad])
            await bench.until_applied(first + 3)
        await bench.until_applied(23)
        assert len(bench.reasons()) == 6
        assert [record() is None for record in sink.alive] == [True, True]
    finally:
        gc.enable()
    await bench.lane.stop()


class Marked(Sink):
    """Takes markers between its records: those without a value that have a header of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.markers: list[tuple[int, list[int]]] = []

    def is_marker(self, raw: Any) -> bool:
        return any(name == "marker" for name, _ in raw.headers)

    def mark(self, markers: Iterable[Any]) -> None:
        self.markers += [(raw.offset, self.offsets) for raw in markers]


async def test_markers_are_taken_after_the_records_of_their_chunk_and_are_no_dead_letters():
    sink = Marked()
    bench = Bench(sink)
    header = (("marker", b""),)
    bench.offer([trade(0), Raw(1, None, None, headers=header), Raw(2, None, None), trade(3)])
    await bench.until_applied(3)
    assert sink.offsets == [0, 3]
    assert sink.markers == [(1, [0, 3])]
    assert bench.reasons() == {2: "null_value"}
    bench.offer([Raw(4, None, None, headers=header)])
    await bench.until_applied(4)
    assert sink.markers[1:] == [(4, [0, 3])]
    await bench.lane.stop()


async def test_a_record_that_is_offered_twice_is_in_one_chunk_only_once():
    """A fetch of before the lane's position was set may arrive behind it: of one chunk both would be counted."""
    sink = Sink()
    bench = Bench(sink)
    bench.lane.applied = 2
    bench.lane.offer([batch_of([trade(offset) for offset in range(5)])])  # 0 to 2 lie before the lane's position
    bench.lane.offer([batch_of([trade(offset) for offset in range(3, 8)]), batch_of([trade(8)])])
    bench.lane.offer([batch_of([trade(offset) for offset in range(3, 8)])])
    assert bench.lane.queued >= 6
    await bench.until_applied(8)
    assert sink.offsets == [3, 4, 5, 6, 7, 8]
    assert not bench.lane.waiting
    await bench.lane.stop()


async def test_a_fetch_with_a_gap_before_or_in_it_is_refused():
    sink = Sink()
    bench = Bench(sink)
    assert bench.lane.offer([batch_of([trade(0), trade(1)])])
    ahead = batch_of([trade(4)], min_offset=4)
    assert not bench.lane.offer([batch_of([trade(2)], min_offset=2), ahead])
    assert bench.lane.next_offset == 2
    assert not bench.lane.offer([ahead])
    await bench.until_applied(1)
    assert bench.lane.offer([batch_of([trade(4)], min_offset=2)]), "where the topic itself has a gap"
    await bench.until_applied(4)
    assert sink.offsets == [0, 1, 4]
    await bench.lane.stop()


class Columns(Sink):
    """Wants chunks of more than a few records by columns."""

    columns = ByColumns(("price", "size"), 5)

    def prepare(self, decoded: Decoded) -> None: ...


@pytest.mark.parametrize("count", [3, 20])
async def test_a_chunk_accounts_for_what_is_passed_over_at_its_end_whichever_way_it_goes(count: int):
    sink = Columns()
    bench = Bench(sink)
    mark = batch_of([trade(count)], min_offset=count)
    mark.pass_over()
    assert bench.lane.offer([batch_of([trade(offset) for offset in range(count)]), mark])
    await bench.until_applied(count)
    assert [chunk.end for chunk in sink.chunks] == [count]
    await bench.lane.stop()


async def test_batches_that_are_for_no_reader_move_the_position_of_every_tap():
    sink = Sink()
    bench = Bench(sink)
    marks = [batch_of([trade(offset)], min_offset=offset) for offset in (1, 2)]
    for mark in marks:
        mark.pass_over()
    assert bench.lane.offer([batch_of([trade(0)]), marks[0]])
    await bench.until_applied(1)
    assert bench.lane.offer([marks[1]])
    await bench.until_applied(2)
    assert sink.offsets == [0]
    assert [chunk.end for chunk in sink.chunks] == [1, 2]
    many = [batch_of([trade(offset)], min_offset=offset) for offset in range(3, 103)]
    for mark in many:
        mark.pass_over()
    assert bench.lane.offer(many)
    assert len(bench.lane._queue) == 1
    await bench.until_applied(102)
    assert bench.lane.offered == 1
    assert bench.lane.first_arrival_ms is not None
    await bench.lane.stop()
