"""First, last and the return between them: aggregates of where a window begins and ends.

"First" is by `Order`: event time, then sequence, then arrival. The order is kept in the state beside each value, so that
partials merge in any grouping. An edge takes four slots: value, time, sequence, offset; no value yet has time None.
"""

import math
from collections.abc import Sequence
from typing import Any

from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders
from streamapp.windows.reductions import FIRST_ORDER, LAST_ORDER, FirstOf, LastOf, Reduction

NO_EDGE = (None, None, -1, -1)


def first_edge(field: str, *, numbers: bool = False) -> Sequence[Reduction]:
    """The four slots of the first value of a group, see `FirstOf`."""
    return FirstOf(field, numbers), *FIRST_ORDER


def last_edge(field: str, *, numbers: bool = False) -> Sequence[Reduction]:
    """The four slots of the last value of a group, see `LastOf`."""
    return LastOf(field, numbers), *LAST_ORDER


def merge_first(into: State, other: State, at: int) -> None:
    """Keep the earlier of the two edges at slots `at` to `at + 3`."""
    if other[at + 1] is None:
        return
    if into[at + 1] is None or other[at + 1 : at + 4] < into[at + 1 : at + 4]:
        into[at : at + 4] = other[at : at + 4]


def merge_last(into: State, other: State, at: int) -> None:
    """Keep the later of the two edges at slots `at` to `at + 3`."""
    if other[at + 1] is None:
        return
    if into[at + 1] is None or other[at + 1 : at + 4] > into[at + 1 : at + 4]:
        into[at : at + 4] = other[at : at + 4]


def log_ratio(later: float | None, earlier: float | None) -> float | None:
    """ln(later / earlier), or None where one of them is missing or not positive."""
    if later is None or earlier is None or later <= 0 or earlier <= 0:
        return None
    quotient = later / earlier
    # A quotient out of a double's range still has an ordinary logarithm.
    return math.log(quotient) if 0 < quotient < math.inf else math.log(later) - math.log(earlier)


class _Edge(Aggregate):
    """What `First` and `Last` share: one attribute, held with the place of the record that it came from.

    Args:
        field: the attribute.
    """

    slots = 4

    def __init__(self, field: str) -> None:
        self.field = attribute_name(type(self).__name__, "field", field)
        read_as(self, field=self.field)

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute."""
        return (self.field,)

    def initial(self) -> State:
        """No value."""
        return list(NO_EDGE)

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The value, under the aggregate's kind."""
        return {self.kind: state[0]}

    def parameters(self) -> Sequence[object]:
        """The attribute."""
        return (self.field,)


class First(_Edge):
    """The value of an attribute in the first record that has it.

    Args:
        field: the attribute.
    """

    kind = "first"
    fields = (OutputField("first", "any", description="value of the first record by event time", combine="first"),)

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Take the record's value if it is before the one held."""
        value = record.field
        if value is None:
            return
        time = state[1]
        if time is None or order[0] < time or (order[0] == time and order < tuple(state[1:])):
            state[:] = (value, *order)

    def merge(self, into: State, other: State) -> None:
        """Keep the earlier."""
        merge_first(into, other, 0)

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return first_edge(self.field)


class Last(_Edge):
    """The value of an attribute in the last record that has it.

    Args:
        field: the attribute.
    """

    kind = "last"
    fields = (OutputField("last", "any", description="value of the last record by event time"),)

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Take the record's value if it is after the one held."""
        value = record.field
        if value is None:
            return
        time = state[1]
        if time is None or order[0] > time or (order[0] == time and order > tuple(state[1:])):
            state[:] = (value, *order)

    def merge(self, into: State, other: State) -> None:
        """Keep the later."""
        merge_last(into, other, 0)

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return last_edge(self.field)


class LogReturn(Aggregate):
    """ln(close / open): of the last value over the first, by event time; null unless both are positive.

    Args:
        field: the attribute that holds the price.
    """

    kind = "log_return"
    slots = 8
    fields = (OutputField("log_return", description="ln(close / open)"),)

    def __init__(self, field: str = "price") -> None:
        self.field = attribute_name("LogReturn", "field", field)
        read_as(self, field=self.field)

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute."""
        return (self.field,)

    def initial(self) -> State:
        """Neither edge."""
        return [*NO_EDGE, *NO_EDGE]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Take the record's value as an edge if it is one."""
        value = record.field
        if value is None:
            return
        value += 0.0  # raises here, and not in the reader's face, if it is no number
        if state[1] is None:
            state[:] = (value, *order, value, *order)
            return
        if order[0] >= state[5] and order > tuple(state[5:]):
            state[4:] = (value, *order)
        if order[0] <= state[1] and order < tuple(state[1:4]):
            state[:4] = (value, *order)

    def merge(self, into: State, other: State) -> None:
        """Keep the earlier first and the later last."""
        merge_first(into, other, 0)
        merge_last(into, other, 4)

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [*first_edge(self.field, numbers=True), *last_edge(self.field, numbers=True)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`log_return`."""
        return {"log_return": log_ratio(state[4], state[0])}

    def parameters(self) -> Sequence[object]:
        """The attribute."""
        return (self.field,)
