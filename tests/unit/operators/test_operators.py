from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from streamapp.errors import ConfigurationError
from streamapp.operators.baseline import against_baseline
from streamapp.operators.keyed import apply, per_key
from streamapp.operators.operator import Emissions, Operator, pipe
from streamapp.operators.selecting import distinct_until_changed, filter_, map_, significant_change, threshold
from streamapp.operators.timing import debounce, throttle


def run(operator: Operator, *events: tuple[int, Any]) -> Emissions:
    state, out = operator.initial(), []
    for time, value in events:
        state, emitted = operator.step(state, time, value)
        out += emitted
    return out


def outputs(operator: Operator, *values: Any) -> list[Any]:
    return [value for _, value in run(operator, *enumerate(values))]


def test_threshold_ignores_dips_above_its_lower_bound() -> None:
    crossings = outputs(threshold(above=8, below=3), 1, 5, 9, 6, 9, 2, 5)
    assert crossings == [{"crossed": "up", "value": 9}, {"crossed": "down", "value": 2}]


def test_threshold_first_value_is_no_crossing() -> None:
    assert outputs(threshold(above=8), 9) == []
    assert outputs(threshold(above=8), 9, 7) == [{"crossed": "down", "value": 7}]


def test_significant_change_compares_with_what_was_emitted_last() -> None:
    assert outputs(significant_change(absolute=3), 100, 101, 103, 104, 110) == [100, 103, 110]
    assert outputs(significant_change(relative=0.1), 100, 109, 110, 120, 121) == [100, 110, 121]
    assert outputs(significant_change(relative=0.1), 0, 0, 1e-9) == [0, 1e-9]


def test_operators_compare_by_the_number_they_are_told() -> None:
    rows = [{"p": 1}, {"p": 1}, {"p": 9}]
    assert outputs(distinct_until_changed(by=lambda row: row["p"]), *rows) == [{"p": 1}, {"p": 9}]
    assert outputs(significant_change(absolute=5, by=lambda row: row["p"]), *rows) == [{"p": 1}, {"p": 9}]
    assert outputs(threshold(5, by=lambda row: row["p"]), *rows) == [{"crossed": "up", "value": {"p": 9}}]


def test_distinct_until_changed_passes_a_first_none() -> None:
    assert outputs(distinct_until_changed(), None, None, 1) == [None, 1]


def test_throttle_passes_the_first_of_each_interval() -> None:
    events = [(0, "a"), (1, "b"), (3, "c"), (4, "d"), (6, "e")]
    assert run(throttle(timedelta(milliseconds=3)), *events) == [(0, "a"), (3, "c"), (6, "e")]


def test_debounce_emits_at_the_due_time_and_drops_older_values() -> None:
    operator = debounce(timedelta(milliseconds=2))
    assert run(operator, (0, "a"), (1, "b"), (0, "late"), (5, "c")) == [(3, "b")]
    state, _ = operator.step(operator.initial(), 5, "c")
    assert operator.due(state) == 7
    assert operator.advance(state, 6) == (state, [])
    assert operator.advance(state, 9) == (None, [(7, "c")])


def test_pipe_feeds_due_outputs_at_their_due_time() -> None:
    # "a" is due at 2, so the throttle's interval runs from 2 and lets "b", due at 7, pass; from 9 it would not.
    chain = pipe(debounce(timedelta(milliseconds=2)), throttle(timedelta(milliseconds=5)))
    state, _ = chain.step(chain.initial(), 0, "a")
    state, first = chain.step(state, 5, "b")
    _, second = chain.advance(state, 9)
    assert first + second == [(2, "a"), (7, "b")]
    assert (map_(abs) | filter_(bool)).step([None, None], 3, -2) == ([None, None], [(3, 2)])


def test_baseline_judges_once_it_is_full_and_then_takes_the_value_in() -> None:
    judged = outputs(against_baseline(5), 3, 4, 3, 4, 3, 9, 3)
    assert [round(one["z"], 1) for one in judged] == [10.2, -0.6]
    assert judged[0] == {
        "z": pytest.approx(10.2242, abs=1e-4),
        "value": 9,
        "mean": 3.4,
        "stddev": pytest.approx(0.5477, abs=1e-4),
        "of": 9,
    }


def test_baseline_that_is_flat_but_for_rounding_gives_nothing() -> None:
    assert outputs(against_baseline(3), 0.1, 0.1, 0.1, 0.1, 5.0) == []
    assert outputs(against_baseline(3), 0.3, 0.1 + 0.2, 0.3, 5.0) == []
    assert outputs(against_baseline(2), None, 1.0, float("nan"), 2.0, 5.0)[0]["mean"] == 1.5


@pytest.mark.parametrize(
    "construct",
    [
        lambda: threshold(1, 2),
        lambda: significant_change(),
        lambda: significant_change(absolute=0),
        lambda: throttle(5),  # type: ignore[arg-type]
        lambda: debounce(timedelta(0)),
        lambda: against_baseline(1),
        lambda: pipe(),
        lambda: pipe(abs),  # type: ignore[arg-type]
        lambda: per_key(map_(abs), max_keys=0),
    ],
)
def test_operators_refuse_parameters_that_make_no_sense(construct: Any) -> None:
    with pytest.raises(ConfigurationError):
        construct()


def test_per_key_time_of_one_key_releases_what_is_due_on_another() -> None:
    keyed = per_key(debounce(timedelta(milliseconds=2)))
    assert keyed.step("a", 0, 1) == []
    assert keyed.step("b", 5, 2) == [("a", 2, 1)]
    assert keyed.advance(7) == [("b", 7, 2)]


def test_per_key_forgets_the_key_unused_for_longest_and_counts_it() -> None:
    keyed = per_key(distinct_until_changed(), max_keys=2)
    for key in "abac":
        keyed.step(key, 0, 1)
    assert [key for key, _ in keyed.snapshot()] == ["a", "c"]
    assert (len(keyed), keyed.evicted) == (2, 1)


def test_per_key_pending_times_do_not_outgrow_the_keys() -> None:
    keyed = per_key(debounce(timedelta(hours=1)), max_keys=3)
    for time in range(5_000):
        keyed.step(time % 5, time, time)
    assert len(keyed._due) <= 2 * 3 + 65


async def test_apply_runs_each_key_on_its_own_in_the_order_of_the_stream() -> None:
    async def stream() -> AsyncIterator[dict[str, Any]]:
        for at, (key, price) in enumerate([("a", 1), ("b", 1), ("a", 1), ("b", 2)]):
            yield {"key": key, "time": at, "price": price}

    found = [
        emission
        async for emission in apply(
            distinct_until_changed(),
            stream(),
            key=lambda item: item["key"],
            time=lambda item: item["time"],
            value=lambda item: item["price"],
        )
    ]
    assert found == [("a", 0, 1), ("b", 1, 1), ("b", 3, 2)]


async def test_apply_without_a_key_treats_the_stream_as_one() -> None:
    async def stream() -> AsyncIterator[int]:
        for item in (1, 1, 2):
            yield item

    assert [value async for _, _, value in apply(distinct_until_changed(), stream(), time=lambda item: 0)] == [1, 2]
