"""Every aggregate against an independent reference, over any records, in any order, grouping and lane."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

import msgspec
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.tables.market import MarketLatest, TradeStats
from streamapp.windows.aggregate import Aggregate, State
from streamapp.windows.basic import Count, Max, Mean, Min, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.distinct import DistinctCount
from streamapp.windows.edges import First, Last, LogReturn
from streamapp.windows.flow import Rate, Vwap
from streamapp.windows.fold import Fold
from streamapp.windows.lane import aggregate_frame
from streamapp.windows.named import Named
from streamapp.windows.quantiles import Quantiles
from streamapp.windows.spread import RealizedVolatility, StdDev, Variance

WINDOW = (60_000, 120_000)


class Event(msgspec.Struct):
    price: float | None
    size: float | None
    side: str | None
    bid: float
    ask: float


@dataclass(frozen=True)
class Placed:
    event: Event
    order: tuple[int, int, int]


prices = st.floats(0.01, 1e5).map(lambda value: round(value, 2))
sizes = st.one_of(st.just(0.0), st.floats(0.001, 1e3))


def placed_events(*, nulls: bool = False, least: int = 0) -> st.SearchStrategy[list[Placed]]:
    optional = st.none() if nulls else st.nothing()
    rows = st.tuples(
        st.builds(
            Event,
            price=st.one_of(prices, optional),
            size=st.one_of(sizes, optional),
            side=st.sampled_from(["buy", "sell", None]),
            bid=prices,
            ask=prices,
        ),
        st.integers(60_000, 60_009),
        st.integers(-1, 3),
    )
    # Few times and sequences, so that ties reach down to the offset, which is unique.
    return st.lists(rows, min_size=least, max_size=24).map(
        lambda found: [Placed(event, (time, sequence, offset)) for offset, (event, time, sequence) in enumerate(found)]
    )


# --- references: whole lists, exact sums, nothing incremental --------------------------------------------------------


def exact_sum(values: list[float]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))


def quotient(top: Fraction, bottom: Fraction | int) -> float | None:
    return float(top / bottom) if bottom else None


def ordered(events: list[Placed], field: str) -> list[Any]:
    present = [placed for placed in events if getattr(placed.event, field) is not None]
    return [getattr(placed.event, field) for placed in sorted(present, key=lambda placed: placed.order)]


def traded(events: list[Placed]) -> list[Placed]:
    return sorted(
        (placed for placed in events if placed.event.price is not None and placed.event.size is not None),
        key=lambda placed: placed.order,
    )


def vwap_of(trades: list[Placed]) -> float | None:
    notional = sum((Fraction(t.event.price) * Fraction(t.event.size) for t in trades), Fraction(0))
    return quotient(notional, exact_sum([t.event.size for t in trades]))


def candle_reference(events: list[Placed]) -> dict[str, Any]:
    trades = traded(events)
    found = [trade.event.price for trade in trades]
    return {
        "open": found[0] if found else None,
        "high": max(found, default=None),
        "low": min(found, default=None),
        "close": found[-1] if found else None,
        "volume": float(exact_sum([trade.event.size for trade in trades])),
        "vwap": vwap_of(trades),
        "count": len(trades),
        "buy_volume": float(exact_sum([trade.event.size for trade in trades if trade.event.side == "buy"])),
        "sell_volume": float(exact_sum([trade.event.size for trade in trades if trade.event.side == "sell"])),
        "first_time": trades[0].order[0] if trades else None,
        "last_time": trades[-1].order[0] if trades else None,
    }


def deviation(values: list[float]) -> float | None:
    return statistics.stdev(map(Fraction, values)) if len(values) > 1 else None


def volatility(values: list[float]) -> float | None:
    return math.sqrt(math.log(max(values) / min(values)) ** 2 / (4 * math.log(2))) if values else None


def stats_reference(events: list[Placed]) -> dict[str, Any]:
    trades = traded(events)
    found = [trade.event.price for trade in trades]
    return {
        "count": len(found),
        "mean": quotient(exact_sum(found), len(found)),
        "stddev": deviation(found),
        "min": min(found, default=None),
        "max": max(found, default=None),
        "open": found[0] if found else None,
        "close": found[-1] if found else None,
        "vwap": vwap_of(trades),
        "log_return": math.log(found[-1] / found[0]) if found else None,
        "volatility": volatility(found),
    }


def latest_reference(events: list[Placed]) -> dict[str, Any]:
    trades = traded(events)
    newest = trades[-1] if trades else None
    return {
        "price": newest and newest.event.price,
        "size": newest and newest.event.size,
        "side": newest and newest.event.side,
        "trade_time": newest and newest.order[0],
        **dict.fromkeys(("bid", "ask", "mid", "spread", "quote_time")),
    }


def one(name: str, field: str, of: Callable[[list[Any]], Any]) -> Callable[[list[Placed]], dict[str, Any]]:
    return lambda events: {name: of(ordered(events, field))}


CASES: dict[str, tuple[Aggregate, Callable[[list[Placed]], dict[str, Any]]]] = {
    "count": (Count(), lambda events: {"count": len(events)}),
    "count of a field": (Count("side"), one("count", "side", len)),
    "sum": (Sum("size"), one("sum", "size", lambda values: float(exact_sum(values)))),
    "mean": (Mean("price"), one("mean", "price", lambda values: quotient(exact_sum(values), len(values)))),
    "min": (Min("price"), one("min", "price", lambda values: min(values, default=None))),
    "max of text": (Max("side"), one("max", "side", lambda values: max(values, default=None))),
    "first": (First("size"), one("first", "size", lambda values: values[0] if values else None)),
    "last": (Last("price"), one("last", "price", lambda values: values[-1] if values else None)),
    "log return": (
        LogReturn(),
        one("log_return", "price", lambda values: math.log(values[-1] / values[0]) if values else None),
    ),
    "variance": (
        Variance("price"),
        one("variance", "price", lambda v: float(statistics.variance(map(Fraction, v))) if len(v) > 1 else None),
    ),
    "stddev": (StdDev("size"), one("stddev", "size", deviation)),
    "volatility": (RealizedVolatility(), one("volatility", "price", volatility)),
    "vwap": (Vwap(), lambda events: {"vwap": vwap_of(traded(events))}),
    "rate": (Rate(), lambda events: {"rate": len(events) / 60}),
    "rate of a field": (Rate("size"), one("rate", "size", lambda values: float(exact_sum(values)) / 60)),
    "distinct": (DistinctCount("price"), one("distinct", "price", lambda values: len(set(values)))),
    "candle": (Candle(), candle_reference),
    "trade stats": (TradeStats(), stats_reference),
    "latest": (MarketLatest(), latest_reference),
    "fold": (
        Fold({"n": 0}, lambda state, record: {"n": state["n"] + 1}, lambda a, b: {"n": a["n"] + b["n"]}),
        lambda events: {"n": len(events)},
    ),
    "named": (
        Named({"c": Candle(), "n": Count(), "low": Min("price")}),
        lambda events: (
            {f"c_{name}": value for name, value in candle_reference(events).items()}
            | {"n": len(events), "low": min(ordered(events, "price"), default=None)}
        ),
    ),
}

# Generating records costs more than aggregating them, so each example goes through every aggregate.
lean = settings(max_examples=50, deadline=None)


def same(got: Any, expected: Any) -> bool:
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[name], expected[name]) for name in got)
    if isinstance(got, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(got, float) and isinstance(expected, int | float):
        # Deviations of nearly equal values keep fewer digits than sums do; 1e-6 is far below a price's last digit.
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-6)
    return bool(got == expected)


def added(aggregate: Aggregate, events: list[Placed]) -> State:
    state = aggregate.initial()
    for placed in events:
        aggregate.add(state, placed.event, placed.order)
    return state


def merged_at_random(aggregate: Aggregate, partials: list[State], random: Random) -> State:
    """Merge two neighbours in a random order until one is left: any tree over any permutation."""
    random.shuffle(partials)
    while len(partials) > 1:
        into = partials.pop(random.randrange(len(partials)))
        aggregate.merge(into, partials.pop(random.randrange(len(partials))))
        partials.append(into)
    return partials[0]


def frame_of(events: list[Placed], key: Callable[[Placed], int] = lambda _: 0) -> pl.DataFrame:
    schema = {"price": pl.Float64, "size": pl.Float64, "side": pl.String, "bid": pl.Float64, "ask": pl.Float64}
    rows = [
        (key(placed), p.price, p.size, p.side, p.bid, p.ask, *placed.order)
        for placed in events
        for p in (placed.event,)
    ]
    columns = {"key": pl.Int64, **schema, "__time": pl.Int64, "__sequence": pl.Int64, "__offset": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")


@lean
@given(events=placed_events(nulls=True), random=st.randoms(use_true_random=False))
def test_aggregate_of_shuffled_records_equals_the_reference(events: list[Placed], random: Random) -> None:
    for name, (aggregate, reference) in CASES.items():
        expected = reference(events)
        random.shuffle(events)
        assert same(aggregate.result(added(aggregate, events), WINDOW), expected), name


@lean
@given(events=placed_events(nulls=True), random=st.randoms(use_true_random=False), groups=st.integers(1, 6))
def test_partials_merged_in_any_grouping_and_order_equal_the_reference(
    events: list[Placed], random: Random, groups: int
) -> None:
    for name, (aggregate, reference) in CASES.items():
        expected = reference(events)
        random.shuffle(events)
        partials = [added(aggregate, events[start::groups]) for start in range(groups)]
        merged = merged_at_random(aggregate, partials, random)
        assert same(aggregate.result(merged, WINDOW), expected), name


@lean
@given(events=placed_events(), more=placed_events())
def test_merging_leaves_the_other_partial_alone(events: list[Placed], more: list[Placed]) -> None:
    for name, (aggregate, _) in CASES.items():
        other = added(aggregate, more)
        packed = msgspec.msgpack.encode(other)
        into = added(aggregate, events)
        aggregate.merge(into, other)
        for placed in events:
            aggregate.add(into, placed.event, placed.order)
        assert msgspec.msgpack.encode(other) == packed, name


@lean
@given(events=placed_events())
def test_initial_state_is_the_identity_of_merge(events: list[Placed]) -> None:
    for name, (aggregate, _) in CASES.items():
        state = added(aggregate, events)
        expected = aggregate.result(state, WINDOW)
        left, right = aggregate.initial(), added(aggregate, events)
        aggregate.merge(left, state)
        aggregate.merge(right, aggregate.initial())
        assert aggregate.result(left, WINDOW) == aggregate.result(right, WINDOW) == expected, name


@lean
@given(events=placed_events(least=1), keys=st.integers(1, 3), random=st.randoms(use_true_random=False))
def test_vectorised_slots_equal_those_of_the_record_lane(events: list[Placed], keys: int, random: Random) -> None:
    for name, (aggregate, _) in CASES.items():
        random.shuffle(events)
        partials = aggregate_frame(frame_of(events, key=lambda placed: placed.order[2] % keys), aggregate, ["key"])
        if aggregate.expressions() is None:
            assert partials is None
            continue
        assert partials is not None, name
        assert {key for (key,), _ in partials} == {placed.order[2] % keys for placed in events}
        for (key,), state in partials:
            expected = added(aggregate, [placed for placed in events if placed.order[2] % keys == key])
            assert len(state) == aggregate.slots, name
            if name == "distinct":  # equal sets may be stored in another order
                state, expected = [aggregate.result(state, None)], [aggregate.result(expected, None)]
            assert same(state, expected), name


@lean
@given(events=placed_events(nulls=True, least=1))
def test_vectorised_lane_is_refused_or_right_where_inputs_are_null(events: list[Placed]) -> None:
    for name, (aggregate, reference) in CASES.items():
        partials = aggregate_frame(frame_of(events), aggregate, ["key"])
        holes = any(getattr(placed.event, field) is None for placed in events for field in aggregate.required(0))
        if holes or aggregate.expressions() is None:
            assert partials is None
        else:
            assert partials is not None, name
            assert same(aggregate.result(partials[0][1], WINDOW), reference(events)), name


@lean
@given(events=placed_events(nulls=True))
def test_state_survives_packing_and_result_is_json_of_the_declared_fields(events: list[Placed]) -> None:
    for name, (aggregate, _) in CASES.items():
        state = added(aggregate, events)
        assert len(state) == aggregate.slots, name
        restored = msgspec.msgpack.decode(msgspec.msgpack.encode(state))
        result = aggregate.result(restored, WINDOW)
        assert result == aggregate.result(state, WINDOW), name
        assert msgspec.json.decode(msgspec.json.encode(result)) == result
        assert list(result) == [field.name for field in aggregate.fields], name
        assert all(field.nullable for field in aggregate.fields if result[field.name] is None)


@lean
@given(events=placed_events(), random=st.randoms(use_true_random=False))
def test_latest_takes_trades_and_quotes_apart_whatever_their_interleaving(events: list[Placed], random: Random) -> None:
    aggregate = MarketLatest()
    steps = [(placed, source) for placed in events for source in (0, 1)]
    random.shuffle(steps)
    state = aggregate.initial()
    for placed, source in steps:
        aggregate.add(state, placed.event, placed.order, source)
    result = aggregate.result(state, None)
    if events:
        last = max(events, key=lambda placed: placed.order)
        assert (result["price"], result["trade_time"]) == (last.event.price, last.order[0])
        assert (result["bid"], result["ask"], result["quote_time"]) == (last.event.bid, last.event.ask, last.order[0])
        frame = frame_of(events)
        vectorised = aggregate.initial()
        for source in (0, 1):
            ((_, partial),) = aggregate_frame(frame, aggregate, ["key"], source) or []
            aggregate.merge(vectorised, partial)
        assert vectorised == state
    else:
        assert not any(result.values())


@lean
@given(events=placed_events(), random=st.randoms(use_true_random=False), groups=st.integers(1, 5))
def test_quantiles_stay_within_their_accuracy_and_do_not_depend_on_order(
    events: list[Placed], random: Random, groups: int
) -> None:
    aggregate = Quantiles("size", (0, 0.25, 0.5, 0.99, 1), accuracy=0.02)
    values = sorted(placed.event.size for placed in events)
    random.shuffle(events)
    partials = [added(aggregate, events[start::groups]) for start in range(groups)]
    merged = merged_at_random(aggregate, partials, random)
    assert merged == added(aggregate, events)
    for quantile, found in zip(aggregate.quantiles, aggregate.result(merged, None).values(), strict=True):
        if values:
            true = values[math.floor(quantile * (len(values) - 1))]
            assert abs(found - true) <= 0.02 * true * (1 + 1e-9)
        else:
            assert found is None


@lean
@given(
    values=st.lists(st.floats(-1e9, 1e9), max_size=60),
    random=st.randoms(use_true_random=False),
    groups=st.integers(1, 5),
)
def test_quantiles_with_few_bins_collapse_to_the_same_bins_in_any_order(
    values: list[float], random: Random, groups: int
) -> None:
    aggregate = Quantiles("size", (0.5, 1), accuracy=0.3, bins=4)
    events = [Placed(Event(1.0, value, None, 1.0, 1.0), (0, -1, at)) for at, value in enumerate(values)]
    expected = added(aggregate, events)
    random.shuffle(events)
    assert (
        merged_at_random(aggregate, [added(aggregate, events[at::groups]) for at in range(groups)], random) == expected
    )
    assert expected[0] + sum(expected[2]) + sum(expected[4]) == len(values)
    assert len(expected[1]) <= 4
    assert len(expected[3]) <= 4
    partials = aggregate_frame(frame_of(events), aggregate, ["key"]) if events else [((0,), expected)]
    assert partials == [((0,), expected)]
