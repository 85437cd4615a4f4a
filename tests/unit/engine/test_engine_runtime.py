"""What the engine does between losing partitions and getting the next ones: nothing that others could see."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.engine.runtime import Engine
from streamapp.engine.transport import LaneConsumer
from streamapp.errors import FencedError
from streamapp.metrics import Metrics
from streamapp.settings import Settings

TURNS = 20


class NoCluster:
    """Answers for no partitions."""

    async def begin_offsets(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return {}

    end_offsets = begin_offsets

    async def committed(self, group: str, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int | None]:
        return {}


class Bench:
    """An engine without tables whose checkpoints are counted; every turn of its timer is one checkpoint."""

    def __init__(self, clock: ManualClock, metrics: Metrics) -> None:
        self.clock = clock
        self.failures: list[BaseException] = []
        self.engine = Engine(
            "app", Settings(commit_interval_ms=1), metrics, on_failure=self.failures.append, clock=clock
        )
        self.engine.admin = NoCluster()  # type: ignore[assignment]
        self.flushes = 0
        self.problem: Exception | None = None
        self.engine.flush = self._flush  # type: ignore[method-assign]
        self.timer = asyncio.create_task(self.engine._flush_forever())

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
    bench.timer.cancel()
    await asyncio.gather(bench.timer, return_exceptions=True)


async def test_checkpoints_rest_between_a_revocation_and_the_next_assignment(bench: Bench) -> None:
    assert await bench.turns()
    assert await bench.engine.revoke()
    assert not await bench.turns()
    await bench.engine.assign([])
    assert await bench.turns()


async def test_reads_are_refused_between_a_revocation_and_the_next_assignment(bench: Bench) -> None:
    bench.member()
    assert bench.engine.lease.valid
    assert await bench.engine.revoke()
    assert not bench.engine.lease.valid
    await bench.engine.assign([])
    assert bench.engine.lease.valid


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
async def test_position_is_told_only_of_commits_that_were_made(monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    """Faust notes a commit as done even where a rebalance refused it."""
    consumer: Any = object.__new__(LaneConsumer)
    consumer._group_positions = {}

    async def commit(self: Any, offsets: Any) -> bool:
        return done

    monkeypatch.setattr(LaneConsumer.__mro__[1], "_commit", commit)
    assert await LaneConsumer._commit(consumer, {("trades", 0): 7}) is done
    assert consumer._group_positions == ({("trades", 0): 7} if done else {})


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

    async def nothing(self: Any, *_: Any) -> None: ...

    async def seek(self: Any) -> None:
        App.engine.revocations += revoked == "during"

    monkeypatch.setattr(stock, "on_partitions_assigned", nothing)
    monkeypatch.setattr(stock, "perform_seek", seek)
    monkeypatch.setattr(LaneConsumer, "assignment", lambda self: set())
    await LaneConsumer.on_partitions_assigned(consumer, set())
    App.engine.revocations += revoked == "before"
    await LaneConsumer.perform_seek(consumer)
    assert told == [4], "the engine compares it with its own count, and takes nothing over where that has moved on"
