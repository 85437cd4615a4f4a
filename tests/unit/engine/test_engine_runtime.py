"""What the engine does between losing partitions and getting the next ones: nothing that others could see."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from faust.types import TP

from streamapp.clock import ManualClock
from streamapp.engine.runtime import Engine
from streamapp.engine.transport import LaneConsumer
from streamapp.errors import FencedError
from streamapp.metrics import Metrics
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.service import QueryService
from streamapp.settings import Settings

TURNS = 20
TRADES, QUOTES = TP("trades", 0), TP("quotes", 0)


class Committing:
    """A consumer that commits, without a broker; the engine has these texts to tell and the lanes are so far."""

    def __init__(self, texts: dict[TP, str | None], *, lanes: dict[TP, int] | None = None, done: bool = True) -> None:
        self.texts, self.lanes, self.done = texts, lanes or {}, done
        self.made: list[dict[TP, tuple[int, str]]] = []
        self.real: Any = object.__new__(LaneConsumer)
        self.real.__dict__.update(_group_positions={}, _told={}, _acks={}, _committed_offset=defaultdict(lambda: None))
        self.real.app = self.real._thread = self.engine = self

    def commit_metadata(self, topic: str, partition: int) -> str | None:
        return self.texts[TP(topic, partition)]

    async def commit_told(self, commits: dict[TP, tuple[int, str]]) -> bool:
        self.made.append(commits)
        return self.done

    async def commit(self, offsets: dict[TP, int]) -> bool:
        return bool(await self.real._commit(offsets))

    def committable(self) -> dict[TP, int]:
        self.real._new_offset = self.lanes.get
        return dict(self.real._filter_committable_offsets(list(self.lanes)))


class NothingToTakeOver:
    """In the place of `TakeOver`, for assignments that bring nothing."""

    async def run(self, *_: Any, **__: Any) -> None: ...


class Bench:
    """An engine without tables whose checkpoints are counted; every turn of its timer is one checkpoint."""

    def __init__(self, clock: ManualClock, metrics: Metrics) -> None:
        self.clock = clock
        self.failures: list[BaseException] = []
        self.engine = Engine(
            "app", Settings(commit_interval_ms=1), metrics, on_failure=self.failures.append, clock=clock
        )
        self.engine._takeover = NothingToTakeOver()  # type: ignore[assignment]
        self.flushes = 0
        self.problem: Exception | None = None
        self.engine.flush = self._flush  # type: ignore[method-assign]
        self.engine._timer.start()

    async def _flush(self) -> None:
        self.flushes += 1
        if self.problem is not None:
            raise self.problem

    async def turns(self) -> int:
        """How many checkpoints some intervals bring."""
        before = self.flushes
        for _ in range(TURNS):
            self.clock.advance(10)
            await asyncio.sleep(0.002)
        return self.flushes - before

    def member(self) -> None:
        lease = self.engine.lease
        lease.attach()
        lease.join()
        lease.renew(self.clock.monotonic_ms())


@pytest.fixture
async def bench(clock: ManualClock, metrics: Metrics) -> AsyncIterator[Bench]:
    bench = Bench(clock, metrics)
    yield bench
    await bench.engine._timer.stop()


async def test_checkpoints_rest_between_a_revocation_and_the_next_assignment(bench: Bench) -> None:
    assert await bench.turns()
    assert await bench.engine.revoke()
    assert not await bench.turns()
    await bench.engine.assign([])
    assert await bench.turns()


@pytest.mark.parametrize("forgotten", [True, False])
async def test_member_that_is_forgotten_while_it_takes_over_joins_again_instead_of_stopping(
    bench: Bench, forgotten: bool
) -> None:
    bench.member()

    async def fenced(*_: Any, **__: Any) -> None:
        if forgotten:
            bench.engine.lease.lapse()
        raise FencedError("somebody else has it")

    assert bench.engine._takeover is not None
    bench.engine._takeover.run = fenced  # type: ignore[method-assign]
    await bench.engine.assign([])
    assert bench.engine._restoring is not None
    await asyncio.wait({bench.engine._restoring})
    await asyncio.sleep(0)
    assert [type(problem) for problem in bench.failures] == ([] if forgotten else [FencedError])


async def test_lane_that_is_stopped_while_it_waits_for_its_tools_leaves_the_others_waiting_for_them(
    bench: Bench,
) -> None:
    loading = bench.engine._loading = asyncio.get_running_loop().create_future()
    stopped, other = (asyncio.create_task(bench.engine._sources._until_room(("trades", 0))) for _ in range(2))
    await asyncio.sleep(0)
    stopped.cancel()
    await asyncio.wait({stopped})
    assert stopped.cancelled()
    assert not other.done()
    loading.set_result(None)
    await other


async def test_reads_are_refused_between_a_revocation_and_the_next_assignment(bench: Bench) -> None:
    bench.member()
    assert bench.engine.lease.valid
    assert await bench.engine.revoke()
    assert not bench.engine.lease.valid
    await bench.engine.assign([])
    assert bench.engine.lease.valid


async def test_worker_is_ready_only_while_it_answers_for_what_it_holds(bench: Bench) -> None:
    """From a revocation to the next assignment, and without an answer of the group, every read is refused."""
    reads = QueryService(
        bench.engine, FeedHealth(bench.engine.settings, clock=bench.clock), dict, lambda topic, partition: None, dict
    )

    async def assigned() -> None:
        await bench.engine.assign([])
        assert bench.engine._restoring is not None
        await bench.engine._restoring

    bench.member()
    assert not reads.worker().ready
    await assigned()
    assert reads.worker().ready
    assert await bench.engine.revoke()
    assert (reads.worker().ready, reads.worker().detail) == (False, "waiting for partitions to be assigned")
    await assigned()
    assert reads.worker().ready
    bench.clock.advance(bench.engine.settings.kafka_session_timeout_ms)
    assert not reads.worker().ready, "another worker may own what is here"
    bench.engine.lease.renew(bench.clock.monotonic_ms())
    assert reads.worker().ready


async def test_assignment_that_was_made_before_the_last_revocation_takes_nothing_over(bench: Bench) -> None:
    bench.member()
    made = bench.engine.revocations
    assert await bench.engine.revoke()
    await bench.engine.assign([], revocations=made)
    assert not bench.engine.lease.valid, "the next owner may answer already"
    assert not await bench.turns()
    await bench.engine.assign([], revocations=bench.engine.revocations)
    assert bench.engine.lease.valid
    assert await bench.turns()


async def test_revocation_that_comes_while_an_assignment_is_taken_over_ends_it(bench: Bench) -> None:
    bench.member()

    async def pause() -> None:
        assert await bench.engine.revoke()

    bench.engine.standbys.pause = pause  # type: ignore[method-assign]
    await bench.engine.assign([], revocations=bench.engine.revocations)
    assert not bench.engine.lease.valid
    assert not await bench.turns()


async def test_second_revocation_does_not_wait_for_a_lease_that_was_given_back(bench: Bench) -> None:
    bench.member()
    assert await bench.engine.revoke()
    before = bench.flushes
    assert await asyncio.wait_for(bench.engine.revoke(), 5)
    assert bench.flushes == before


async def test_forgotten_member_drops_what_it_has_and_is_not_ready_until_it_is_assigned_again(bench: Bench) -> None:
    bench.member()
    await bench.engine.assign([])
    bench.engine.lease.lapse()
    bench.problem = FencedError("lost")
    assert not await bench.engine.revoke(), "nothing of it may be committed"
    assert not bench.engine.settled
    assert not bench.failures


async def test_checkpoint_that_finds_the_partitions_lost_stops_the_timer_not_the_worker(bench: Bench) -> None:
    bench.member()
    await bench.engine.assign([])
    bench.problem = FencedError("lost")

    async def lost() -> None:
        bench.engine.lease.lapse()
        raise FencedError("lost")

    bench.engine.flush = lost  # type: ignore[method-assign]
    assert not await bench.turns()
    assert not bench.failures
    assert not bench.engine.settled


@pytest.mark.parametrize("done", [True, False])
async def test_position_is_told_only_of_commits_that_were_made(done: bool) -> None:
    """Faust notes a commit as done even where a rebalance refused it."""
    consumer = Committing({TRADES: ""}, done=done)
    assert await consumer.commit({TRADES: 7}) is done
    assert consumer.real._group_positions == ({TRADES: 7} if done else {})
    assert consumer.made == [{TRADES: (7, "")}]


async def test_commit_tells_how_far_tables_have_come_and_is_not_made_where_that_is_not_known() -> None:
    consumer = Committing({TRADES: "far", QUOTES: None})
    await consumer.commit({TRADES: 7, QUOTES: 9})
    assert consumer.made == [{TRADES: (7, "far")}]
    assert consumer.real._group_positions == {TRADES: 7}


async def test_position_that_has_not_moved_is_committed_where_there_is_more_to_tell_with_it() -> None:
    """A group that is ahead of a new re-keyed table keeps its place, and tells how far the table has come."""
    consumer = Committing({TRADES: "far", QUOTES: ""}, lanes={TRADES: 40, QUOTES: 40})
    consumer.real._group_positions = {TRADES: 100, QUOTES: 100}
    consumer.real._committed_offset.update({TRADES: 100, QUOTES: 100})
    assert consumer.committable() == {TRADES: 100}
    await consumer.commit({TRADES: 100})
    assert consumer.committable() == {}
    consumer.texts[TRADES] = "farther"
    assert consumer.committable() == {TRADES: 100}
    consumer.lanes[TRADES] = 120
    assert consumer.committable() == {TRADES: 120}
    consumer.texts[TRADES] = None
    assert consumer.committable() == {}


@pytest.mark.parametrize("revoked", ["before", "during", "never"])
async def test_seek_is_of_the_assignment_that_it_began_with(monkeypatch: pytest.MonkeyPatch, revoked: str) -> None:
    """Faust seeks some time after the assignment; the next rebalance may begin before, or while it does."""
    told: list[int] = []

    class App:
        class engine:
            revocations = 4

            @staticmethod
            async def assign(assigned: Iterable[Any], standbys: Iterable[Any], *, revocations: int) -> None:
                told.append(revocations)

        class assignor:
            assigned_standbys = staticmethod(list)

    stock = LaneConsumer.__mro__[1]
    consumer: Any = object.__new__(LaneConsumer)
    consumer.app, consumer._committed_offset = App, {}
    ended: list[str] = []

    class Thread:
        async def end_fetches(self) -> None:
            ended.append("fetches")

    consumer._thread = Thread()

    async def nothing(self: Any, *_: Any) -> None: ...

    async def seek(self: Any) -> None:
        assert ended == ["flow", "fetches"], (
            "one that waits takes from the position that is set here, and nobody expects it"
        )
        App.engine.revocations += revoked == "during"

    monkeypatch.setattr(stock, "on_partitions_assigned", nothing)
    monkeypatch.setattr(stock, "perform_seek", seek)
    monkeypatch.setattr(stock, "stop_flow", lambda self: ended.append("flow"))
    monkeypatch.setattr(LaneConsumer, "assignment", lambda self: set())
    await LaneConsumer.on_partitions_assigned(consumer, set())
    App.engine.revocations += revoked == "before"
    await LaneConsumer.perform_seek(consumer)
    assert told == [4], "the engine compares it with its own count, and takes nothing over where that has moved on"
