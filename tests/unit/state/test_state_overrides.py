"""A subclass that redefines one way of an aggregate is not overruled by the other ways that it inherits."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
import pytest

from streamapp.state.grouping import Plan
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.aggregate import Aggregate, OutputField, State
from streamapp.windows.basic import Max, Sum
from streamapp.windows.candle import HIGH, LOW, Candle
from streamapp.windows.definitions import Tumbling
from streamapp.windows.fold import Fold
from streamapp.windows.lane import aggregate_frame
from streamapp.windows.named import Named
from streamapp.windows.overrides import reader_of
from streamapp.windows.reductions import Greatest, Reduction, TotalOfProducts
from tests.fakes.crashes import Event, batch, definition
from tests.fakes.lanes import Lane, use_lane

LANES: tuple[Lane, ...] = ("records", "arrays", "expressions")
EVENTS = [Event("ab"[index % 2], index // 10, size=float(index % 7)) for index in range(100)]


class Squares(Sum):
    """The record lane alone is said anew."""

    def add(self, state: State, record: Any, order: Any, source: int = 0) -> None:
        state[0] += record.size * record.size


class SquaresOfRuns(Sum):
    def add_all(self, state: State, records: Iterator[Any], orders: Any, source: int = 0) -> tuple[int, None]:
        sizes = [record.size for record, _ in zip(records, orders, strict=False)]
        state[0] += sum(size * size for size in sizes)
        return len(sizes), None

    def add(self, state: State, record: Any, order: Any, source: int = 0) -> None:
        self.add_all(state, iter([record]), iter([order]), source)


class SquaresByExpressions(Squares):
    def expressions(self, source: int = 0) -> list[pl.Expr]:
        return [(pl.col("size") * pl.col("size")).sum().alias("__slot0")]


class SquaresByColumns(Squares):
    def _columns(self, source: int) -> list[pl.Expr]:
        return [(pl.col("size") * pl.col("size")).sum()]


class SquaresByReductions(SquaresByColumns):
    def reductions(self, source: int) -> Sequence[Reduction]:
        return [TotalOfProducts("size", "size")]


class Mixed:
    """A mixin comes before the class whose `add` it stands in for."""

    def add(self, state: State, record: Any, order: Any, source: int = 0) -> None:
        state[0] += record.size * record.size


class SquaresOfMixin(Mixed, Sum):
    pass


class SquaresByFold(Fold):
    """`add_all` is inherited, and would call the step that it was made with."""

    def __init__(self) -> None:
        super().__init__(0.0, lambda state, record: state - 1000, lambda one, other: one + other)

    def add(self, state: State, record: Any, order: Any, source: int = 0) -> None:
        state[0] += record.size * record.size


def sums(aggregate: Aggregate, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    use_lane(monkeypatch, lane)
    state = PartitionState(definition(Tumbling(100), aggregate), 0, MemoryStore())
    assert state.apply(batch(EVENTS)).merged == len(EVENTS)
    return [state.cache[key][0].state for key in "ab"]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("aggregate", "reductions", "expressions"),
    [
        (Squares("size"), False, False),
        (SquaresOfRuns("size"), False, False),
        (SquaresOfMixin("size"), False, False),
        (SquaresByFold(), False, False),
        (SquaresByExpressions("size"), False, True),
        (SquaresByColumns("size"), False, True),
        (SquaresByReductions("size"), True, True),
    ],
    ids=lambda case: type(case).__name__,
)
def test_the_most_derived_way_has_the_word(
    aggregate: Aggregate, reductions: bool, expressions: bool, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(aggregate, 0)
    assert (plan.reductions is not None, plan.expressions is not None) == (reductions, expressions)
    expected = [sum(event.size**2 for event in EVENTS if event.key == key) for key in "ab"]
    assert sums(aggregate, lane, monkeypatch) == [[value] for value in expected]
    beside = Named({"squares": aggregate, "most": Max("size")})
    assert sums(beside, lane, monkeypatch) == [[value, 6.0] for value in expected]


@pytest.mark.parametrize("lane", ["arrays", "expressions"])
def test_expressions_said_anew_stand_in_for_reductions_that_are_inherited(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubled(Sum):
        def expressions(self, source: int = 0) -> list[pl.Expr]:
            return [column * 2 for column in super().expressions(source) or []]

    plain = sums(Sum("size"), lane, monkeypatch)
    assert sums(Doubled("size"), lane, monkeypatch) == [[value * 2] for (value,) in plain]


@pytest.mark.parametrize("lane", ["arrays", "expressions"])
def test_a_bounded_form_said_anew_is_made_of_what_columns_give(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bounded(Sum):
        def compact(self, state: State) -> None:
            state[0] = min(state[0], 9.0)

    assert sums(Bounded("size"), lane, monkeypatch) == [[9.0], [9.0]]
    assert sums(Named({"bounded": Bounded("size")}), lane, monkeypatch) == [[9.0], [9.0]]


@pytest.mark.parametrize("lane", ["arrays", "expressions"])
def test_merge_and_result_said_anew_leave_the_columns_as_they_are(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[float] = []

    class Watched(Sum):
        def merge(self, into: State, other: State) -> None:
            merged.append(other[0])
            super().merge(into, other)

        def result(self, state: State, window: Any) -> dict[str, Any]:
            return {"sum": -state[0]}

    assert Plan(Watched("size"), 0).reductions == Plan(Sum("size"), 0).reductions
    assert sorted(sums(Watched("size"), lane, monkeypatch)) == [[value] for value in sorted(merged)]
    assert reader_of(Watched("size"), "sum")([2.0], None) == -2.0


def test_reductions_say_what_the_expressions_are_where_one_class_has_both() -> None:
    class Both(Sum):
        def reductions(self, source: int) -> Sequence[Reduction]:
            return [Greatest("size")]

        def expressions(self, source: int = 0) -> list[pl.Expr]:
            return [pl.col("size").min().alias("__slot0")]

    frame = pl.DataFrame(
        {"key": [1, 1], "size": [1.0, 2.0], "__time": [1, 2], "__sequence": [-1, -1], "__offset": [0, 1]}
    )
    assert aggregate_frame(frame, Both("size"), ["key"]) == [((1,), [2.0])]


def test_a_field_is_read_from_the_result_of_the_subclass() -> None:
    class Ranged(Candle):
        fields = (*Candle.fields, OutputField("range"))

        def result(self, state: State, window: Any) -> dict[str, Any]:
            return {**super().result(state, window), "range": state[HIGH] - state[LOW], "low": -state[LOW]}

    candle = Ranged()
    state = candle.initial()
    for place, price in enumerate((3.0, 1.0)):
        candle.add(state, Event("a", 1, price), (1, -1, place))
    assert {field.name: reader_of(candle, field.name)(state, None) for field in candle.fields} == candle.result(
        state, None
    )
    assert reader_of(Candle(), "low").__code__ is Candle().reader_of("low").__code__
