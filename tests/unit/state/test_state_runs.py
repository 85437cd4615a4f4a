"""Taking a batch key by key comes to what taking it record by record comes to, refusals and late records included."""

from typing import Any

import numpy as np
import pytest

from streamapp.state import partition
from streamapp.state.batch import KEY_NUMBERS, KEY_TEXTS, NARROW, Applied
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.aggregate import Aggregate
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.fold import Fold
from streamapp.windows.named import Named
from tests.fakes.crashes import Event, batch, definition
from tests.unit.state.test_state_lanes import WINDOWS, assert_same_state, events

_REFUSED_TIMES = 7  # one in so many is refused


def _keep(state: list[Any], event: Event) -> list[Any]:
    return [*state, (event.event_time, event.price, event.sequence)][-20:]


def _keep_most(state: list[Any], event: Event) -> list[Any]:
    """What is kept shows whether a state was begun anew after a refusal that left traces in it."""
    state.append(event.event_time)
    if event.event_time % _REFUSED_TIMES == 0:
        raise ValueError(f"refused at {event.event_time} after {len(state)}")
    del state[:-20]
    return state


def _sometimes_unwritable(state: Any, event: Event) -> Any:
    return {event.event_time} if event.event_time % _REFUSED_TIMES == 0 else event.price


class _Places(Fold):
    """Keeps the orders that it was given."""

    looks_at_order = True

    def __init__(self) -> None:
        super().__init__([], _keep)

    add_all = Aggregate.add_all

    def add(self, state: Any, record: object, order: Any, source: int = 0) -> None:
        state[0] = [*state[0], [*order, source]][-20:]


AGGREGATES = {
    "kept": lambda: Fold([], _keep),
    "refused": lambda: Fold([], _keep_most),
    "unwritable": lambda: Fold(0.0, _sometimes_unwritable),
    "integers": lambda: Fold(0, lambda state, event: 1 << 70 if event.event_time == 8 else event.event_time),
    "of others": lambda: Named({"n": Count("side"), "kept": Fold([], _keep), "refused": Fold([], _keep_most)}),
    "orders": _Places,
}


def run(
    aggregate: Aggregate, window: Any, *, runs: bool, disorder: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[PartitionState, list[Applied], list[tuple[str, int]]]:
    monkeypatch.setattr(partition, "_RUNS_MIN_RECORDS", 1 if runs else 1 << 60)
    state = PartitionState(definition(window, aggregate, 2), 0, MemoryStore(), origins=2)
    changes: set[tuple[str, int]] = set()
    state.on_change = lambda key, start: changes.add((key, start))
    outcomes = []
    for number, origin in enumerate((0, 1, 0, 1, 0)):
        stream = events(100 * disorder + number, 150, disorder=disorder, speed=0.6)
        moved = [event._replace(event_time=event.event_time + 40 * number) for event in stream]
        outcomes.append(state.apply(batch(moved, first=state.applied[origin] + 1, origin=origin)))
    return state, outcomes, sorted(changes)


def told(outcomes: list[Applied]) -> list[Any]:
    return [
        (one.merged, one.late, one.repeated, [(at, repr(problem)) for at, problem in one.failed]) for one in outcomes
    ]


@pytest.mark.parametrize("window", [*WINDOWS, Hopping(50, 20, 0, 100_000)], ids=repr)
@pytest.mark.parametrize("aggregate", AGGREGATES.values(), ids=list(AGGREGATES))
@pytest.mark.parametrize("disorder", [0, 15, 120])
def test_key_by_key_is_as_record_by_record(aggregate: Any, window: Any, disorder: int, monkeypatch: pytest.MonkeyPatch):
    by_key = run(aggregate(), window, runs=True, disorder=disorder, monkeypatch=monkeypatch)
    by_record = run(aggregate(), window, runs=False, disorder=disorder, monkeypatch=monkeypatch)
    assert told(by_key[1]) == told(by_record[1])
    assert_same_state(by_key[0], by_record[0])
    assert by_key[0].dirty.keys() == by_record[0].dirty.keys()
    assert by_key[2] == by_record[2]


def test_a_record_that_may_be_a_repeat_is_not_taken_for_new(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partition, "_RUNS_MIN_RECORDS", 1)
    state = PartitionState(definition(Tumbling(10, 0, 1_000), Fold(0, lambda n, _: n + 1)), 0, MemoryStore())
    state.horizon[0] = 1
    state.entry("a", 0).offsets[0] = 1
    outcome = state.apply(batch([Event("a", 5)] * 3))
    assert (outcome.merged, outcome.repeated) == (1, 2)
    assert state.cache["a"][0].state == [1]


def test_a_key_with_two_numbers_is_one_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partition, "_RUNS_MIN_RECORDS", 1)
    state = PartitionState(definition(None, Fold([], _keep)), 0, MemoryStore())
    one = batch([Event("a", time) for time in (1, 2, 3)])
    one.columns[KEY_TEXTS] = ["a", "a"]  # the second one as the codec has read it
    one.columns[KEY_NUMBERS] = np.array([0, 1, 0], np.uint32)
    state.apply(one)
    assert [found[0] for found in state.cache["a"][0].state[0]] == [1, 2, 3]


@pytest.mark.parametrize(("reads", "narrow"), [((), False), (("price",), True)])
def test_narrow_records_are_taken_only_where_the_aggregate_says_what_it_reads(
    reads: tuple[str, ...], narrow: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(partition, "_RUNS_MIN_RECORDS", 1)
    asked: list[Any] = []

    def rows(names: Any, places: Any) -> None:
        asked.append((names, places.tolist()))  # and have none

    state = PartitionState(definition(None, Fold([], _keep, reads=reads)), 0, MemoryStore())
    one = batch([Event("b", 1), Event("a", 2), Event("b", 3)])
    one.columns[NARROW] = rows
    state.apply(one)
    assert asked == ([(("price",), [0, 2, 1])] if narrow else [])
    assert state.keys() == ["a", "b"]
