"""The way of a re-keyed record, its repeats, and how far its origins say that they have come."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from streamapp.engine.forwarding import Forwarded
from streamapp.engine.rekeying import MARKER, MARKER_HEADER, ORIGIN, ORIGIN_HEADER, ForwardTap, RekeyedTap
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.engine.tap import Decoded
from streamapp.errors import ProduceError
from streamapp.kafka.partitioner import partition_for
from streamapp.kafka.producer import OutMessage
from streamapp.metrics import Metrics
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from streamapp.windows.fold import Fold
from tests.fakes.crashes import Event, definition
from tests.fakes.kafka_records import FakeProducer, Raw, decoded

WINDOW = Tumbling(10, 0, 1_000)


def rekeyed_table(rekey: Any = lambda record: record.key) -> RunningTable:
    return RunningTable(definition(WINDOW, Count(), rekey=rekey, rekey_name="key"), "app", 2, 2, ("its-id", "source"))


def live(table: RunningTable) -> LivePartition:
    store = MemoryStore()
    return LivePartition(table, 0, store, PartitionState(table.definition, 0, store, origins=table.origins))


def forwarded(*origins: tuple[int, ...], time: int = 5, stream_time: int | None = None, first: int = 0) -> Decoded:
    """Records of the re-key topic, from these places (partition, offset, and the offset sent before it where it tells)."""
    reached = time if stream_time is None else stream_time
    raws = [
        Raw(first + index, headers=(("other", b""), (ORIGIN_HEADER, ORIGIN.pack(*(*origin, -1)[:3], time, reached))))
        for index, origin in enumerate(origins)
    ]
    return decoded(raws, [Event("a", time)] * len(raws))


def marker(origin: int, stream_time: int, *, end: int = 0, silent: bool = False) -> Raw:
    """A marker as it stands in the re-key topic."""
    return Raw(0, None, None, headers=((MARKER_HEADER, MARKER.pack(origin, end, stream_time, silent)),))


def forwarding(producer: FakeProducer, partition: int = 0, stream_time: int = -1, **changed: Any) -> ForwardTap:
    table = rekeyed_table(**changed)
    return ForwardTap(table, partition, producer, Forwarded("its-id", 0, stream_time))  # type: ignore[arg-type]


def count(one: LivePartition) -> int:
    assert one.state is not None
    return sum(entry.state[0] for _, entry in one.state.windows("a", 0, 1_000))


async def test_a_forwarded_record_counts_once_however_often_it_comes(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    assert not await tap.accept(forwarded((0, 5), (1, 5), (0, 6), (0, 5), (0, 6), (1, 5), (0, 9)))
    assert count(one) == 4
    await tap.accept(forwarded((0, 5), (0, 6), (0, 9), (1, 5), (0, 10), (1, 7)))
    assert count(one) == 6
    assert one.state is not None
    assert one.state.applied == [10, 7]


async def test_a_forwarded_record_behind_a_missing_one_waits_for_it(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    assert not await tap.accept(forwarded((0, 5), (0, 8, 6), (0, 9, 8)))  # 6 failed, so that all of them come again
    assert count(one) == 1
    await tap.accept(forwarded((0, 5), (0, 6, 5), (0, 8, 6), (0, 9, 8)))
    assert count(one) == 4
    assert one.state is not None
    assert one.state.applied == [9, -1]


async def test_a_forwarded_record_keeps_the_time_that_its_source_gave_it(metrics: Metrics):
    one = live(rekeyed_table())
    chunk = forwarded((0, 5), time=7)
    chunk.times = [9_000]  # when it reached the re-key topic
    await RekeyedTap(one, metrics).accept(chunk)
    assert one.state is not None
    assert one.state.stream_times == [7, -1]


async def test_a_forwarded_record_without_its_origin_becomes_a_dead_letter_and_the_rest_counts(metrics: Metrics):
    one = live(rekeyed_table())
    raws = [Raw(0), Raw(1, headers=((ORIGIN_HEADER, b"short"),)), forwarded((0, 1)).raw[0]]
    rejects = await RekeyedTap(one, metrics).accept(decoded(raws, [Event("a", 5)] * 3))  # type: ignore[arg-type]
    assert [(index, problem.reason) for index, problem in rejects] == [(0, "missing_origin"), (1, "missing_origin")]
    assert count(one) == 1


async def test_a_rekeyed_table_closes_when_all_origins_have_passed(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    await tap.accept(forwarded((0, 1), time=5))
    await tap.accept(forwarded((0, 2), time=50))
    assert one.state is not None
    assert one.state.watermark == -1
    await tap.accept(forwarded((1, 1), time=7))
    assert count(one) == 3
    assert not one.state.late


async def test_refused_records_are_told_by_their_place_in_the_chunk(metrics: Metrics):
    def refuse(state: int, record: Event) -> int:
        if record.price == 9.0:
            raise ValueError("nine")
        return state + 1

    table = RunningTable(
        definition(WINDOW, Fold(0, refuse), rekey=lambda record: "a", rekey_name="a"), "app", partitions=2, origins=2
    )
    chunk = forwarded((0, 1), (1, 1), (0, 2), (1, 2))
    chunk.records = [Event("a", 5, 9.0 if index in (1, 2) else 1.0) for index in range(4)]
    rejects = await RekeyedTap(live(table), metrics).accept(chunk)
    assert sorted((index, problem.reason) for index, problem in rejects) == [
        (1, "aggregate_failed"),
        (2, "aggregate_failed"),
    ]


async def test_forwarding_keeps_the_value_and_tells_the_origin():
    producer = FakeProducer()
    tap = forwarding(producer, 3)
    raws = [Raw(7, b"old", b"value-7"), Raw(9, None, b"value-9")]
    assert not await tap.accept(decoded(raws, [Event("x", 1), Event("y", 2)]))
    [sent] = producer.calls
    assert [(message.topic, message.key, message.value, message.partition) for message in sent] == [
        ("app-table-rekey", b"x", b"value-7", partition_for(b"x", 2)),
        ("app-table-rekey", b"y", b"value-9", partition_for(b"y", 2)),
    ]
    assert [ORIGIN.unpack(message.headers[0][1]) for message in sent] == [(3, 7, -1, 1, 1), (3, 9, 7, 2, 2)]


async def test_forwarding_tells_what_was_sent_before_to_the_same_partition():
    producer = FakeProducer()
    tap = forwarding(producer)
    keys = ["x", "u", "x", "u", "x"]
    assert partition_for(b"x", 2) != partition_for(b"u", 2)
    await tap.accept(decoded([Raw(offset) for offset in range(5)], [Event(key, 1) for key in keys]))
    await tap.accept(decoded([Raw(5)], [Event("x", 1)]))  # all before it is acknowledged
    before = [ORIGIN.unpack(message.headers[0][1])[2] for call in producer.calls for message in call]
    assert before == [-1, -1, 0, 1, 2, -1]


@pytest.mark.parametrize("key", [None, "", 5, "\ud800"])
async def test_a_key_that_cannot_be_used_rejects_that_record_only(key: Any):
    producer = FakeProducer()
    tap = forwarding(producer, rekey=lambda record: key if record.key == "bad" else record.key)
    rejects = await tap.accept(decoded([Raw(0), Raw(1), Raw(2)], [Event("a", 1), Event("bad", 1), Event("c", 1)]))
    assert [(index, problem.reason) for index, problem in rejects] == [(1, "key_failed")]
    assert [message.key for message in producer.calls[0]] == [b"a", b"c"]


async def test_a_forwarded_record_tells_how_far_its_origin_has_come_whatever_the_keys():
    producer = FakeProducer()
    tap = forwarding(producer, stream_time=3, rekey=lambda record: record.key if record.key != "bad" else None)
    keys = ["x", "u", "bad", "x"]
    await tap.accept(
        decoded([Raw(offset) for offset in range(4)], [Event(k, t) for k, t in zip(keys, (1, 50, 90, 20), strict=True)])
    )
    told = [ORIGIN.unpack(message.headers[0][1])[3:] for message in producer.calls[0]]
    assert told == [(1, 3), (50, 50), (20, 50)], "one that is not forwarded moves nothing"
    assert tap.forwarded(4) == Forwarded("its-id", 4, 50)


async def test_what_was_not_acknowledged_does_not_count_as_forwarded():
    tap = forwarding(FakeProducer(fail_at=0), stream_time=3)
    with pytest.raises(ProduceError):
        await tap.accept(decoded([Raw(0)], [Event("x", 50)]))
    assert tap.forwarded(0).stream_time == 3


async def test_a_forwarded_record_is_late_by_the_stream_time_that_it_came_with(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    await tap.accept(forwarded((0, 5), time=5, stream_time=9))
    assert count(one) == 1
    await tap.accept(forwarded((0, 6), time=5, stream_time=10, first=1))
    assert count(one) == 1
    assert one.state is not None
    assert [(late.offset, late.watermark) for late in one.state.late] == [(6, 10)]


async def test_markers_close_windows_to_which_an_origin_sends_nothing(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    await tap.accept(forwarded((0, 1), time=5))
    tap.mark([marker(0, 10), marker(1, 7), marker(9, 99)])  # there is no origin 9
    assert one.state is not None
    assert one.state.stream_times == [10, 7]
    tap.mark([marker(1, 12), marker(1, 11)])
    assert one.state.stream_times == [10, 12]
    [(start, entry)] = one.state.windows("a", 0, 100)
    assert one.state.is_final(start, entry)


async def test_a_repeat_tells_as_much_as_a_marker_and_comes_after_the_records_of_its_chunk(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    await tap.accept(forwarded((0, 5), time=5))
    chunk = forwarded((0, 6), (0, 5), time=5)
    again = ORIGIN.pack(0, 5, -1, 5, 80)  # by a worker that goes on, and knows what was forwarded behind it
    chunk.raw = [chunk.raw[0], Raw(1, headers=((ORIGIN_HEADER, again),))]
    await tap.accept(chunk)
    assert count(one) == 2
    assert one.state is not None
    assert not one.state.late
    assert one.state.stream_times == [80, -1]


async def test_what_stands_behind_a_missing_record_tells_nothing_yet(metrics: Metrics):
    one = live(rekeyed_table())
    await RekeyedTap(one, metrics).accept(forwarded((0, 8, 6), time=50))
    assert one.state is not None
    assert one.state.stream_times == [-1, -1], "record 6, which comes again, may be earlier"


async def test_an_origin_is_idle_until_its_next_record_and_a_checkpoint_knows_it(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    await tap.accept(forwarded((0, 5), time=5))
    tap.mark([marker(1, -1, end=3, silent=True)])
    assert set(tap.idle_origins) == {1}
    state = one.state
    assert state is not None
    plan = state.prepare_flush("cluster", ("one", "two"), (0, 0))
    assert plan is not None
    state.complete_flush(plan, 0)
    again = PartitionState(one.table.definition, 0, one.store, origins=2)
    assert (again.idle, again.spoken) == ({1}, [0, 3])
    await tap.accept(forwarded((1, 3), time=5, first=3))
    assert not tap.idle_origins


async def test_an_origin_that_has_gone_on_is_not_made_idle_by_what_it_said_before(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, metrics)
    silent = marker(1, -1, end=3, silent=True)
    # in one chunk, whose records are taken first; or read again; or late, of a worker that has been replaced
    await tap.accept(forwarded((1, 3), time=5))
    tap.mark([silent])
    assert not tap.idle_origins
    # its next record went to another partition, which a marker told
    tap.mark([marker(1, 9, end=6), marker(1, 5, end=5, silent=True)])
    assert not tap.idle_origins
    tap.mark([marker(1, 9, end=6, silent=True)])
    assert set(tap.idle_origins) == {1}
    tap.mark([marker(1, 9, end=6)])
    assert not tap.idle_origins, "the same place: the last word counts"


async def test_markers_alone_are_worth_a_checkpoint(metrics: Metrics):
    one = live(rekeyed_table())
    RekeyedTap(one, metrics).mark([marker(1, 7)])
    assert one.state is not None
    plan = one.state.prepare_flush("cluster", ("one", "two"), (0, 0))
    assert plan is not None, "else all markers would be read again at each start"
    assert plan.checkpoint.stream_times == (-1, 7)


async def told(tap: ForwardTap, producer: FakeProducer) -> list[tuple[int | None, int, bool]]:
    """The markers that it sends when asked: partition, stream time, silent."""
    before = len(producer.calls)
    count = await tap.tell()
    sent = [message for call in producer.calls[before:] for message in call]
    assert count == len(sent)
    assert all((message.topic, message.key, message.value) == ("app-table-rekey", None, None) for message in sent)
    found = [(message.partition, *MARKER.unpack(message.headers[0][1])) for message in sent]
    assert all((origin, end) == (3, tap._end) for _, origin, end, _, _ in found)
    return [(place, stream_time, silent) for place, _, _, stream_time, silent in found]


async def looks(tap: ForwardTap, producer: FakeProducer, count: int = 9) -> None:
    """So many looks that tell nothing."""
    for _ in range(count):
        assert not await told(tap, producer)


async def test_partitions_are_told_of_a_pane_that_is_over_and_at_rest_of_everything():
    producer = FakeProducer()
    tap = forwarding(producer, 3)
    await looks(tap, producer, 30)
    x, u = partition_for(b"x", 2), partition_for(b"u", 2)
    assert x != u
    await tap.accept(decoded([Raw(0)], [Event("x", 15)]))
    assert await told(tap, producer) == [(u, 15, False)]
    await tap.accept(decoded([Raw(1)], [Event("x", 18)]))
    await looks(tap, producer, 10)  # no window ends between 15 and 18
    assert await told(tap, producer) == [(u, 18, False)], "nothing more comes"
    await tap.accept(decoded([Raw(2), Raw(3)], [Event("u", 19), Event("x", 20)]))
    assert await told(tap, producer) == [(u, 20, False)]
    await looks(tap, producer, 30)
    tap.silent = True
    assert await told(tap, producer) == [(0, 20, True), (1, 20, True)]
    await looks(tap, producer, 30)
    await tap.accept(decoded([Raw(4)], [Event("x", 20)]))
    assert await told(tap, producer) == [(u, 20, False)], "x has seen it by the record"


async def test_nobody_is_told_where_no_window_closes():
    producer = FakeProducer()
    tap = forwarding(producer, 3)
    tap._table = replace(tap._table, definition=replace(tap._table.definition, window=None))
    await tap.accept(decoded([Raw(0)], [Event("x", 15)]))
    await looks(tap, producer, 30)


async def test_silence_that_was_told_while_a_record_was_on_its_way_is_taken_back():
    producer = FakeProducer()
    tap = forwarding(producer, 3)
    await tap.accept(decoded([Raw(0), Raw(1)], [Event("x", 15), Event("u", 15)]))
    tap.silent = True
    acknowledged, send_all = asyncio.Event(), producer.send_all

    async def slowly(messages: Collection[OutMessage]) -> list[int]:
        await acknowledged.wait()
        return await send_all(messages)

    producer.send_all = slowly  # type: ignore[method-assign]
    telling = asyncio.create_task(tap.tell())
    await asyncio.sleep(0)
    taking = asyncio.create_task(tap.accept(decoded([Raw(2)], [Event("x", 15)])))
    await asyncio.sleep(0)
    acknowledged.set()
    await asyncio.gather(telling, taking)
    assert not tap.silent
    told_by_the_record = partition_for(b"x", 2)
    assert await told(tap, producer) == [(1 - told_by_the_record, 15, False)]


async def test_a_marker_that_is_not_acknowledged_is_not_taken_for_told():
    producer = FakeProducer()
    tap = forwarding(producer, 3, stream_time=15)
    producer.fail_at = 0
    with pytest.raises(ProduceError):
        await tap.tell()
    producer.fail_at = None
    assert await told(tap, producer) == [(0, 15, False), (1, 15, False)]
