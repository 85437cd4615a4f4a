"""What feeds a table: the plain tap, the way of a re-keyed record, and its repeats."""

from collections.abc import Sequence
from typing import Any

import pytest

from streamapp.engine.tables import (
    _ORIGIN,
    _ORIGIN_HEADER,
    ForwardTap,
    LivePartition,
    RekeyedTap,
    RunningTable,
    TableTap,
)
from streamapp.engine.tap import Decoded
from streamapp.kafka.partitioner import partition_for
from streamapp.metrics import Metrics
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from streamapp.windows.fold import Fold
from tests.fakes.crashes import Event, definition
from tests.fakes.kafka_records import FakeProducer, Raw

WINDOW = Tumbling(10, 0, 1_000)


def rekeyed_table(rekey: Any = lambda record: record.key) -> RunningTable:
    return RunningTable(definition(WINDOW, Count(), rekey=rekey, rekey_name="key"), "app", partitions=2, origins=2)


def live(table: RunningTable) -> LivePartition:
    store = MemoryStore()
    return LivePartition(table, 0, store, PartitionState(table.definition, 0, store, origins=table.origins))


def decoded(raws: Sequence[Raw], events: Sequence[Event]) -> Decoded:
    return Decoded(
        raws,
        [raw.offset for raw in raws],
        [event.key for event in events],
        list(events),
        [event.event_time for event in events],
        [-1] * len(events),
        raws[-1].offset,
    )


def forwarded(*origins: tuple[int, ...], time: int = 5) -> Decoded:
    """Records of the re-key topic, from these places (partition, offset, and the offset sent before it where it tells)."""
    raws = [
        Raw(index, headers=(("other", b""), (_ORIGIN_HEADER, _ORIGIN.pack(*(*origin, -1)[:3], time))))
        for index, origin in enumerate(origins)
    ]
    return decoded(raws, [Event("a", time)] * len(raws))


def count(one: LivePartition) -> int:
    assert one.state is not None
    return sum(entry.state[0] for _, entry in one.state.windows("a", 0, 1_000))


async def test_a_forwarded_record_counts_once_however_often_it_comes(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, 0, metrics)
    assert not await tap.accept(forwarded((0, 5), (1, 5), (0, 6), (0, 5), (0, 6), (1, 5), (0, 9)))
    assert count(one) == 4
    await tap.accept(forwarded((0, 5), (0, 6), (0, 9), (1, 5), (0, 10), (1, 7)))
    assert count(one) == 6
    assert one.state is not None
    assert one.state.applied == [10, 7]


async def test_a_forwarded_record_behind_a_missing_one_waits_for_it(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, 0, metrics)
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
    await RekeyedTap(one, 0, metrics).accept(chunk)
    assert one.state is not None
    assert one.state.stream_times == [7, -1]


async def test_a_forwarded_record_without_its_origin_becomes_a_dead_letter_and_the_rest_counts(metrics: Metrics):
    one = live(rekeyed_table())
    raws = [Raw(0), Raw(1, headers=((_ORIGIN_HEADER, b"short"),)), forwarded((0, 1)).raw[0]]
    rejects = await RekeyedTap(one, 0, metrics).accept(decoded(raws, [Event("a", 5)] * 3))  # type: ignore[arg-type]
    assert [(index, problem.reason) for index, problem in rejects] == [(0, "missing_origin"), (1, "missing_origin")]
    assert count(one) == 1


async def test_a_rekeyed_table_closes_when_all_origins_have_passed(metrics: Metrics):
    one = live(rekeyed_table())
    tap = RekeyedTap(one, 0, metrics)
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
    rejects = await RekeyedTap(live(table), 0, metrics).accept(chunk)
    assert sorted((index, problem.reason) for index, problem in rejects) == [
        (1, "aggregate_failed"),
        (2, "aggregate_failed"),
    ]


async def test_forwarding_keeps_the_value_and_tells_the_origin():
    producer = FakeProducer()
    tap = ForwardTap(rekeyed_table(), 3, producer)  # type: ignore[arg-type]
    raws = [Raw(7, b"old", b"value-7"), Raw(9, None, b"value-9")]
    assert not await tap.accept(decoded(raws, [Event("x", 1), Event("y", 2)]))
    [sent] = producer.calls
    assert [(message.topic, message.key, message.value, message.partition) for message in sent] == [
        ("app-table-rekey", b"x", b"value-7", partition_for(b"x", 2)),
        ("app-table-rekey", b"y", b"value-9", partition_for(b"y", 2)),
    ]
    assert [_ORIGIN.unpack(message.headers[0][1]) for message in sent] == [(3, 7, -1, 1), (3, 9, 7, 2)]


async def test_forwarding_tells_what_was_sent_before_to_the_same_partition():
    producer = FakeProducer()
    tap = ForwardTap(rekeyed_table(), 0, producer)  # type: ignore[arg-type]
    keys = ["x", "u", "x", "u", "x"]
    assert partition_for(b"x", 2) != partition_for(b"u", 2)
    await tap.accept(decoded([Raw(offset) for offset in range(5)], [Event(key, 1) for key in keys]))
    await tap.accept(decoded([Raw(5)], [Event("x", 1)]))  # all before it is acknowledged
    before = [_ORIGIN.unpack(message.headers[0][1])[2] for call in producer.calls for message in call]
    assert before == [-1, -1, 0, 1, 2, -1]


@pytest.mark.parametrize("key", [None, "", 5, "\ud800"])
async def test_a_key_that_cannot_be_used_rejects_that_record_only(key: Any):
    producer = FakeProducer()
    tap = ForwardTap(rekeyed_table(lambda record: key if record.key == "bad" else record.key), 0, producer)  # type: ignore[arg-type]
    rejects = await tap.accept(decoded([Raw(0), Raw(1), Raw(2)], [Event("a", 1), Event("bad", 1), Event("c", 1)]))
    assert [(index, problem.reason) for index, problem in rejects] == [(1, "key_failed")]
    assert [message.key for message in producer.calls[0]] == [b"a", b"c"]


async def test_records_before_a_restored_state_are_a_bug_and_not_skipped(metrics: Metrics):
    table = RunningTable(definition(WINDOW, Count()), "app")
    tap = TableTap(LivePartition(table, 0, MemoryStore()), 0, metrics)
    with pytest.raises(RuntimeError, match="before it was restored"):
        await tap.accept(decoded([Raw(0)], [Event("a", 1)]))
    assert tap.position() is None


async def test_a_table_wants_the_record_after_its_last(metrics: Metrics):
    one = live(RunningTable(definition(WINDOW, Count()), "app"))
    tap = TableTap(one, 0, metrics)
    assert tap.position() == 0
    await tap.accept(decoded([Raw(4), Raw(9)], [Event("a", 1), Event("a", 2)]))
    assert tap.position() == 10
    assert metrics.records_applied.labels("table")._value.get() == 2
