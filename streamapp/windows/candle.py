"""OHLC candles with volume, VWAP and the taker's side, as one mergeable aggregate."""

from collections.abc import Callable, Sequence
from typing import Any

from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State, finite, greater, lesser, ratio
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders
from streamapp.windows.reductions import (
    FIRST_ORDER,
    LAST_ORDER,
    Always,
    FirstOf,
    Greatest,
    LastOf,
    Least,
    Reduction,
    Rows,
    Total,
    TotalOfProducts,
    TotalWhere,
)

COUNT, OPEN, HIGH, LOW, CLOSE, VOLUME, NOTIONAL, BUY, SELL = range(9)
FIRST_TIME, FIRST_SEQUENCE, FIRST_OFFSET, LAST_TIME, LAST_SEQUENCE, LAST_OFFSET = range(9, 15)
#: where a field is; the VWAP is worked out
_SLOTS = {
    "open": OPEN,
    "high": HIGH,
    "low": LOW,
    "close": CLOSE,
    "volume": VOLUME,
    "count": COUNT,
    "buy_volume": BUY,
    "sell_volume": SELL,
    "first_time": FIRST_TIME,
    "last_time": LAST_TIME,
}
_SUMS = frozenset({VOLUME, BUY, SELL})


class Candle(Aggregate):
    """Open, high, low, close, volume, VWAP, count and the volumes by the taker's side of the trades in a window.

    Open and close follow event time, then sequence, then arrival, so partials may be merged in any order. VWAP is
    sum(price * size) / sum(size), null while the volume is 0. A record without a price or a size is skipped; one
    without a side counts in `volume` only.

    Args:
        price: the attribute that holds the price.
        size: the attribute that holds the traded amount.
        side: the attribute that holds `buy` or `sell`, or None where the records have no such thing.
    """

    kind = "candle"
    slots = 15
    fields = (
        OutputField("open", unit="price", description="price of the first trade by event time", combine="first"),
        OutputField("high", unit="price", description="highest price", combine="max"),
        OutputField("low", unit="price", description="lowest price", combine="min"),
        OutputField("close", unit="price", description="price of the last trade by event time"),
        OutputField("volume", unit="size", nullable=False, description="sum of the sizes", combine="sum"),
        OutputField(
            "vwap",
            unit="price",
            description="volume-weighted average price; null while the volume is 0",
            combine="mean",
            weight="volume",
        ),
        OutputField("count", "integer", nullable=False, description="number of trades", combine="sum"),
        OutputField("buy_volume", unit="size", nullable=False, description="volume whose taker bought", combine="sum"),
        OutputField("sell_volume", unit="size", nullable=False, description="volume whose taker sold", combine="sum"),
        OutputField("first_time", "integer", "ms", description="event time of the first trade", combine="first"),
        OutputField("last_time", "integer", "ms", description="event time of the last trade", combine="max"),
    )

    def __init__(self, price: str = "price", size: str = "size", side: str | None = "side") -> None:
        self.price = attribute_name("Candle", "price", price)
        self.size = attribute_name("Candle", "size", size)
        self.side = side if side is None else attribute_name("Candle", "side", side)
        # A missing side reads the size in its place: a number equals neither word, so the hot path needs no branch.
        read_as(self, price=self.price, size=self.size, side=self.side or self.size)

    def inputs(self, source: int) -> tuple[str, ...]:
        """Price, size and, where there is one, side."""
        return (self.price, self.size) if self.side is None else (self.price, self.size, self.side)

    def required(self, source: int) -> tuple[str, ...]:
        """Price and size."""
        return (self.price, self.size)

    def initial(self) -> State:
        """No trade: count and sums 0, all else unknown."""
        return [0, None, None, None, None, 0.0, 0.0, 0.0, 0.0, None, -1, -1, None, -1, -1]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Count one trade in."""
        price = record.price
        size = record.size
        side = record.side
        if price is None or size is None:
            return
        # Whatever cannot be added raises here, before anything has changed.
        notional = state[NOTIONAL] + price * size
        time, sequence, offset = order
        count = state[COUNT]
        if count:
            if price > state[HIGH]:
                state[HIGH] = price
            elif not price >= state[LOW]:
                if price < state[LOW]:
                    state[LOW] = price
                elif price == price:  # the extremes are no numbers as yet, and hide none
                    state[HIGH] = state[LOW] = price
            last = state[LAST_TIME]
            if time > last:
                state[CLOSE] = price
                state[LAST_TIME] = time
                state[LAST_SEQUENCE] = sequence
                state[LAST_OFFSET] = offset
            else:
                self._place(state, price, order)
        else:
            state[OPEN] = state[HIGH] = state[LOW] = state[CLOSE] = price
            state[FIRST_TIME:] = order + order
        state[COUNT] = count + 1
        state[VOLUME] += size
        state[NOTIONAL] = notional
        if side == "buy":
            state[BUY] += size
        elif side == "sell":
            state[SELL] += size

    def _place(self, state: State, price: float, order: Order) -> None:
        """Open or close by the full order: the record is not later than all others by its time alone."""
        if order > tuple(state[LAST_TIME:]):
            state[CLOSE] = price
            state[LAST_TIME:] = order
        if order < tuple(state[FIRST_TIME:LAST_TIME]):
            state[OPEN] = price
            state[FIRST_TIME:LAST_TIME] = order

    def merge(self, into: State, other: State) -> None:
        """Count another candle in."""
        if not other[COUNT]:
            return
        if not into[COUNT]:
            into[:] = other
            return
        if not other[HIGH] <= into[HIGH]:
            into[HIGH] = greater(into[HIGH], other[HIGH])
        if not other[LOW] >= into[LOW]:
            into[LOW] = lesser(into[LOW], other[LOW])
        # The times alone decide mostly, and cost a fraction of comparing slices.
        theirs, ours = other[LAST_TIME], into[LAST_TIME]
        if theirs > ours or (theirs == ours and other[LAST_TIME:] > into[LAST_TIME:]):
            into[CLOSE] = other[CLOSE]
            into[LAST_TIME:] = other[LAST_TIME:]
        theirs, ours = other[FIRST_TIME], into[FIRST_TIME]
        if theirs < ours or (theirs == ours and other[FIRST_TIME:LAST_TIME] < into[FIRST_TIME:LAST_TIME]):
            into[OPEN] = other[OPEN]
            into[FIRST_TIME:LAST_TIME] = other[FIRST_TIME:LAST_TIME]
        into[COUNT] += other[COUNT]
        into[VOLUME] += other[VOLUME]
        into[NOTIONAL] += other[NOTIONAL]
        into[BUY] += other[BUY]
        into[SELL] += other[SELL]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        side = self.side
        return [
            Rows(),
            FirstOf(self.price),
            Greatest(self.price),
            Least(self.price),
            LastOf(self.price),
            Total(self.size),
            TotalOfProducts(self.price, self.size),
            Always(0.0) if side is None else TotalWhere(self.size, side, "buy"),
            Always(0.0) if side is None else TotalWhere(self.size, side, "sell"),
            *FIRST_ORDER,
            *LAST_ORDER,
        ]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The candle's fields; prices and times are null while there is no trade."""
        return {
            "open": state[OPEN],
            "high": state[HIGH],
            "low": state[LOW],
            "close": state[CLOSE],
            "volume": finite(state[VOLUME]),
            "vwap": ratio(state[NOTIONAL], state[VOLUME]),
            "count": state[COUNT],
            "buy_volume": finite(state[BUY]),
            "sell_volume": finite(state[SELL]),
            "first_time": state[FIRST_TIME],
            "last_time": state[LAST_TIME],
        }

    def reader_of(self, name: str) -> Callable[[State, tuple[int, int] | None], Json]:
        """One field, without the others."""
        if name == "vwap":
            return lambda state, _window: ratio(state[NOTIONAL], state[VOLUME])
        slot = _SLOTS[name]
        if slot in _SUMS:
            return lambda state, _window: finite(state[slot])
        return lambda state, _window: state[slot]

    def parameters(self) -> Sequence[object]:
        """The names of the three attributes."""
        return (self.price, self.size, self.side)
