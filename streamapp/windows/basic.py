"""Count, sum, mean, least and greatest: the aggregates whose state is the obvious one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State, finite, ratio
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders
from streamapp.windows.reductions import Greatest, Least, Present, Reduction, Rows, Total


class Count(Aggregate):
    """The number of records, or of those in which an attribute is not None.

    Args:
        field: the attribute that must not be None; without one every record counts.
    """

    kind = "count"
    slots = 1
    fields = (OutputField("count", "integer", nullable=False, description="number of records", combine="sum"),)

    def __init__(self, field: str | None = None) -> None:
        self.field = field if field is None else attribute_name("Count", "field", field)
        if type(self).add is Count.add:  # and no subclass has another
            vars(self)["add"] = self._add_any if self.field is None else self._add_present

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute, if there is one."""
        return () if self.field is None else (self.field,)

    def required(self, source: int) -> tuple[str, ...]:
        """None: the lane counts around nulls."""
        return ()

    def initial(self) -> State:
        """Zero."""
        return [0]

    def add(self, state: State, record: object, order: Order, source: int = 0) -> None:
        """Count one record in."""
        (self._add_any if self.field is None else self._add_present)(state, record, order, source)

    def _add_any(self, state: State, record: object, order: Order, source: int = 0) -> None:
        state[0] += 1

    def _add_present(self, state: State, record: object, order: Order, source: int = 0) -> None:
        if getattr(record, self.field or "") is not None:
            state[0] += 1

    def merge(self, into: State, other: State) -> None:
        """Add the counts."""
        into[0] += other[0]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [Rows() if self.field is None else Present(self.field)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`count`."""
        return {"count": state[0]}

    def parameters(self) -> Sequence[object]:
        """The attribute, if there is one."""
        return () if self.field is None else (self.field,)


class _OfField(Aggregate):
    """An aggregate of the not-None values of one attribute."""

    def __init__(self, field: str) -> None:
        self.field = attribute_name(type(self).__name__, "field", field)
        read_as(self, field=self.field)

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute."""
        return (self.field,)

    def required(self, source: int) -> tuple[str, ...]:
        """None: these columns skip nulls by themselves."""
        return ()

    def parameters(self) -> Sequence[object]:
        """The attribute."""
        return (self.field,)


class Sum(_OfField):
    """The sum of an attribute, as a floating number; 0 for no record.

    Args:
        field: the attribute to add up.
    """

    kind = "sum"
    slots = 1
    fields = (OutputField("sum", description="sum of the values; null once it is beyond a double", combine="sum"),)

    def initial(self) -> State:
        """Zero."""
        return [0.0]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Add one value."""
        value = record.field
        if value is not None:
            state[0] += value

    def merge(self, into: State, other: State) -> None:
        """Add the sums."""
        into[0] += other[0]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [Total(self.field)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`sum`."""
        return {"sum": finite(state[0])}


class Mean(_OfField):
    """The arithmetic mean of an attribute; null for no record.

    Args:
        field: the attribute to average.
    """

    kind = "mean"
    slots = 2
    fields = (OutputField("mean", description="arithmetic mean of the values"),)

    def initial(self) -> State:
        """Sum and count, both zero."""
        return [0.0, 0]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Add one value."""
        value = record.field
        if value is not None:
            state[0] += value
            state[1] += 1

    def merge(self, into: State, other: State) -> None:
        """Add sums and counts."""
        into[0] += other[0]
        into[1] += other[1]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [Total(self.field), Present(self.field)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`mean`."""
        return {"mean": ratio(state[0], state[1])}


def _kept(value: Any) -> Any:
    """The value, if it can still be compared once it was stored.

    Raises:
        TypeError: it comes back as something else, as a `Decimal` or a `date` comes back as text: whether the next value is
            refused would depend on when checkpoints are made.
    """
    if isinstance(value, (int, float, str, bytes, list)) or (isinstance(value, datetime) and value.tzinfo is not None):
        return value
    raise TypeError(f"expected a number or text to compare, got {type(value).__name__}")


class Min(_OfField):
    """The least value of an attribute (numbers, or text by code point); null for no record.

    Args:
        field: the attribute to compare.
    """

    kind = "min"
    slots = 1
    fields = (OutputField("min", description="least value", combine="min"),)

    def initial(self) -> State:
        """No value."""
        return [None]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Compare one value."""
        value = record.field
        if value is not None:
            least = state[0]
            if least is None or (not value >= least and value == value):  # what is not a number hides no other
                state[0] = _kept(value)

    def merge(self, into: State, other: State) -> None:
        """Keep the lesser."""
        value = other[0]
        if value is not None and (into[0] is None or (not value >= into[0] and value == value)):
            into[0] = value

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [Least(self.field)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`min`."""
        return {"min": state[0]}


class Max(_OfField):
    """The greatest value of an attribute (numbers, or text by code point); null for no record.

    Args:
        field: the attribute to compare.
    """

    kind = "max"
    slots = 1
    fields = (OutputField("max", description="greatest value", combine="max"),)

    def initial(self) -> State:
        """No value."""
        return [None]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Compare one value."""
        value = record.field
        if value is not None:
            greatest = state[0]
            if greatest is None or (not value <= greatest and value == value):  # what is not a number hides no other
                state[0] = _kept(value)

    def merge(self, into: State, other: State) -> None:
        """Keep the greater."""
        value = other[0]
        if value is not None and (into[0] is None or (not value <= into[0] and value == value)):
            into[0] = value

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [Greatest(self.field)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`max`."""
        return {"max": state[0]}
