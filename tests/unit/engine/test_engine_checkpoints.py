"""A checkpoint becomes durable in one order, and nothing is acknowledged past a failure."""

import asyncio
import threading
from collections.abc import Collection

import orjson
import pytest

from streamapp.clock import ManualClock
from streamapp.engine import checkpoints
from streamapp.engine.checkpoints import Checkpointer
from streamapp.engine.deadletters import DeadLetters
from streamapp.engine.lane import SourceLane
from streamapp.engine.ledger import Ledger
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import FencedError, ProduceError, StateError
from streamapp.kafka.producer import OutMessage
from streamapp.metrics import Metrics
from streamapp.state.entry import CHECKPOINT_KEY, Checkpoint
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore, WriteSet
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from streamapp.windows.sessions import Session
from tests.fakes.crashes import Event, batch, definition
from tests.fakes.kafka_records import FakeProducer

TEN = Tumbling(10, 0, 1_000)


class Bench:
    """One partition of one table, one lane, and a checkpointer over them."""

    def __init__(
        self, clock: ManualClock, metrics: Metrics, window: object = TEN, *, fail_at: int | None = None
    ) -> None:
        self.producer = FakeProducer(fail_at)
        table = RunningTable(definition(window, Count()), "app", partitions=1, topic_ids=("topic-id",))  # type: ignore[arg-type]
        self.store = MemoryStore()
        self.live = LivePartition(table, 0, self.store, PartitionState(table.definition, 0, self.store))
        letters = DeadLetters(metrics, clock, value_max_bytes=100)
        self.lane = SourceLane(
            "source-0",
            0,
            [],
            dead_letters=letters,
            metrics=metrics,
            clock=clock,
            max_future_ms=1,
            max_record_bytes=1,
            queue_max_records=1,
        )
        self.checkpointer = Checkpointer(
            self.producer,  # type: ignore[arg-type]
            metrics,
            clock,
            committed=lambda topic, partition: 3,
            timeout_ms=5_000,
        )
        self.checkpointer.cluster_id = "cluster"

    def apply(self, *times: int) -> None:
        assert self.live.state is not None
        first = self.live.state.applied[0] + 1
        self.live.state.apply(batch([Event("a", time) for time in times], first=first))
        self.lane.applied = self.live.state.applied[0]

    async def flush(self) -> None:
        await self.checkpointer.flush([self.live], [self.lane])

    def kinds(self) -> list[set[str]]:
        return [{self.kind(message) for message in call} for call in self.producer.calls]

    @staticmethod
    def kind(message: OutMessage) -> str:
        if message.topic != "app-table-changelog":
            return message.topic.removeprefix("app-table-")
        if message.key == CHECKPOINT_KEY:
            return "checkpoint"
        return "value" if message.value is not None else "tombstone"


@pytest.fixture
def bench(clock: ManualClock, metrics: Metrics) -> Bench:
    return Bench(clock, metrics)


def everything(bench: Bench) -> None:
    """A dead letter, values, tombstones of a session merge, a late record, and a final record."""
    bench.lane.rejected = [OutMessage("dead-letters", b"a", b"{}")]
    bench.apply(100, 120, 110, 300, 150)


async def test_the_order_is_letters_values_tombstones_and_late_checkpoint_finals(clock: ManualClock, metrics: Metrics):
    bench = Bench(clock, metrics, Session(11, 50, 10_000))
    everything(bench)
    await bench.flush()
    assert bench.kinds() == [{"dead-letters"}, {"value"}, {"tombstone", "late"}, {"checkpoint"}, {"final"}]
    assert bench.lane.durable == bench.lane.applied == 4
    assert not bench.lane.rejected


async def test_dead_letters_of_a_lane_that_opens_while_the_checkpoint_waits_are_sent_before_what_it_fed(
    clock: ManualClock, metrics: Metrics
) -> None:
    """Restoring goes on in the background: a checkpoint that begins before a lane is there may hold its records."""
    opened: list[SourceLane] = []
    bench = Bench(clock, metrics)

    async def mend(partitions: object) -> None:
        opened.append(bench.lane)
        everything(bench)

    bench.checkpointer._mend = mend
    await bench.checkpointer.flush([bench.live], opened)
    assert bench.kinds()[:2] == [{"dead-letters"}, {"value"}]
    assert not bench.lane.rejected


@pytest.mark.parametrize("stage", range(5))
async def test_a_failure_at_any_stage_acknowledges_and_stores_nothing_then_or_later(
    stage: int, clock: ManualClock, metrics: Metrics
):
    bench = Bench(clock, metrics, Session(11, 50, 10_000), fail_at=stage)
    everything(bench)
    with pytest.raises(ProduceError):
        await bench.flush()
    assert bench.lane.durable == -1
    assert bench.store.size_bytes() == 0
    # the broker is back, and the worker stops: its last checkpoint would speak for values that were never sent
    bench.producer.fail_at = None
    bench.apply(310)
    with pytest.raises(StateError, match="start the worker again"):
        await bench.flush()
    assert len(bench.producer.calls) == stage
    assert bench.lane.durable == -1


async def test_a_store_that_refuses_acknowledges_nothing_then_or_later(bench: Bench):
    def refuse(changes: WriteSet) -> None:
        raise StateError("table", 0, "disk full")

    bench.apply(5)
    bench.store.write = refuse  # type: ignore[method-assign]
    with pytest.raises(StateError, match="disk full"):
        await bench.flush()
    with pytest.raises(StateError, match="start the worker again"):
        await bench.flush()
    assert bench.lane.durable == -1


async def test_a_checkpoint_that_is_cancelled_is_the_last_one(bench: Bench):
    reached = asyncio.Event()

    async def never(messages: object) -> list[int]:
        reached.set()
        await asyncio.Event().wait()
        return []

    bench.producer.send_all = never  # type: ignore[method-assign]
    bench.apply(5)
    task = asyncio.create_task(bench.flush())
    await reached.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(StateError, match="start the worker again"):
        await bench.flush()


@pytest.mark.parametrize(
    ("stage", "awaited"),
    list(enumerate(["dead letters", "values", "tombstones and late records", "checkpoint records", "final records"])),
)
async def test_a_checkpoint_that_takes_too_long_names_what_it_waited_for_and_the_setting(
    stage: int, awaited: str, clock: ManualClock, metrics: Metrics
):
    bench = Bench(clock, metrics, Session(11, 50, 10_000))
    everything(bench)
    bench.checkpointer._timeout_ms = 50
    send = bench.producer.send_all

    async def stalls(messages: list[OutMessage]) -> list[int]:
        if len(bench.producer.calls) == stage:
            await asyncio.Event().wait()
        return await send(messages)

    bench.producer.send_all = stalls  # type: ignore[method-assign, assignment]
    expected = rf"than 50 ms, at last it waited for \d {awaited} to be acknowledged; .* STREAMAPP_FLUSH_TIMEOUT_MS"
    with pytest.raises(StateError, match=expected):
        await bench.flush()


async def test_records_merged_while_it_runs_wait_for_the_next(bench: Bench):
    bench.apply(1, 2)
    send = bench.producer.send_all

    async def merge_meanwhile(messages: list[OutMessage]) -> list[int]:
        if messages and len(bench.producer.calls) == 0:
            bench.apply(3)
        return await send(messages)

    bench.producer.send_all = merge_meanwhile  # type: ignore[method-assign, assignment]
    await bench.flush()
    assert bench.lane.applied == 2
    assert bench.lane.durable == 1
    assert bench.live.state is not None
    assert bench.live.state.checkpoint is not None
    assert list(bench.live.state.checkpoint.offsets) == [1]
    await bench.flush()
    assert bench.lane.durable == 2


async def test_the_checkpoint_tells_where_its_offsets_are_from(bench: Bench):
    bench.apply(5, 12)
    await bench.flush()
    raw = bench.store.get(CHECKPOINT_KEY)
    assert raw is not None
    found = Checkpoint.decode(raw)
    assert (found.cluster_id, list(found.topic_ids), list(found.committed)) == ("cluster", ["topic-id"], [3])
    assert (list(found.offsets), list(found.stream_times)) == ([1], [12])
    assert raw == bench.producer.calls[1][0].value
    assert bench.live.state is not None
    assert bench.live.state.changelog_offset == 2, "two values came before"


async def test_final_and_late_records_have_an_identity_that_stays(bench: Bench):
    bench.apply(5, 12, 6)
    await bench.flush()
    bodies = {
        message.topic: orjson.loads(message.value or b"")
        for call in bench.producer.calls
        for message in call
        if message.topic.endswith(("final", "late"))
    }
    final, late = bodies["app-table-final"], bodies["app-table-late"]
    assert final == {
        "id": "table:a:0",
        "table": "table",
        "key": "a",
        "window_start": 0,
        "window_end": 10,
        "value": {"count": 1},
        "event_time": 10,
    }
    assert (late["id"], late["missed_windows"], late["watermark"]) == ("table:source-0-0-2", [0], 12)


async def test_with_nothing_new_nothing_is_sent(bench: Bench):
    await bench.flush()
    bench.apply(5)
    await bench.flush()
    calls = len(bench.producer.calls)
    await bench.flush()
    assert len(bench.producer.calls) == calls


async def test_a_large_checkpoint_writes_in_a_thread_and_keeps_house_on_the_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoints, "_WRITE_IN_THREAD_MIN", 1)
    state = bench.live.state
    assert state is not None
    write, finish = state.write_flush, state.finish_flush
    seen: dict[str, bool] = {}

    def writing(*arguments: object) -> None:
        seen["write"] = threading.current_thread() is threading.main_thread()
        write(*arguments)  # type: ignore[arg-type]

    def finishing(*arguments: object) -> None:
        seen["finish"] = threading.current_thread() is threading.main_thread()
        finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "write_flush", writing)
    monkeypatch.setattr(state, "finish_flush", finishing)
    bench.apply(5, 15)
    await bench.flush()
    assert seen == {"write": False, "finish": True}
    assert bench.lane.durable == 1


async def test_a_partition_that_is_not_restored_is_left_alone(bench: Bench):
    bench.live.state = None
    await bench.flush()
    assert not bench.producer.calls


@pytest.mark.parametrize("step", range(5))
async def test_checkpoint_ends_at_the_step_before_which_the_partitions_were_lost(
    clock: ManualClock, metrics: Metrics, step: int
) -> None:
    """Values; tombstones and late records; the checkpoint; final records; the store: none of them after the loss."""
    bench = Bench(clock, metrics)
    bench.apply(1, 25)
    passed = 0

    async def guard() -> None:
        nonlocal passed
        if passed == step:
            raise FencedError("lost")
        passed += 1

    checkpointer = bench.checkpointer
    checkpointer._guard = guard
    with pytest.raises(FencedError):
        await bench.flush()
    sent = sum(len(call) > 0 for call in bench.producer.calls)
    assert sent <= step
    assert bench.store.get(CHECKPOINT_KEY) is None
    assert bench.lane.durable == -1
    # what comes after is another owner's; and this worker's own once it has restored what is durable
    step = 99
    with pytest.raises(StateError):
        await bench.flush()
    await checkpointer.reset()
    await bench.flush()


@pytest.mark.parametrize("owned", [True, False])
async def test_a_checkpoint_whose_place_nobody_told_leaves_the_store_before_it(
    clock: ManualClock, metrics: Metrics, owned: bool
) -> None:
    bench = Bench(clock, metrics)
    send_all = bench.producer.send_all
    untold: set[bytes | None] = set()

    async def send(messages: Collection[OutMessage]) -> list[int]:
        offsets = await send_all(messages)
        return [-1 if message.key in untold else at for message, at in zip(messages, offsets, strict=True)]

    bench.producer.send_all = send  # type: ignore[method-assign]
    if owned:
        bench.live.ledger = Ledger(0)
    bench.apply(100)
    await bench.flush()
    assert bench.live.state is not None
    before = bench.live.state.changelog_offset
    assert before == 1
    untold.add(CHECKPOINT_KEY)
    bench.apply(101)
    await bench.flush()
    # its value, which stands before it, is seen where that is known to be the owner's
    assert bench.live.state.changelog_offset == (before + 1 if owned else before)
    untold.clear()
    bench.apply(102)
    await bench.flush()
    assert bench.live.state.changelog_offset == (2 if owned else 5), "until somebody has looked at the gap"
