"""Restoring from a real changelog, compared key by key."""

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamapp.clock import SystemClock
from streamapp.engine import changelog
from streamapp.engine.restore import RestoreRequest, restore
from streamapp.engine.rocks import RocksFactory
from streamapp.errors import KafkaError, StateError
from streamapp.kafka.topics import TopicSpec
from streamapp.settings import Settings
from streamapp.state.entry import CHECKPOINT_KEY, Entry, data_key, time_key_of
from streamapp.state.replay import Replay
from tests.fakes.crashes import Message
from tests.fakes.processes import Topics

if TYPE_CHECKING:
    from streamapp.state.store import StateStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PARTITIONS = 3
Log = list[tuple[bytes, bytes | None]]


def log_of(seed: int, keys: int, records: int) -> Log:
    """Values, overwritten and deleted ones, and checkpoints in between."""
    chosen = random.Random(seed)
    log: Log = []
    for offset in range(records):
        key = data_key(f"key-{chosen.randrange(keys)}", 60_000 * chosen.randrange(3))
        if offset % 1_000 == 999:
            log.append((CHECKPOINT_KEY, f"checkpoint {offset}".encode()))
        else:
            value = Entry([offset], offset, [chosen.random(), "x" * chosen.randrange(40)]).encode()
            log.append((key, None if chosen.random() < 0.05 else value))
    return log


def newest(log: Log) -> dict[bytes, bytes]:
    return {key: value for key, value in dict(log).items() if value is not None}


class Restoring:
    """A changelog of its own, and stores that are brought up to date from it."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.topics = Topics(kafka)
        self.topic = f"restore-{uuid.uuid4().hex[:8]}-changelog"
        self.topics.create(TopicSpec(self.topic, PARTITIONS, 1, "compact"))
        self.logs: list[Log] = [[] for _ in range(PARTITIONS)]
        self.stores: list[StateStore] = [RocksFactory(folder).open("table", p) for p in range(PARTITIONS)]

    def produce(self, partition: int, log: Log) -> None:
        self.topics.produce(self.topic, log, partition)
        self.logs[partition] += log

    def run(
        self, wanted: Callable[[RestoreRequest], bool] = lambda request: True, **settings: int
    ) -> list[RestoreRequest]:
        places = [(self.topic, partition) for partition in range(PARTITIONS)]
        begins = asyncio.run(self.topics.admin.begin_offsets(places))
        ends = asyncio.run(self.topics.admin.end_offsets(places))
        requests = [
            RestoreRequest("table", p, self.topic, self.stores[p], begins[place], ends[place], True)
            for p, place in enumerate(places)
        ]
        done: list[RestoreRequest] = []
        given = Settings(kafka_brokers=self.topics.brokers, **settings)  # type: ignore[arg-type]
        asyncio.run(restore(requests, given, SystemClock(), on_restored=done.append, is_wanted=wanted))
        return done

    def check(self) -> None:
        for store, log in zip(self.stores, self.logs, strict=True):
            values = newest(log)
            checkpoint = values.pop(CHECKPOINT_KEY, None)
            assert dict(store.scan(b"d", b"e")) == values
            assert [key for key, _ in store.scan(b"t", b"u")] == sorted(map(time_key_of, values))
            assert store.get(CHECKPOINT_KEY) == checkpoint
            assert Replay(store, windowed=True).position == len(log)


@pytest.fixture
def restoring(kafka: str, tmp_path: Path) -> Iterator[Restoring]:
    found = Restoring(kafka, tmp_path)
    yield found
    for store in found.stores:
        store.close()


def test_50_000_keys_come_back_key_by_key_whatever_was_overwritten_or_deleted(restoring: Restoring) -> None:
    for partition in range(PARTITIONS):
        restoring.produce(partition, log_of(partition, 20_000, 40_000))
    done = restoring.run()
    assert sorted(request.partition for request in done) == [0, 1, 2]
    assert [request.records for request in sorted(done, key=lambda request: request.partition)] == [40_000] * 3
    assert sum(len(newest(log)) for log in restoring.logs) > 50_000
    restoring.check()


def test_a_store_goes_on_from_the_middle_of_a_batch(restoring: Restoring) -> None:
    log = log_of(7, 300, 5_000)
    restoring.produce(0, log[:3_000])
    replay = Replay(restoring.stores[0], windowed=True)
    known = [Message(at, *pair) for at, pair in enumerate(log[:1_234])]
    restoring.stores[0].write(replay.take(known, 1_234))
    assert [request.records for request in restoring.run() if request.partition == 0] == [3_000 - 1_234]
    restoring.check()
    restoring.produce(0, log[3_000:])
    assert [request.records for request in restoring.run() if request.partition == 0] == [2_000]
    restoring.check()
    # nothing is missing: done without a look at the topic
    assert [request.records for request in restoring.run()] == [0, 0, 0]


def test_answers_smaller_than_the_partitions_are_put_together(
    restoring: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "_ANSWER_MAX_BYTES", 20_000)
    monkeypatch.setattr(changelog, "_PARTITION_MAX_BYTES", 10_000)
    for partition in range(PARTITIONS):
        restoring.produce(partition, log_of(partition, 500, 3_000))
    restoring.run()
    restoring.check()


def test_a_batch_larger_than_a_partition_s_share_is_waited_for(
    restoring: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker leaves it out of every answer in which another partition comes first: that is not the changelog's end."""
    monkeypatch.setattr(changelog, "_ANSWER_MAX_BYTES", 20_000)
    monkeypatch.setattr(changelog, "_PARTITION_MAX_BYTES", 10_000)
    monkeypatch.setattr(changelog.random, "sample", lambda population, k: population)
    large = random.Random(1).randbytes(100_000)
    restoring.produce(0, log_of(0, 5, 20))
    restoring.produce(1, log_of(1, 5, 20))
    restoring.produce(2, [(data_key("large", 0), Entry([0], 0, [large.hex()]).encode())])
    restoring.run()
    restoring.check()


def test_a_partition_that_is_taken_away_meanwhile_is_left_as_it_is(restoring: Restoring) -> None:
    for partition in range(PARTITIONS):
        restoring.produce(partition, log_of(partition, 500, 3_000))
    assert not restoring.run(wanted=lambda request: False)


def test_a_store_that_is_ahead_of_its_changelog_stops_with_what_to_do(restoring: Restoring) -> None:
    restoring.produce(1, log_of(1, 50, 500))
    restoring.run()
    restoring.stores[1].write(Replay(restoring.stores[1], windowed=True).take([], 510))
    with pytest.raises(
        StateError, match=r"partition 1: .* up to offset 510, but .*-1 ends at 500: .* delete this"
    ) as it:
        restoring.run()
    assert (it.value.table, it.value.partition) == ("table", 1)


def test_a_changelog_that_was_cut_is_an_error_and_no_endless_wait(restoring: Restoring) -> None:
    restoring.produce(0, log_of(1, 50, 500))
    request = RestoreRequest("table", 0, restoring.topic, restoring.stores[0], 600, 700, True)

    async def read() -> None:
        await restore(
            [request],
            restoring.topics.settings,
            SystemClock(),
            on_restored=lambda request: None,
            is_wanted=lambda request: True,
        )

    with pytest.raises(KafkaError, match="offset 600 is not there any more"):
        asyncio.run(read())
