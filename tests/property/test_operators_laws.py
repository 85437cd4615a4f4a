"""Laws of the operators, over any values and event times."""

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.operators.baseline import against_baseline
from streamapp.operators.keyed import PerKey, per_key
from streamapp.operators.operator import Emissions, Operator, Pipe, pipe
from streamapp.operators.selecting import distinct_until_changed, filter_, map_, significant_change, threshold
from streamapp.operators.timing import debounce, throttle


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


Timed = list[tuple[int, int]]
values = st.integers(-20, 20)
loose = st.lists(st.tuples(st.integers(0, 60), values), max_size=25)
ascending = loose.map(lambda found: sorted(found, key=lambda pair: pair[0]))

OPERATORS: list[Operator] = [
    map_(lambda value: value + 1),
    filter_(lambda value: value % 3),
    distinct_until_changed(),
    significant_change(absolute=2),
    throttle(ms(5)),
    debounce(ms(4)),
    throttle(ms(2)),
    debounce(ms(1)),
]
operators = st.sampled_from(OPERATORS)


def run(operator: Operator, events: Timed, until: int = 1_000) -> Emissions:
    state, out = operator.initial(), []
    for time, value in events:
        # What is stored between two events is JSON.
        state, emitted = operator.step(json.loads(json.dumps(state)), time, value)
        out += emitted
    return out + operator.advance(state, until)[1]


@given(a=operators, b=operators, c=operators, events=loose)
def test_pipe_is_associative(a: Operator, b: Operator, c: Operator, events: Timed) -> None:
    # `Pipe` itself keeps the nesting that `pipe` lays flat.
    assert run(Pipe([Pipe([a, b]), c]), events) == run(Pipe([a, Pipe([b, c])]), events) == run(pipe(a, b, c), events)


@given(a=operators, events=ascending)
def test_pipe_with_identity_changes_nothing(a: Operator, events: Timed) -> None:
    same = map_(lambda value: value)
    assert run(pipe(a, same), events) == run(a, events) == run(pipe(same, a), events)


@given(chain=st.lists(operators, min_size=1, max_size=4), events=ascending, ticks=st.lists(st.integers(0, 60)))
def test_outputs_do_not_depend_on_when_time_alone_is_told(
    chain: list[Operator], events: Timed, ticks: list[int]
) -> None:
    operator = pipe(*chain)
    state, out = operator.initial(), []
    ticks.sort()
    position = 0
    for time, value in events:
        for tick in [tick for tick in ticks[position:] if tick <= time]:
            state, emitted = operator.advance(state, tick)
            out += emitted
            position += 1
        state, emitted = operator.step(state, time, value)
        out += emitted
    out += operator.advance(state, 1_000)[1]
    assert out == run(operator, events)


@given(chain=st.lists(operators, min_size=1, max_size=4), events=ascending)
def test_step_and_advance_leave_the_given_state_alone(chain: list[Operator], events: Timed) -> None:
    operator = pipe(*chain)
    state = operator.initial()
    for time, value in events:
        before = json.dumps(state)
        after, _ = operator.step(state, time, value)
        operator.advance(state, time + 3)
        assert json.dumps(state) == before
        state = after


@given(chain=st.lists(operators, min_size=1, max_size=4), events=ascending)
def test_outputs_come_in_order_of_time(chain: list[Operator], events: Timed) -> None:
    times = [time for time, _ in run(pipe(*chain), events)]
    assert times == sorted(times)


@given(events=loose, interval=st.integers(1, 20))
def test_throttle_outputs_are_at_least_the_interval_apart(events: Timed, interval: int) -> None:
    times = [time for time, _ in run(throttle(ms(interval)), events)]
    assert all(later - earlier >= interval for earlier, later in pairwise(times))
    assert bool(times) == bool(events)


@given(events=ascending, interval=st.integers(1, 20))
def test_throttle_drops_only_within_the_interval(events: Timed, interval: int) -> None:
    kept = run(throttle(ms(interval)), events)
    for event in events:
        assert event in kept or any(time <= event[0] < time + interval for time, _ in kept)


@given(events=ascending, quiet=st.integers(1, 20))
def test_debounce_emits_the_last_of_each_burst_once_it_was_quiet(events: Timed, quiet: int) -> None:
    ends = [
        (time + quiet, value)
        for at, (time, value) in enumerate(events)
        if at + 1 == len(events) or events[at + 1][0] - time >= quiet
    ]
    assert run(debounce(ms(quiet)), events) == ends


@given(events=loose)
def test_distinct_until_changed_never_repeats_and_keeps_the_runs(events: Timed) -> None:
    out = [value for _, value in run(distinct_until_changed(), events)]
    assert all(earlier != later for earlier, later in pairwise(out))
    assert run(distinct_until_changed(), [(0, value) for value in out]) == [(0, value) for value in out]
    assert set(out) == {value for _, value in events}


@given(events=loose, below=st.integers(-5, 0), above=st.integers(0, 5))
def test_threshold_crossings_alternate_and_lie_beyond_their_bound(events: Timed, below: int, above: int) -> None:
    crossings = [found for _, found in run(threshold(above, below), events)]
    directions = [found["crossed"] for found in crossings]
    assert all(one != other for one, other in pairwise(directions))
    assert all(found["value"] >= above if found["crossed"] == "up" else found["value"] <= below for found in crossings)


@given(events=loose, least=st.integers(1, 9))
def test_significant_change_is_never_further_from_the_input_than_its_bound(events: Timed, least: int) -> None:
    operator = significant_change(absolute=least)
    state, last = operator.initial(), None
    for time, value in events:
        state, out = operator.step(state, time, value)
        assert last is None or bool(out) == (abs(value - last) >= least)
        last = out[0][1] if out else last
        assert abs(value - last) < least


@given(found=st.lists(values, max_size=40))
def test_baseline_judges_each_value_by_those_before_it_only(found: list[int]) -> None:
    events = list(enumerate(found))
    whole = run(against_baseline(5), events)
    assert all(time >= 5 for time, _ in whole)
    for cut in range(len(found)):
        assert run(against_baseline(5), events[:cut]) == [pair for pair in whole if pair[0] < cut]


@given(events=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), values), max_size=25), operator=operators)
def test_per_key_equals_one_operator_for_each_key(events: list[tuple[str, int, int]], operator: Operator) -> None:
    events = sorted(events, key=lambda event: event[1])
    keyed = per_key(operator)
    out: list[tuple[Any, int, Any]] = []
    for key, time, value in events:
        out += keyed.step(key, time, value)
    out += keyed.advance(1_000)
    for name in "abc":
        alone = run(operator, [(time, value) for key, time, value in events if key == name])
        assert [(time, value) for key, time, value in out if key == name] == alone


@given(keys=st.lists(st.integers(0, 9), max_size=60), bound=st.integers(1, 5))
def test_per_key_holds_the_keys_used_last_and_no_more(keys: list[int], bound: int) -> None:
    keyed = PerKey(debounce(ms(500)), max_keys=bound)
    recent: list[int] = []
    for time, key in enumerate(keys):
        keyed.step(key, time, key)
        recent = [*(other for other in recent if other != key), key][-bound:]
        assert [held for held, _ in keyed.snapshot()] == recent


@pytest.mark.parametrize("cut", range(6))
def test_per_key_goes_on_from_a_snapshot(cut: int) -> None:
    events = [("a", 0, 1), ("b", 1, 2), ("a", 2, 3), ("b", 9, 4), ("c", 11, 5)]
    whole, first, second = (per_key(debounce(ms(5))) for _ in range(3))
    expected = [emission for event in events for emission in whole.step(*event)] + whole.advance(100)
    out = [emission for event in events[:cut] for emission in first.step(*event)]
    second.restore(first.snapshot(), first.time_ms)
    out += [emission for event in events[cut:] for emission in second.step(*event)] + second.advance(100)
    assert out == expected
