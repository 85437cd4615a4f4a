"""What an owner says again of its changelog when somebody else has written to it."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.engine import ownership
from streamapp.engine.ownership import Ownership
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import KafkaError
from streamapp.kafka.producer import OutMessage
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.state.entry import Entry, data_key
from streamapp.state.epochs import EPOCH_KEY, EPOCH_SEEN_KEY, claim_value, epoch_bytes
from streamapp.state.partition import PartitionState
from streamapp.state.store import CHANGELOG_OFFSET_KEY, MemoryStore, WriteSet
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from tests.fakes.crashes import definition
from tests.fakes.kafka_records import Raw

KEY = data_key("a", 0)


def value(epoch: int, count: int = 1) -> bytes:
    return Entry([0], 5, [count]).encode(epoch_bytes(epoch))


@dataclass
class Chunk:
    found: Sequence[Any]
    end: int
    high_watermark: int
    nothing_here: bool = False

    def records(self) -> Sequence[Any]:
        return self.found


class Changelog:
    """One partition: what is sent to it gets the next offsets, and all of it can be read back."""

    def __init__(self) -> None:
        self.records: list[Raw] = []
        self.untold = 0  # of so many of the next records nobody tells where they are
        self._begin = 0

    def add(self, key: bytes, value: bytes | None) -> None:
        self.records.append(Raw(len(self.records), key=key, value=value))

    async def send_all(self, messages: Collection[OutMessage]) -> list[int]:
        begin = len(self.records)
        for message in messages:
            assert message.key is not None
            self.add(message.key, message.value)
        untold, self.untold = self.untold, max(0, self.untold - len(messages))
        return [-1 if index < untold else begin + index for index in range(len(messages))]

    async def end_offsets(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return dict.fromkeys(places, len(self.records))

    def reader(self, settings: Settings, positions: dict[tuple[str, int], int]) -> "Changelog":
        (self._begin,) = positions.values()
        return self

    async def __aenter__(self) -> "Changelog":
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def next(self, timeout_s: float) -> list[Chunk]:
        return [Chunk(self.records[self._begin :], len(self.records), len(self.records))]


@pytest.fixture
def changelog(monkeypatch: pytest.MonkeyPatch) -> Changelog:
    changelog = Changelog()
    monkeypatch.setattr(ownership, "ChangelogReader", changelog.reader)
    return changelog


@pytest.fixture
def owner(changelog: Changelog, metrics: Metrics, clock: ManualClock) -> Ownership:
    async def leased() -> None:
        pass

    return Ownership(
        changelog,  # type: ignore[arg-type]
        Settings(changelog_watch_ms=1),
        metrics,
        clock,
        end_offsets=changelog.end_offsets,
        guard=leased,
    )


async def claimed(owner: Ownership, store: MemoryStore) -> LivePartition:
    table = RunningTable(definition(Tumbling(10, 0, 1_000), Count()), "app", partitions=1)
    live = LivePartition(table, 0, store)
    await owner.claim([live])
    live.state = PartitionState(table.definition, 0, store)
    live.state.epoch = live.epoch
    return live


async def test_value_of_a_replaced_owner_is_written_again_as_the_store_has_it(
    owner: Ownership, changelog: Changelog, clock: ManualClock
) -> None:
    store = MemoryStore()
    live = await claimed(owner, store)
    store.write(WriteSet([(KEY, value(1, 7))]))
    changelog.add(KEY, value(0, 3))
    clock.advance(10)
    await owner.mend([live])
    assert [(record.key, record.value) for record in changelog.records[2:]] == [(KEY, value(1, 7))]


async def test_own_value_whose_place_nobody_told_is_written_again_under_a_new_epoch(
    owner: Ownership, changelog: Changelog, clock: ManualClock
) -> None:
    store = MemoryStore()
    live = await claimed(owner, store)
    store.write(WriteSet([(KEY, value(1, 7))]))
    changelog.untold = 1
    assert live.ledger is not None
    live.ledger.wrote(await changelog.send_all([OutMessage("changelog", KEY, value(1, 7), 0)]))
    assert live.ledger.position == 0
    clock.advance(10)
    await owner.mend([live])
    assert [record.key for record in changelog.records[2:]] == [EPOCH_KEY, KEY]
    assert changelog.records[-1].value == store.get(KEY) == value(2, 7)
    assert live.ledger.position == 3
    clock.advance(10)
    await owner.mend([live])
    assert len(changelog.records) == 4, "it is said once"


async def test_claim_whose_place_nobody_told_is_made_again(
    owner: Ownership, changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[tuple[int, int]]] = []

    async def restored(requests: Any, *_: object, **__: object) -> None:
        asked.append([(request.partition, request.end) for request in requests])
        for request in requests:
            request.store.write(
                WriteSet([(CHANGELOG_OFFSET_KEY, b"%d" % (request.end - 1)), (EPOCH_SEEN_KEY, epoch_bytes(2))])
            )

    monkeypatch.setattr(ownership, "restore", restored)
    changelog.untold = 1
    live = await claimed(owner, MemoryStore())
    assert asked == [[], [(0, 2)], []]
    assert live.ledger is not None
    assert live.ledger.position == 2
    assert live.epoch == epoch_bytes(3)


async def test_claim_of_a_replaced_owner_that_lands_late_is_followed_by_the_present_ones(
    owner: Ownership, changelog: Changelog, clock: ManualClock
) -> None:
    """Compaction keeps the last claim only: the next owner would take the present one's epoch a second time."""
    live = await claimed(owner, MemoryStore())
    changelog.add(EPOCH_KEY, claim_value(epoch_bytes(0), "replaced"))
    clock.advance(10)
    await owner.mend([live])
    assert [(record.key, record.value) for record in changelog.records[2:]] == [
        (EPOCH_KEY, claim_value(live.epoch, ""))
    ]
    clock.advance(10)
    await owner.mend([live])
    assert len(changelog.records) == 3, "it is said once"


@pytest.mark.parametrize("silent", [True, False])
async def test_no_checkpoint_waits_for_ends_that_the_brokers_cannot_tell_now(
    silent: bool, owner: Ownership, changelog: Changelog, clock: ManualClock
) -> None:
    async def nobody_knows(places: object) -> dict[tuple[str, int], int]:
        if silent:
            await asyncio.Event().wait()
        raise KafkaError("no leader")

    store = MemoryStore()
    live = await claimed(owner, store)
    store.write(WriteSet([(KEY, value(1, 7))]))
    changelog.add(KEY, value(0, 3))
    end_offsets, owner._end_offsets = owner._end_offsets, nobody_knows
    owner._settings = Settings(changelog_watch_ms=1, kafka_request_timeout_ms=20)
    clock.advance(10)
    async with asyncio.timeout(5):
        await owner.mend([live])
    assert len(changelog.records) == 2
    owner._end_offsets = end_offsets
    clock.advance(10)
    await owner.mend([live])
    assert [(record.key, record.value) for record in changelog.records[2:]] == [(KEY, value(1, 7))]
