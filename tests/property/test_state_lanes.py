"""Whatever records hold and however they are cut into chunks, every way of merging them comes to the same."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.state import partition
from streamapp.state.batch import Applied, Batch
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.tables.market import MarketLatest, TradeStats
from streamapp.windows.aggregate import Aggregate, State
from streamapp.windows.basic import Count, Max, Mean, Min, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.distinct import DistinctCount
from streamapp.windows.edges import First, Last, LogReturn
from streamapp.windows.flow import Rate, Vwap
from streamapp.windows.named import Named
from streamapp.windows.quantiles import Quantiles
from streamapp.windows.spread import RealizedVolatility, StdDev, Variance
from tests.fakes.crashes import Event, batch, definition
from tests.fakes.lanes import Lane, use_lane

#: ways of merging, and from how many records on those that are left to the record lane are taken key by key
SINGLY: tuple[Lane, int] = ("records", 1 << 60)
OTHERS: tuple[tuple[Lane, int], ...] = (("records", 1), ("arrays", 1), ("expressions", 1 << 60))

FRACTIONS = [0.0, -0.0, 0.125, 1.0, 2.5, 3.0, 100.0]
WHOLE = [0, 1, 2, 7, (1 << 53) - 1, (1 << 53) + 1, (1 << 53) + 2, (1 << 63) - 1]
WORDS = ["buy", "buy", "sell", "", "5", "nan", "\U0001f600"]
NUMBERS: dict[str, list[Any]] = {
    "fractions": FRACTIONS,
    "no finite ones alone": [1.0, 2.5, math.nan, math.nan, math.inf, -math.inf],
    "whole ones": WHOLE,
    "of 64 bits and more": [*WHOLE, 1 << 63, 1 << 64, 1 << 70],
    "both": [2.5, 0.125, 1, (1 << 53) + 1],
}
KINDS = NUMBERS | {
    "words": WORDS,
    "booleans": [True, False],
    "all": [*FRACTIONS, *WHOLE, *WORDS, math.nan, 1 << 70, True],
    "nothing": [None],
}
#: sums of other numbers would cancel, and what is left of them tells nothing
NEGATIVE = {"fractions": [-0.125, -2.5, -100.0]}
MEMBERS = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"]
SUMMED = frozenset({"sum", "mean", "rate", "vwap", "volume", "buy_volume", "sell_volume", "variance", "stddev"})
Chunk = list[Event]
kinds = st.sampled_from(sorted(KINDS))
kinds_of_numbers = st.sampled_from(sorted(NUMBERS))


@st.composite
def streams(draw: st.DrawFn) -> list[Chunk]:
    """Chunks of records whose prices are mostly numbers of one kind, in some chunks of any other."""
    usual = draw(kinds_of_numbers)
    found = []
    for _ in range(draw(st.integers(1, 4))):
        price = draw(st.one_of(st.just(usual), kinds))
        size = draw(st.one_of(st.just("fractions"), st.just("fractions"), kinds))
        side = draw(st.one_of(st.just("words"), st.just("words"), kinds))
        nulls = [[None] if draw(st.booleans()) else [] for _ in range(3)]
        event = st.builds(
            Event,
            key=st.sampled_from("aab"),
            event_time=st.integers(0, 29),
            price=st.sampled_from([*KINDS[price], *NEGATIVE.get(price, ()), *nulls[0]]),
            size=st.sampled_from([*KINDS[size], *nulls[1]]),
            side=st.sampled_from([*KINDS[side], *nulls[2]]),
            sequence=st.integers(-1, 2),
            bid=st.just(1.0),
            ask=st.just(2.0),
        )
        found.append(draw(st.lists(event, min_size=2, max_size=20)))
    return found


PLAIN: list[Aggregate] = [
    *(kind("price") for kind in (Count, Min, Max, First, Last, LogReturn, RealizedVolatility, Sum, Mean, Variance)),
    *(kind("size") for kind in (StdDev, Rate, Quantiles, DistinctCount)),
    *(kind("side") for kind in (Min, Last, Count, DistinctCount)),
    *(Count(), Rate(), Vwap(), Candle(), Candle(side=None), TradeStats(), MarketLatest()),
]
several = st.lists(st.sampled_from(PLAIN), min_size=1, max_size=8).map(
    lambda found: Named(dict(zip(MEMBERS, found, strict=False)))
)
windows = st.sampled_from(
    [
        None,
        Tumbling(10, 0, 100_000),
        Tumbling(20, 100, 100_000),
        Hopping(20, 10, 5, 100_000),
        Hopping(20, 5, 100, 100_000),
    ]
)


def fields_of(aggregate: Aggregate, state: State, span: tuple[int, int]) -> dict[tuple[str, str], Any]:
    """What readers see, and of which aggregate it is."""
    if not isinstance(aggregate, Named):
        return {(repr(aggregate), name): value for name, value in aggregate.result(state, span).items()}
    begin, found = 0, dict[tuple[str, str], Any]()
    for name, member in aggregate.members.items():
        part = fields_of(member, state[begin : begin + member.slots], span)
        found |= {(f"{name}: {kind}", field): value for (kind, field), value in part.items()}
        begin += member.slots
    return found


def same(left: Any, right: Any, field: str, greatest: float) -> bool:
    """Alike to the last bit, but for what is a sum of floating numbers: their order and grouping differ."""
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        # deviations of large numbers are a difference of what doubles hold to 53 bits
        slack = {"variance": 1e-9 * greatest**2, "stddev": 3e-5 * greatest}.get(field, 0.0) if greatest > 1000 else 0.0
        return left == right or (field in SUMMED and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9 + slack))
    return bool(left == right) and type(left) is type(right)


def greatest_of(chunks: list[Chunk]) -> float:
    values = [value for chunk in chunks for event in chunk for value in (event.price, event.size, event.side)]
    return max((float(value) for value in values if isinstance(value, int | float) and value < math.inf), default=0.0)


def merged(
    aggregate: Aggregate, window: Any, batches: Sequence[Batch], lane: Lane, runs_from: int
) -> tuple[PartitionState, list[Applied]]:
    with pytest.MonkeyPatch.context() as patch:
        use_lane(patch, lane)
        patch.setattr(partition, "_RUNS_MIN_RECORDS", runs_from)
        state = PartitionState(definition(window, aggregate), 0, MemoryStore())
        return state, [state.apply(one) for one in batches]


def batches_of(chunks: list[Chunk]) -> list[Batch]:
    found: list[Batch] = []
    for chunk in chunks:
        found.append(batch(chunk, first=found[-1].end + 1 if found else 0))
    return found


# Generating records costs more than merging them, so each example goes through every aggregate.
@settings(max_examples=150, deadline=None)
@given(streams(), windows, several, several)
def test_all_ways_of_merging_any_values_come_to_the_same(
    stream: list[Chunk], window: Any, one: Aggregate, other: Aggregate
) -> None:
    tables = [(aggregate, window) for aggregate in [*PLAIN, one, other]]
    expected = [merged(*table, batches_of(stream), *SINGLY) for table in tables]
    greatest = greatest_of(stream)
    for lane, runs_from in OTHERS:
        shared = batches_of(stream)
        for table, (single, outcomes) in zip(tables, expected, strict=True):
            state, found = merged(*table, shared, lane, runs_from)
            for ours, theirs in zip(found, outcomes, strict=True):
                assert (ours.merged, ours.late, ours.repeated) == (theirs.merged, theirs.late, theirs.repeated)
                assert [place for place, _ in ours.failed] == [place for place, _ in theirs.failed]
            assert state.stream_times == single.stream_times
            assert [(late.offset, late.missed) for late in state.late] == [
                (late.offset, late.missed) for late in single.late
            ]
            assert {key: sorted(entries) for key, entries in state.cache.items()} == {
                key: sorted(entries) for key, entries in single.cache.items()
            }
            for key, entries in state.cache.items():
                for start, entry in entries.items():
                    twin, span = single.cache[key][start], (start, start + 20)
                    assert (entry.offsets, entry.newest) == (twin.offsets, twin.newest)
                    left, right = fields_of(table[0], entry.state, span), fields_of(table[0], twin.state, span)
                    assert left.keys() == right.keys()
                    assert [
                        (of, left[of], right[of], lane) for of in left if not same(left[of], right[of], of[1], greatest)
                    ] == []
