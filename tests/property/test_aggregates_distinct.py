"""The estimate of distinct values depends on their set alone, and stays within the stated error."""

from random import Random
from types import SimpleNamespace

import pytest

from streamapp.windows.aggregate import State
from streamapp.windows.distinct import DistinctCount


def sketch_of(aggregate: DistinctCount, values: list[str]) -> State:
    state = aggregate.initial()
    for value in values:
        aggregate.add(state, SimpleNamespace(user=value), (0, -1, 0))
    return state


@pytest.mark.parametrize(
    "size", [0, 1, 150, 384, 385, 390, 5_000]
)  # 384 is where the sketch turns from a set to registers
def test_distinct_estimate_is_the_same_in_any_order_and_grouping(size: int) -> None:
    aggregate, random = DistinctCount("user"), Random(size)
    values = [f"user-{number}" for number in range(size)]
    estimates = set()
    for groups in (1, 1, 2, 5):
        random.shuffle(values)
        partials = [sketch_of(aggregate, values[start::groups]) for start in range(groups)]
        lane = [[sorted(values[start::groups])] for start in range(groups)]
        for parts in (partials, lane):
            state = aggregate.initial()
            for part in parts:
                aggregate.merge(state, part)
            assert isinstance(state[0], bytes)
            estimates.add(aggregate.result(state, None)["distinct"])
        estimates.add(aggregate.result(sketch_of(aggregate, values + values[:10]), None)["distinct"])
    assert len(estimates) == 1
    assert abs(estimates.pop() - size) <= 4 * 1.04 / 64 * size


def test_distinct_counts_are_exact_while_few() -> None:
    aggregate = DistinctCount("user")
    for size in range(200):
        state = sketch_of(aggregate, [str(number) for number in range(size)])
        assert aggregate.result(state, None) == {"distinct": size}


def test_distinct_state_stays_within_its_registers() -> None:
    aggregate = DistinctCount("user", precision=8)
    state = sketch_of(aggregate, [str(number) for number in range(3_000)])
    assert len(state[0]) <= 2**8 + 64
