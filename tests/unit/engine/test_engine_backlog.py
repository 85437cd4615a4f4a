"""How much may be changed before a checkpoint has made it durable."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamapp.engine import backlog as module
from streamapp.engine.backlog import Backlog

LARGE = 10_000
PLACES = [("trades", partition) for partition in range(3)]


@dataclass
class State:
    """Entries of one byte each."""

    pending_bytes: int = 0
    changes: int = 0
    entry_bytes: int = 1
    behind: bool = False


@dataclass
class Lane:
    offered: int = 0
    queued: int = 0


@dataclass
class Bench:
    bound: int
    state: State = field(default_factory=State)
    lanes: dict[tuple[str, int], Lane] = field(default_factory=lambda: {place: Lane() for place in PLACES})

    def __post_init__(self) -> None:
        lanes: dict[tuple[str, int], Any] = self.lanes
        states: list[Any] = [self.state]
        self.backlog = Backlog(lambda: states, lanes, self.bound // 2)
        for lane in self.lanes.values():
            lane.offered = lane.queued = 10 * LARGE

    def ask(self, number: int, records: int = LARGE) -> "asyncio.Task[None]":
        return asyncio.create_task(self.backlog.until_room(PLACES[number], records))

    def merge(self, number: int, changes: int, records: int = LARGE) -> None:
        self.lanes[PLACES[number]].queued -= records
        self.state.changes += changes
        self.state.pending_bytes += changes

    def flush(self) -> None:
        self.state.pending_bytes = 0
        self.backlog.flushed()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to go on at once must not depend on looking again after a while."""
    monkeypatch.setattr(module, "_LOOK_S", 3_600.0)


async def test_large_chunks_begin_one_after_another_where_each_record_changes_a_window():
    bench = Bench(bound=int(2.5 * LARGE))
    first, second, third = (bench.ask(number) for number in range(3))
    await turns()
    assert [task.done() for task in (first, second, third)] == [True, True, False]
    bench.merge(0, LARGE)
    again = bench.ask(0)
    await turns()
    assert not third.done(), "what the second is about to change has no room beside it"
    bench.merge(1, LARGE)
    last = bench.ask(1)
    bench.flush()
    await turns()
    assert [task.done() for task in (third, again, last)] == [True, True, False], "whoever asked first goes first"
    last.cancel()


async def test_large_chunks_begin_together_where_records_change_what_is_changed_already():
    bench = Bench(bound=LARGE)
    for _ in range(8):
        await asyncio.wait_for(bench.ask(0), 1)
        bench.merge(0, 1)
    tasks = [bench.ask(number) for number in range(3)]
    await turns()
    assert all(task.done() for task in tasks)


async def test_a_chunk_that_nobody_else_is_beside_begins_however_large():
    bench = Bench(bound=100)
    await asyncio.wait_for(bench.ask(0), 1)
    bench.merge(0, 100)
    await asyncio.wait_for(bench.ask(0), 1)


@pytest.mark.parametrize("records", [1, LARGE])
async def test_no_chunk_begins_while_too_much_waits_for_a_checkpoint(records: int):
    bench = Bench(bound=100)
    bench.state.pending_bytes = 101
    assert bench.backlog.overfull
    task = bench.ask(0, records)
    bench.backlog.flushed()  # of something else
    await turns()
    assert not task.done()
    bench.flush()
    await asyncio.wait_for(task, 1)


async def test_small_chunks_wait_for_no_large_one():
    bench = Bench(bound=LARGE)
    await asyncio.wait_for(bench.ask(0), 1)
    waits = bench.ask(1)
    await asyncio.wait_for(bench.ask(2, 10), 1)
    await turns()
    assert not waits.done()
    waits.cancel()


async def test_who_waits_and_is_stopped_leaves_the_others_in_the_line():
    bench = Bench(bound=LARGE)
    await asyncio.wait_for(bench.ask(0), 1)
    stopped, other = bench.ask(1), bench.ask(2)
    await turns()
    stopped.cancel()
    bench.merge(0, LARGE)
    bench.flush()
    await asyncio.wait_for(other, 1)
    assert stopped.cancelled()


async def test_a_lane_that_has_done_its_last_chunk_holds_nobody_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    bench = Bench(bound=LARGE)
    await asyncio.wait_for(bench.ask(0), 1)
    second = bench.ask(1)
    await turns()
    assert not second.done()
    bench.merge(0, 0)  # and asks for nothing more
    await asyncio.wait_for(second, 1)


async def test_a_lane_that_is_gone_holds_nobody_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    bench = Bench(bound=LARGE)
    await asyncio.wait_for(bench.ask(0), 1)
    second = bench.ask(1)
    await turns()
    assert not second.done()
    del bench.lanes[PLACES[0]]
    await asyncio.wait_for(second, 1)


async def test_a_lane_that_has_come_back_is_not_taken_for_the_one_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    bench = Bench(bound=LARGE)
    bench.lanes[PLACES[0]].queued = bench.lanes[PLACES[0]].offered
    await asyncio.wait_for(bench.ask(0), 1)
    bench.lanes[PLACES[0]] = Lane()  # stopped in its first chunk; another worker has done the rest meanwhile
    await asyncio.wait_for(bench.ask(1), 1)


async def test_a_checkpoint_is_urgent_from_its_bound_on_and_where_one_is_behind():
    bench = Bench(bound=200)
    bench.state.pending_bytes = 100
    assert not bench.backlog.urgent
    bench.state.behind = True
    assert bench.backlog.urgent
    bench.state.behind = False
    bench.state.pending_bytes = 101
    assert bench.backlog.urgent
    assert not bench.backlog.overfull
