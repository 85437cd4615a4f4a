from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from streamapp.errors import ConfigurationError
from streamapp.tables.market import TradeStats
from streamapp.windows.basic import Count, Max, Mean, Min, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.distinct import DistinctCount
from streamapp.windows.edges import First, Last, LogReturn, log_ratio
from streamapp.windows.flow import Rate, Vwap
from streamapp.windows.fold import Fold
from streamapp.windows.named import Named
from streamapp.windows.quantiles import Quantiles
from streamapp.windows.spread import Parkinson, StdDev, Variance, parkinson

if TYPE_CHECKING:
    from streamapp.windows.aggregate import Aggregate


def of(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(**attributes)


def trade(price: float, size: float = 1.0, side: str | None = None) -> SimpleNamespace:
    return of(price=price, size=size, side=side)


def count_up(state: int, record: object) -> int:
    return state + 1


def test_candle_open_and_close_follow_time_then_sequence_then_arrival() -> None:
    candle = Candle()
    state = candle.initial()
    arrivals = [(5, 2, 10), (5, 1, 11), (5, 1, 12), (4, -1, 13), (5, 2, 14), (4, -1, 15), (5, 1, 16)]
    for number, order in enumerate(arrivals):
        candle.add(state, trade(100.0 + number), order)
    result = candle.result(state, (0, 10))
    assert (result["open"], result["close"]) == (103.0, 104.0)
    assert (result["first_time"], result["last_time"]) == (4, 5)


def test_candle_of_zero_sizes_has_no_vwap() -> None:
    candle = Candle()
    state = candle.initial()
    candle.add(state, trade(100.0, 0.0), (1, -1, 0))
    result = candle.result(state, None)
    assert result["vwap"] is None
    assert (result["volume"], result["count"]) == (0.0, 1)


def test_candle_reads_the_attributes_it_was_given() -> None:
    candle, plain = Candle(price="p", size="q", side="taker"), Candle()
    renamed, usual = candle.initial(), plain.initial()
    for number, side in enumerate(["buy", "sell", None]):
        order = (number, -1, number)
        candle.add(renamed, of(p=1.5 + number, q=2.0, taker=side, price=0, size=0, side="buy"), order)
        plain.add(usual, trade(1.5 + number, 2.0, side), order)
    assert renamed == usual
    assert candle.inputs(0) == ("p", "q", "taker")


def test_candle_without_a_side_counts_neither_side() -> None:
    candle = Candle(side=None)
    state = candle.initial()
    candle.add(state, of(price=2.0, size=3.0), (1, -1, 0))
    result = candle.result(state, None)
    assert (result["volume"], result["buy_volume"], result["sell_volume"]) == (3.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["", "a b", "__time", "price.size", 3, None])
def test_attribute_names_must_be_identifiers(name: Any) -> None:
    for construct in (Sum, First, Variance, Vwap, DistinctCount, Quantiles, Candle):
        with pytest.raises(ConfigurationError, match="must name an attribute"):
            construct(name)


def test_failed_add_leaves_the_state_as_it_was() -> None:
    for aggregate in (
        Candle(),
        TradeStats(),
        Sum("price"),
        Mean("price"),
        Variance("price"),
        Vwap(),
        LogReturn(),
        Parkinson(),
    ):
        state = aggregate.initial()
        aggregate.add(state, trade(2.0), (1, -1, 0))
        before = list(state)
        for price, size in ((object(), 1.0), ("9", 2), ("9", 2.0)):
            with pytest.raises(TypeError):
                aggregate.add(state, of(price=price, size=size, side=None), (2, -1, 1))
        assert state == before


def test_empty_states_have_sensible_results() -> None:
    expected: dict[Aggregate, dict[str, Any]] = {
        Count(): {"count": 0},
        Sum("x"): {"sum": 0.0},
        Mean("x"): {"mean": None},
        Max("x"): {"max": None},
        Last("x"): {"last": None},
        StdDev("x"): {"stddev": None},
        Parkinson("x"): {"volatility": None},
        Rate(): {"rate": 0.0},
        DistinctCount("x"): {"distinct": 0},
        Quantiles("x"): {"p50": None, "p90": None, "p99": None},
    }
    for aggregate, result in expected.items():
        assert aggregate.result(aggregate.initial(), (0, 1000)) == result


@pytest.mark.parametrize("trades", [0, 1, 5])
def test_one_field_read_alone_is_that_of_the_whole_result(trades: int) -> None:
    for aggregate in (Candle(), Candle("x", "x", None), Max("x"), Rate(), Quantiles("x")):
        state = aggregate.initial()
        for offset in range(trades):
            record = of(price=100.0 + offset, size=1e308, side="sell", x=2.0 + offset)
            aggregate.add(state, record, (offset, -1, offset))
        whole = aggregate.result(state, (0, 1000))
        assert {field.name: aggregate.reader_of(field.name)(state, (0, 1000)) for field in aggregate.fields} == whole


def test_numbers_beyond_a_double_show_as_null() -> None:
    total = Sum("x")
    state = total.initial()
    for offset in range(2):
        total.add(state, of(x=1.7e308), (0, -1, offset))
    assert total.result(state, None) == {"sum": None}
    assert log_ratio(1e308, 1e-308) == pytest.approx(1418.39, abs=0.01)
    assert log_ratio(0.0, 1.0) is None
    assert parkinson(1.0, -1.0) is None


def test_variance_does_not_cancel_far_from_zero() -> None:
    spread = Variance("x")
    state = spread.initial()
    for offset, value in enumerate([1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16]):
        spread.add(state, of(x=value), (0, -1, offset))
    assert spread.result(state, None)["variance"] == pytest.approx(30.0, rel=1e-9)


def test_parkinson_equals_its_formula() -> None:
    # ln(110/100) = 0.0953102; squared over 4 ln 2 = 0.00327642; its root
    assert parkinson(110.0, 100.0) == pytest.approx(0.0572400, abs=1e-6)


def test_rate_divides_by_the_whole_window_in_the_given_unit() -> None:
    rate = Rate("bytes", per=timedelta(minutes=1))
    state = rate.initial()
    rate.add(state, of(bytes=500), (0, -1, 0))
    assert rate.result(state, (0, 30_000)) == {"rate": 1000.0}
    assert rate.result(state, None) == {"rate": None}
    with pytest.raises(ConfigurationError):
        Rate(per=timedelta(0))


def test_named_keeps_members_apart_and_labels_their_fields() -> None:
    both = Named({"n": Count(), "low": Min("price"), "c": Candle()})
    state = both.initial()
    both.add(state, trade(3.0), (7, -1, 0))
    result = both.result(state, None)
    assert (result["n"], result["low"], result["c_open"], result["c_last_time"]) == (1, 3.0, 3.0, 7)
    assert [field.name for field in both.fields] == list(result)
    assert both.inputs(0) == ("price", "size", "side")


def test_named_refuses_nothing_bad_names_and_clashes() -> None:
    for members in ({}, {"a b": Count()}, {"n": 3}, {"c": Candle(), "c_open": Count()}):
        with pytest.raises(ConfigurationError):
            Named(members)  # type: ignore[arg-type]


def test_named_counts_nothing_of_a_record_that_a_users_step_refuses() -> None:
    def refuse(state: int, record: Any) -> int:
        return state + 1 // record.price

    both = Named({"n": Count(), "q": Quantiles("price"), "f": Fold(0, refuse)})
    assert both.ordered
    assert both.expressions() is None
    state = both.initial()
    with pytest.raises(ZeroDivisionError):
        both.add(state, trade(0), (0, -1, 0))
    assert state == both.initial()


def test_fold_without_merge_is_ordered_and_says_so() -> None:
    fold = Fold(0, count_up)
    state = fold.initial()
    fold.add(state, of(), (0, -1, 0))
    assert fold.ordered
    assert fold.result(state, None) == {"value": 1}
    with pytest.raises(TypeError, match="no merge"):
        fold.merge(state, fold.initial())


@pytest.mark.parametrize("state", [1 << 64, {"n": 1 << 64}, [1 << 70], {"n": object()}, object()])
def test_fold_refuses_a_state_that_cannot_be_written_with_its_record(state: Any) -> None:
    fold = Fold(None, lambda _, record: record)
    kept = fold.initial()
    fold.add(kept, 5, (1, -1, 1))
    with pytest.raises((OverflowError, TypeError)):
        fold.add(kept, state, (2, -1, 2))
    assert kept == [5]
    for fine in ((1 << 64) - 1, -(1 << 63), 1.5, "text", b"raw", None, True, {"n": [1, {"m": 2}]}, list(range(100))):
        fold.add(kept, fine, (3, -1, 3))
        assert kept == [fine]


def test_fold_refuses_a_record_whose_step_forgot_to_return_the_state() -> None:
    def forgetful(state: dict[str, int], record: int) -> dict[str, int] | None:
        state["n"] += record
        return state if record < 3 else None

    fold = Fold({"n": 0}, forgetful)
    kept = fold.initial()
    fold.add(kept, 1, (1, -1, 1))
    with pytest.raises(TypeError, match="forgetful returned None; it has to return the new state"):
        fold.add(kept, 3, (2, -1, 2))
    taken, problem = fold.add_all(kept, iter([2, 3, 1]), iter([None] * 3))
    assert taken == 1
    assert isinstance(problem, TypeError)
    assert isinstance(kept[0], dict)


def test_fold_states_share_nothing() -> None:
    def push(state: list[int], record: Any) -> list[int]:
        state.append(record.x)
        return state

    for fold in (Fold([], push), Fold(list, push)):
        one, other = fold.initial(), fold.initial()
        fold.add(one, of(x=1), (0, -1, 0))
        assert (one, other) == ([[1]], [[]])


def test_fold_shows_what_result_makes_of_the_state() -> None:
    fold = Fold([0, 0], lambda state, record: state, result=lambda state: {"sum": state[0]})
    assert fold.result(fold.initial(), None) == {"sum": 0}
    assert Fold({"n": 0, "s": 1}, count_up).result([{"n": 2, "s": 3}], None) == {"n": 2, "s": 3}


def test_fold_declares_no_field_that_its_states_do_not_have() -> None:
    assert [field.name for field in Fold({"n": 0, "s": 1}, count_up).fields] == ["n", "s"]
    assert [field.name for field in Fold(0, count_up).fields] == ["value"]
    assert Fold(dict, count_up).fields == Fold({}, count_up).fields == ()


def test_field_that_a_state_has_not_yet_is_read_as_none() -> None:
    fold = Fold({"n": 0}, count_up)
    assert fold.reader_of("n")([{"n": 3}], None) == 3
    assert fold.reader_of("n")([{"m": 3}], None) is None


def test_fingerprints_tell_definitions_apart_and_are_stable() -> None:
    definitions = [
        Count(), Count("x"), Sum("x"), Sum("y"), Mean("x"), Candle(), Candle(side=None), Quantiles("x"),
        Quantiles("x", bins=100), DistinctCount("x"), DistinctCount("x", 10), Variance("x"), StdDev("x"), Rate(),
        Rate("x"), Fold(0, count_up), Fold(1, count_up), Fold(0, count_up, version="2"), Named({"n": Count()}),
        Named({"m": Count()}), Named({"n": Count("x")}),
    ]  # fmt: skip
    assert len({definition.fingerprint() for definition in definitions}) == len(definitions)
    assert Candle().fingerprint() == "candle('price', 'size', 'side')"
    assert Fold(0, count_up).fingerprint() == "fold(0, 'count_up', None, '')"


def test_quantile_fields_are_named_after_their_percentages() -> None:
    assert [field.name for field in Quantiles("x", (0, 0.5, 0.999, 1)).fields] == ["p0", "p50", "p99_9", "p100"]
    for bad in ((), (0.5, 0.5), (0.9, 0.5), (1.1,)):
        with pytest.raises(ConfigurationError):
            Quantiles("x", bad)


def test_quantiles_of_mixed_signs_keep_their_order() -> None:
    sketch = Quantiles("x", (0, 0.5, 1))
    state = sketch.initial()
    for offset, value in enumerate([-100.0, 0.0, 50.0]):
        sketch.add(state, of(x=value), (0, -1, offset))
    low, middle, high = sketch.result(state, None).values()
    assert low == pytest.approx(-100, rel=0.01)
    assert middle == 0
    assert high == pytest.approx(50, rel=0.01)


MADE: list[tuple[Any, tuple[Any, ...]]] = [
    *(
        (kind, ("x",))
        for kind in (Count, Rate, Sum, Mean, Min, Max, First, Last, LogReturn, Variance, StdDev, Parkinson)
    ),
    *((kind, ("x",)) for kind in (DistinctCount, Quantiles)),
    *((kind, ()) for kind in (Count, Rate, Vwap, Candle, TradeStats)),
    *((kind, ("x", "y")) for kind in (Vwap, TradeStats)),
    (Candle, ("x", "y", None)),
]


@pytest.mark.parametrize(("kind", "arguments"), MADE, ids=repr)
def test_a_subclass_adds_as_it_says_and_by_what_it_inherits(kind: Any, arguments: tuple[Any, ...]) -> None:
    class Positive(kind):  # type: ignore[misc]
        def add(self, state: Any, record: Any, order: Any, source: int = 0) -> None:
            # names that the inherited `add` has in the place of those that it was given
            given = self.field if hasattr(self, "field") else self.price
            if getattr(record, given or "x") > 0:
                super().add(state, record, order, source)

    positive, plain = Positive(*arguments), kind(*arguments)
    state, expected = positive.initial(), plain.initial()
    for place, value in enumerate((2.0, -1.0, 3.0, -5.0)):
        record = of(x=value, y=1.0, price=value, size=1.0, side="buy")
        positive.add(state, record, (place, -1, place))
        if value > 0:
            plain.add(expected, record, (place, -1, place))
    assert state == expected != plain.initial()


def test_an_instance_reads_what_it_was_told_last() -> None:
    class Told(Sum):
        def __init__(self) -> None:
            super().__init__("x")
            super().__init__("y")

    told = Told()
    state = told.initial()
    told.add(state, of(x=1.0, y=2.0), (0, -1, 0))
    assert state == [2.0]
