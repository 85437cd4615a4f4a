"""VWAP and rate: what flowed through a window."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State, ratio
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders
from streamapp.windows.reductions import Reduction, Rows, Total, TotalOfProducts


class Vwap(Aggregate):
    """The volume-weighted average price, sum(price * size) / sum(size); null while the volume is 0.

    Args:
        price: the attribute that holds the price.
        size: the attribute that holds the amount.
    """

    kind = "vwap"
    slots = 2
    fields = (OutputField("vwap", unit="price", description="sum(price * size) / sum(size)"),)

    def __init__(self, price: str = "price", size: str = "size") -> None:
        self.price = attribute_name("Vwap", "price", price)
        self.size = attribute_name("Vwap", "size", size)
        read_as(self, price=self.price, size=self.size)

    def inputs(self, source: int) -> tuple[str, ...]:
        """Price and size."""
        return (self.price, self.size)

    def initial(self) -> State:
        """Notional and volume, both zero."""
        return [0.0, 0.0]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Add one trade; one without price or size is skipped."""
        price = record.price
        size = record.size
        if price is None or size is None:
            return
        state[:] = state[0] + price * size, state[1] + size

    def merge(self, into: State, other: State) -> None:
        """Add the sums."""
        into[0] += other[0]
        into[1] += other[1]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [TotalOfProducts(self.price, self.size), Total(self.size)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`vwap`."""
        return {"vwap": ratio(state[0], state[1])}

    def parameters(self) -> Sequence[object]:
        """Price and size."""
        return (self.price, self.size)


class Rate(Aggregate):
    """Records per second, or the sum of an attribute per second, over the length of the window.

    The whole window is the divisor also while it is being built, so the rate of an open window grows towards its final
    value. Without a window there is no length, and the rate is null.

    Args:
        field: the attribute to add up; without one, records are counted.
        per: the unit of time, one second unless said otherwise.
    """

    kind = "rate"
    slots = 1

    def __init__(self, field: str | None = None, *, per: timedelta = timedelta(seconds=1)) -> None:
        if not isinstance(per, timedelta) or per <= timedelta(0):
            raise ConfigurationError(f"Rate: per must be a timedelta above zero, got {per!r}")
        self.field = field if field is None else attribute_name("Rate", "field", field)
        self.per_ms = per / timedelta(milliseconds=1)
        unit = "1/s" if self.per_ms == 1000 else f"1/({self.per_ms:g} ms)"
        self.fields = (OutputField("rate", unit=unit, description=f"{self.field or 'records'} per unit of time"),)
        if type(self).add is Rate.add:  # and no subclass has another
            vars(self)["add"] = self._add_any if self.field is None else self._add_value

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute, if there is one."""
        return () if self.field is None else (self.field,)

    def required(self, source: int) -> tuple[str, ...]:
        """None: the sum skips nulls by itself."""
        return ()

    def initial(self) -> State:
        """Zero."""
        return [0 if self.field is None else 0.0]

    def add(self, state: State, record: object, order: Order, source: int = 0) -> None:
        """Count one record in."""
        (self._add_any if self.field is None else self._add_value)(state, record, order, source)

    def _add_any(self, state: State, record: object, order: Order, source: int = 0) -> None:
        state[0] += 1

    def _add_value(self, state: State, record: object, order: Order, source: int = 0) -> None:
        value = getattr(record, self.field or "")
        if value is not None:
            state[0] += value

    def merge(self, into: State, other: State) -> None:
        """Add the totals."""
        into[0] += other[0]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [Rows() if self.field is None else Total(self.field)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`rate`."""
        return {"rate": None if window is None else ratio(state[0] * self.per_ms, window[1] - window[0])}

    def parameters(self) -> Sequence[object]:
        """The attribute and the unit of time in ms."""
        return (self.field, self.per_ms)
