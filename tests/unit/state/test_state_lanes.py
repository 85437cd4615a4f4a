"""The record lane and both ways of the column lane come to the same, whatever the batch."""

import gc
import math
import random
import weakref
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest

from streamapp.state import grouping, lanes, partition
from streamapp.state.batch import Applied, Batch
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.tables.market import MarketLatest, TradeStats
from streamapp.windows.aggregate import Aggregate
from streamapp.windows.basic import Count, Max, Mean, Min, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.distinct import DistinctCount
from streamapp.windows.edges import First, Last, LogReturn
from streamapp.windows.fold import Fold
from streamapp.windows.named import Named
from streamapp.windows.quantiles import Quantiles
from streamapp.windows.sessions import Session
from streamapp.windows.spread import RealizedVolatility, StdDev, parkinson
from tests.fakes.crashes import Event, batch, definition
from tests.fakes.lanes import Lane, use_lane

WINDOWS = [
    Tumbling(10, 0, 100_000),
    Tumbling(50, 30, 100_000),
    Hopping(60, 20, 10, 100_000),
    Hopping(50, 15, 0, 100_000),
    None,
]
#: expressions last: that arrays do not do cannot be taken back within a test
LANES: tuple[Lane, ...] = ("records", "arrays", "expressions")
AGGREGATES: list[Aggregate] = [
    Candle(),
    TradeStats(),
    Named({"n": Count(), "with_side": Count("side"), "sum": Sum("size"), "low": Min("price"), "high": Max("price")}),
    Named({"first": First("price"), "last": Last("price"), "q": Quantiles("price"), "d": DistinctCount("side")}),
]


def events(seed: int, count: int, *, disorder: int, speed: float = 1.0) -> list[Event]:
    """Times that advance and wander back; many ties in time and in sequence."""
    chance = random.Random(seed)
    return [
        Event(
            chance.choice("abcde"),
            max(0, int(index * speed) - chance.randrange(disorder + 1)),
            chance.randrange(1, 1_000) / 7,
            chance.randrange(0, 1_000) / 11,
            chance.choice(["buy", "sell", None]),
            chance.choice([-1, 1, 2, 3]),
        )
        for index in range(count)
    ]


def run(
    aggregate: Aggregate, window: Any, batches: list[Batch], *, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> tuple[PartitionState, list[Applied]]:
    use_lane(monkeypatch, lane)
    state = PartitionState(definition(window, aggregate), 0, MemoryStore())
    return state, [state.apply(one) for one in batches]


def assert_alike(left: Any, right: Any) -> None:
    if isinstance(left, float) and isinstance(right, float):
        assert math.isnan(left) == math.isnan(right)
        assert math.isnan(left) or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for name in left:
            assert_alike(left[name], right[name])
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_alike(one, other)
    else:
        assert left == right


def assert_same_state(one: PartitionState, other: PartitionState) -> None:
    assert one.cache.keys() == other.cache.keys()
    for key, windows in one.cache.items():
        assert windows.keys() == other.cache[key].keys()
        for start, entry in windows.items():
            twin = other.cache[key][start]
            assert (entry.offsets, entry.newest) == (twin.offsets, twin.newest)
            span = (start, start + 1)
            assert_alike(one.aggregate.result(entry.state, span), other.aggregate.result(twin.state, span))
    assert one.stream_times == other.stream_times
    assert one.applied == other.applied
    assert one.late == other.late
    assert one.open == other.open


@pytest.mark.parametrize("window", WINDOWS, ids=repr)
@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda aggregate: aggregate.kind)
@pytest.mark.parametrize("disorder", [0, 15, 120])
@pytest.mark.parametrize("lane", ["expressions", "arrays"])
def test_all_lanes_come_to_the_same(
    lane: Lane, aggregate: Aggregate, window: Any, disorder: int, monkeypatch: pytest.MonkeyPatch
):
    stream = events(disorder, 700, disorder=disorder, speed=0.4)
    batches = [batch(stream[first : first + 350], first=first) for first in (0, 350)]
    fast, fast_outcomes = run(aggregate, window, batches, lane=lane, monkeypatch=monkeypatch)
    monkeypatch.undo()
    slow, slow_outcomes = run(aggregate, window, batches, lane="records", monkeypatch=monkeypatch)
    assert fast_outcomes == slow_outcomes
    assert_same_state(fast, slow)


@pytest.mark.parametrize("aggregate", [one for one in AGGREGATES if one.reductions(0) is not None], ids=repr)
@pytest.mark.parametrize("window", [one for one in WINDOWS if one is None or one.grace_ms], ids=repr)
def test_arrays_do_without_expressions_and_without_single_records(
    aggregate: Aggregate, window: Any, monkeypatch: pytest.MonkeyPatch
):
    for other in ("_by_expressions", "merge_records"):
        module = grouping if other == "_by_expressions" else lanes
        monkeypatch.setattr(module, other, lambda *_: pytest.fail("arrays were not enough"))
    grouped, [outcome] = run(
        aggregate, window, [batch(events(1, 300, disorder=9))], lane="arrays", monkeypatch=monkeypatch
    )
    assert outcome == Applied(merged=300)
    assert sorted(grouped.cache) == list("abcde")


@pytest.mark.parametrize("lane", ["expressions", "arrays"])
@pytest.mark.parametrize("aggregate", AGGREGATES, ids=repr)
def test_a_chunk_goes_with_the_last_that_holds_it(lane: Lane, aggregate: Aggregate, monkeypatch: pytest.MonkeyPatch):
    class Records(list[Any]):
        """A list that can be referred to weakly."""

    one = batch(events(1, 300, disorder=9))
    one.records = records = Records(one.records)
    alive = weakref.ref(records)
    gc.disable()  # a worker's collector comes after millions of records
    try:
        run(aggregate, Tumbling(50, 30, 100_000), [one], lane=lane, monkeypatch=monkeypatch)
        del one, records
        assert alive() is None
    finally:
        gc.enable()


def test_one_record_less_is_taken_singly(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    monkeypatch.setattr(
        partition, "merge_columns", lambda _state, one, _first, _outcome: asked.append(len(one.offsets))
    )
    least = lanes.ARRAYS_MIN_RECORDS
    for count in (least - 1, least):
        state = PartitionState(definition(Hopping(60, 20, 10, 1_000), Candle()), 0, MemoryStore())
        assert state.apply(batch(events(1, count, disorder=0))).merged == count
    assert asked == [least]


@pytest.mark.parametrize("window", [Tumbling(10, 0, 100_000), Hopping(20, 10, 0, 100_000)], ids=repr)
@pytest.mark.parametrize("aggregate", [Candle(), Fold(0, lambda state, _: state + 1)], ids=lambda one: one.kind)
def test_the_windows_of_a_pane_are_looked_up_once_for_all_keys(
    aggregate: Aggregate, window: Any, monkeypatch: pytest.MonkeyPatch
):
    use_lane(monkeypatch, "arrays")
    asked: list[int] = []
    starts_for = type(window).starts_for
    monkeypatch.setattr(type(window), "starts_for", lambda own, time: asked.append(time) or starts_for(own, time))
    state = PartitionState(definition(window, aggregate), 0, MemoryStore())
    assert state.apply(batch([Event(key, time) for time in (3, 14) for key in "abcdefgh" * 5])).merged == 80
    assert sorted(asked) == [0, 10]
    assert [sorted(windows) for windows in state.cache.values()] == [[0, 10]] * 8


def test_all_lanes_agree_on_two_sources_of_one_value(monkeypatch: pytest.MonkeyPatch):
    found = []
    for lane in LANES:
        use_lane(monkeypatch, lane, 2)
        state = PartitionState(definition(None, MarketLatest(), 2), 0, MemoryStore(), origins=2)
        for origin in (0, 1, 0):
            first = state.applied[origin] + 1
            state.apply(batch(events(origin, 300, disorder=20), first=first, origin=origin))
        found.append(state)
    for other in found[1:]:
        assert_same_state(found[0], other)


def test_tables_that_share_a_batch_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch):
    windows = [Tumbling(10, 50, 100_000), Tumbling(50, 50, 100_000), Hopping(60, 20, 50, 100_000), None]
    for aggregate in AGGREGATES:
        for order in (windows, windows[::-1]):
            stream = events(3, 400, disorder=40)
            shared = batch(stream)
            for window in order:
                mine, _ = run(aggregate, window, [shared], lane="arrays", monkeypatch=monkeypatch)
                mine.apply(batch(events(4, 300, disorder=40), first=400))  # must not write into what others share
                alone, _ = run(aggregate, window, [batch(stream)], lane="records", monkeypatch=monkeypatch)
                alone.apply(batch(events(4, 300, disorder=40), first=400))
                assert_same_state(mine, alone)


def test_a_record_late_for_one_hopping_window_does_not_set_another_back(monkeypatch: pytest.MonkeyPatch):
    use_lane(monkeypatch, "arrays", 3)
    state = PartitionState(definition(Hopping(20, 10, 0, 100_000), Candle()), 0, MemoryStore())
    # offset 1 is late for the window at 0 and counts in the one at 10, where offset 2 counts too
    state.apply(batch([Event("a", 20), Event("a", 12), Event("a", 21)]))
    assert state.cache["a"][10].offsets == [2]
    assert [(late.offset, late.missed) for late in state.late] == [(1, (0,))]


def test_numbers_that_a_column_cannot_hold_take_the_record_lane(monkeypatch: pytest.MonkeyPatch):
    huge = [Event("a", 5, size=2.0, sequence=-1)] * 300
    one = batch(huge)
    one.sequences = [1 << 70] * 300
    state, [outcome] = run(Sum("size"), Tumbling(10), [one], lane="arrays", monkeypatch=monkeypatch)
    assert outcome.merged == 300
    assert state.cache["a"][0].state == [600.0]


@pytest.mark.parametrize("lane", LANES)
def test_sequences_at_both_ends_of_their_range_are_in_order(lane: Lane, monkeypatch: pytest.MonkeyPatch):
    least, greatest = -(1 << 63), (1 << 63) - 1
    two = batch([Event("a", 5, 1.0, sequence=greatest), Event("a", 5, 2.0, sequence=least)])
    state, _ = run(
        Named({"first": First("price"), "last": Last("price")}), None, [two], lane=lane, monkeypatch=monkeypatch
    )
    assert state.cache["a"][0].state == [2.0, 5, least, 1, 1.0, 5, greatest, 0]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "prices", [[5.0, 1.0, math.nan, 9.0], [math.nan, 5.0, 9.0, 1.0], [math.nan] * 3 + [9.0]], ids=repr
)
@pytest.mark.parametrize("lane", LANES)
def test_what_is_not_a_number_hides_no_extreme(
    lane: Lane, prices: list[float], cut: int, monkeypatch: pytest.MonkeyPatch
):
    all_of_them = Named(
        {"low": Min("price"), "high": Max("price"), "c": Candle(), "s": TradeStats(), "v": RealizedVolatility("price")}
    )
    events = [Event("a", 5, price) for price in prices]
    batches = [batch(events[:cut]), batch(events[cut:], first=cut)]
    state, _ = run(all_of_them, None, batches, lane=lane, monkeypatch=monkeypatch)
    result = all_of_them.result(state.cache["a"][0].state, None)
    low, high = min(price for price in prices if price == price), 9.0
    assert (result["low"], result["c_low"], result["s_min"]) == (low, low, low)
    assert (result["high"], result["c_high"], result["s_max"]) == (high, high, high)
    assert result["v"] == result["s_volatility"] == parkinson(high, low)
    assert result["s_mean"] is None


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("together", [True, False])
def test_what_is_not_a_number_hides_no_extreme_that_comes_later(
    lane: Lane, together: bool, monkeypatch: pytest.MonkeyPatch
):
    one, two = [Event("a", 5, math.nan)], [Event("a", 5, price) for price in (1.0, 9.0)]
    batches = [batch(one + two)] if together else [batch(one), batch(two, first=1)]
    extremes = Named({"low": Min("price"), "high": Max("price"), "range": RealizedVolatility("price")})
    state, _ = run(extremes, None, batches, lane=lane, monkeypatch=monkeypatch)
    assert state.cache["a"][0].state == [1.0, 9.0, 9.0, 1.0]


def test_whole_numbers_do_not_wrap_around_in_columns(monkeypatch: pytest.MonkeyPatch):
    nano: list[Any] = [Event("a", 5, 6_500_000_000_000, 100_000_000, "buy")] * 300
    state, _ = run(Candle(), Tumbling(10), [batch(nano)], lane="arrays", monkeypatch=monkeypatch)
    result = Candle().result(state.cache["a"][0].state, (0, 10))
    assert result["vwap"] == pytest.approx(6.5e12)
    stats, _ = run(TradeStats(), Tumbling(10), [batch(nano)], lane="arrays", monkeypatch=monkeypatch)
    assert TradeStats().result(stats.cache["a"][0].state, (0, 10))["vwap"] == pytest.approx(6.5e12)


@pytest.mark.parametrize("lane", LANES)
def test_mean_of_prices_whose_sum_is_beyond_a_double_is_told(lane: Lane, monkeypatch: pytest.MonkeyPatch):
    greatest = [Event("a", time, price, 0.0) for time, price in enumerate((1.5e308, 1e308, 1.7e308))]
    both = [batch(greatest), batch(greatest[:1], first=3)]
    state, _ = run(TradeStats(), None, both, lane=lane, monkeypatch=monkeypatch)
    result = state.aggregate.result(state.cache["a"][0].state, None)
    assert result["mean"] == pytest.approx(1.425e308)


def test_text_where_a_number_is_meant_fails_the_same_in_all_lanes(monkeypatch: pytest.MonkeyPatch):
    wrong: list[Any] = [Event("a", 5, "5", 1.0)] * 300
    for lane in LANES:
        state, [outcome] = run(Candle(), Tumbling(10), [batch(wrong)], lane=lane, monkeypatch=monkeypatch)
        assert len(outcome.failed) == 300
        assert not state.cache
    for lane in LANES:
        for aggregate in (Sum("price"), RealizedVolatility("price"), LogReturn("price")):
            _, [outcome] = run(aggregate, Tumbling(10), [batch(wrong)], lane=lane, monkeypatch=monkeypatch)
            assert len(outcome.failed) == 300


@pytest.mark.parametrize("values", [["5", "word"], ["word", None, "5"], [1.0, "word", 3.0], [True, False]], ids=repr)
@pytest.mark.parametrize("lane", LANES)
def test_what_takes_numbers_alone_refuses_other_values_whatever_shares_its_batch(
    values: list[Any], lane: Lane, monkeypatch: pytest.MonkeyPatch
):
    any_values = [Named({"high": Max("price"), "low": Min("price")}), Named({"a": First("price"), "z": Last("price")})]
    numbers_alone = [Named({"range": RealizedVolatility("price")}), Named({"change": LogReturn("price")})]
    some = [Event("a", 5, value) for value in values * 20]
    shared = batch(some)
    for aggregate in any_values:
        run(aggregate, None, [shared], lane=lane, monkeypatch=monkeypatch)
    for aggregate in [*numbers_alone, RealizedVolatility("price"), LogReturn("price")]:
        fast, [outcome] = run(aggregate, None, [shared], lane=lane, monkeypatch=monkeypatch)
        slow, [expected] = run(aggregate, None, [batch(some)], lane="records", monkeypatch=monkeypatch)
        assert [place for place, _ in outcome.failed] == [place for place, _ in expected.failed]
        assert_same_state(fast, slow)


@pytest.mark.parametrize("lane", LANES)
def test_whole_numbers_are_doubles_where_numbers_alone_are_taken(lane: Lane, monkeypatch: pytest.MonkeyPatch):
    some: list[Any] = [Event("a", 5, (1 << 53) + 1), Event("a", 5, 1)]
    both = Named({"range": RealizedVolatility("price"), "change": LogReturn("price")})
    state, _ = run(both, None, [batch(some)], lane=lane, monkeypatch=monkeypatch)
    values = [value for value in state.cache["a"][0].state if isinstance(value, float)]
    assert values == [float(1 << 53), 1.0, float(1 << 53), 1.0]


@pytest.mark.parametrize("window", [None, Tumbling(10, 5, 100_000), Hopping(20, 10, 0, 100_000)], ids=repr)
@pytest.mark.parametrize("aggregate", [Min("price"), Named({"n": Count(), "high": Max("price")})], ids=repr)
def test_values_of_another_type_than_those_before_are_refused_in_all_lanes(
    window: Any, aggregate: Aggregate, monkeypatch: pytest.MonkeyPatch
):
    numbers = [Event("a", 5), Event("c", 15)] * 20
    words: list[Any] = [Event(key, time, "word") for key in "abc" for time in (24, 4, 12, 6)]
    mixed = [batch(numbers), batch(words, first=len(numbers))]
    found = [run(aggregate, window, mixed, lane=lane, monkeypatch=monkeypatch) for lane in LANES]
    places = [[[place for place, _ in one.failed] for one in outcomes] for _, outcomes in found]
    assert places[0][1]
    for (state, outcomes), failed in zip(found[1:], places[1:], strict=True):
        assert failed == places[0]
        assert [(one.merged, one.late) for one in outcomes] == [(one.merged, one.late) for one in found[0][1]]
        assert_same_state(found[0][0], state)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("window", [None, Tumbling(10, 5, 100_000), Hopping(20, 10, 0, 100_000)], ids=repr)
def test_records_without_a_value_count_beside_those_whose_value_is_of_another_type(
    window: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch
):
    counted = Named({"n": Count(), "least": Min("side")})
    some = [
        Event("a", 12, side="word"),
        *(Event("a", 13 + place, side=side) for place, side in enumerate([7, None, 8])),
    ]
    batches = [batch(some[:1]), batch(some[1:], first=1)]
    state, [_, outcome] = run(counted, window, batches, lane=lane, monkeypatch=monkeypatch)
    assert (outcome.merged, [place for place, _ in outcome.failed]) == (1, [0, 2])
    for entry in state.cache["a"].values():
        assert (entry.state, entry.offsets, entry.newest) == ([2, "word"], [2], 14)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "prices", [[2.5, (1 << 53) + 1], [1, True], [1.0, True], [1 << 63, 1], [2.5, None, 1]], ids=repr
)
def test_values_stay_of_their_type_in_all_lanes(prices: list[Any], lane: Lane, monkeypatch: pytest.MonkeyPatch):
    edges = Named({"first": First("price"), "last": Last("price"), "high": Max("price"), "n": DistinctCount("price")})
    some = [batch([Event("a", 5, price)] * 2, first=2 * place) for place, price in enumerate(prices)]
    mixed = batch([Event("a", 5, price) for price in prices for _ in range(2)])
    found, _ = run(edges, None, [mixed], lane=lane, monkeypatch=monkeypatch)
    singly, _ = run(edges, None, some, lane="records", monkeypatch=monkeypatch)
    result, expected = (edges.result(state.cache["a"][0].state, None) for state in (found, singly))
    assert [*map(repr, result.values())] == [*map(repr, expected.values())]


class Colour(str, Enum):  # noqa: UP042 - as models of before StrEnum have them
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Shape(Enum):
    ROUND = "round"
    FLAT = "flat"


OTHER_TYPES: dict[str, Callable[[int], Any]] = {
    "decimal": lambda number: Decimal(number) / 4,
    "date": lambda number: date(2026, 1, number + 1),
    "datetime": lambda number: datetime(2026, 1, number + 1, tzinfo=UTC),
    "naive datetime": lambda number: datetime(2026, 1, number + 1),  # noqa: DTZ001 - pydantic reads such
    "timedelta": lambda number: timedelta(seconds=number + 1),
    "identifier": lambda number: UUID(int=number),
    "enum of text": lambda number: list(Colour)[number % 2],
    "enum of numbers": lambda number: list(Level)[number % 2],
    "enum": lambda number: list(Shape)[number % 2],
    "list": lambda number: [number],
    "tuple": lambda number: (number, 1),
    "mapping": lambda number: {"a": number},
    "bytes": lambda number: b"%d" % number,
    "truth": lambda number: number % 2 == 0,
    "whole numbers and others": lambda number: (1.5, 2, (1 << 53) + 1)[number % 3],
    "whole numbers beyond 64 bits": lambda number: (1 << 63) + number,
    "nothing at first": lambda number: None if number < 20 else number,
    "not a number": lambda number: math.nan if number < 26 else float(number),
}


@pytest.mark.parametrize("made", OTHER_TYPES.values(), ids=OTHER_TYPES)
@pytest.mark.parametrize(
    "kind", [Count, Sum, Mean, Min, Max, First, Last, StdDev, LogReturn, RealizedVolatility, DistinctCount, Quantiles]
)
def test_values_of_any_type_come_to_the_same_in_chunks_of_any_size(
    kind: Callable[[str], Aggregate], made: Callable[[int], Any]
):
    chance = random.Random(3)
    values: list[Any] = [Event("a", number, made(chance.randrange(28))) for number in range(600)]
    found = []
    for size in (1, 100, 600):
        aggregate = kind("price")
        state, failed = PartitionState(definition(None, aggregate), 0, MemoryStore()), 0
        for flushed, first in enumerate(range(0, 600, size)):
            failed += len(state.apply(batch(values[first : first + size], first=first)).failed)
            plan = state.prepare_flush("cluster", ("topic",), (-1,))
            assert plan is not None
            state.complete_flush(plan, flushed)
        result = aggregate.result(state.entry("a", 0).state, None)
        assert_alike(found[0] if found else (failed, result), (failed, result))
        assert not found or list(map(type, found[0][1].values())) == list(map(type, result.values()))
        found.append((failed, result))


def test_records_without_the_attribute_become_failures_and_not_a_crash(monkeypatch: pytest.MonkeyPatch):
    one = batch([Event("a", 5)] * 300)
    one.records = [{"price": 1.0}] * 300
    _, [outcome] = run(Candle(), Tumbling(10), [one], lane="arrays", monkeypatch=monkeypatch)
    assert len(outcome.failed) == 300


def test_one_value_missing_among_many_is_skipped_in_all_lanes(monkeypatch: pytest.MonkeyPatch):
    some: list[Any] = [Event("a", 5, None if index == 100 else 1.0) for index in range(300)]
    found = [run(Candle(), Tumbling(10), [batch(some)], lane=lane, monkeypatch=monkeypatch) for lane in LANES]
    assert found[0][0].cache["a"][0].state[0] == 299
    for state, outcomes in found[1:]:
        assert outcomes == found[0][1]
        assert_same_state(found[0][0], state)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("window", [Tumbling(10, 0, 100_000), Session(10, 0, 100_000)])
def test_of_two_origins_with_the_same_place_the_first_origin_comes_first_whichever_is_read_first(
    window: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch
):
    use_lane(monkeypatch, lane)
    batches = [batch([Event("a", 5, price)] * 2, origin=origin, source=0) for origin, price in enumerate((1.0, 2.0))]
    for order in (batches, batches[::-1]):
        state = PartitionState(definition(window, Candle()), 0, MemoryStore(), origins=2)
        for one in order:
            state.apply(one)
        [(_, entry)] = state.windows("a", 0, 100)
        result = Candle().result(entry.state, (0, 10))
        assert (result["open"], result["close"]) == (1.0, 2.0)
        assert entry.offsets == [1, 1]
