"""The aggregates of the built-in market tables `stats_5m` and `latest`."""

from collections.abc import Sequence
from typing import Any

from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State, finite, greater, lesser, ratio
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders
from streamapp.windows.edges import NO_EDGE, first_edge, last_edge, log_ratio, merge_first, merge_last
from streamapp.windows.reductions import LAST_ORDER, Always, Greatest, LastOf, Least, Reduction, Total, TotalOfProducts
from streamapp.windows.spread import merge_moments, moments, parkinson, sample_stddev

MOMENTS, HIGH, LOW, VOLUME, NOTIONAL, FIRST, LAST = 0, 3, 4, 5, 6, 7, 11


class TradeStats(Aggregate):
    """Statistics of the prices in a window: moments, range, edges, VWAP, return and volatility.

    `mean` and `stddev` (of the sample) are over trades, not weighted by size. A record without price or size is skipped.

    Args:
        price: the attribute that holds the price.
        size: the attribute that holds the amount.
    """

    kind = "trade_stats"
    slots = 15
    fields = (
        OutputField("count", "integer", nullable=False, description="number of trades", combine="sum"),
        OutputField("mean", unit="price", description="mean price over trades", combine="mean", weight="count"),
        OutputField(
            "stddev", unit="price", description="sample standard deviation of the prices; null below two trades"
        ),
        OutputField("min", unit="price", description="lowest price", combine="min"),
        OutputField("max", unit="price", description="highest price", combine="max"),
        OutputField("open", unit="price", description="price of the first trade by event time", combine="first"),
        OutputField("close", unit="price", description="price of the last trade by event time"),
        OutputField("vwap", unit="price", description="volume-weighted average price; null while the volume is 0"),
        OutputField("log_return", description="ln(close / open)"),
        OutputField("volatility", description="Parkinson's, sqrt(ln(max/min)^2 / (4 ln 2)), for the window"),
    )

    def __init__(self, price: str = "price", size: str = "size") -> None:
        self.price = attribute_name("TradeStats", "price", price)
        self.size = attribute_name("TradeStats", "size", size)
        read_as(self, price=self.price, size=self.size)

    def inputs(self, source: int) -> tuple[str, ...]:
        """Price and size."""
        return (self.price, self.size)

    def initial(self) -> State:
        """No trade."""
        return [0, 0.0, 0.0, None, None, 0.0, 0.0, *NO_EDGE, *NO_EDGE]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Count one trade in."""
        price = record.price
        size = record.size
        if price is None or size is None:
            return
        # Whatever cannot be added raises here, before anything has changed.
        notional = state[NOTIONAL] + price * size
        count, mean, m2 = state[:3]
        if count:
            if price > state[HIGH]:
                state[HIGH] = price
            elif not price >= state[LOW]:
                if price < state[LOW]:
                    state[LOW] = price
                elif price == price:  # the extremes are no numbers as yet, and hide none
                    state[HIGH] = state[LOW] = price
            if order[0] > state[LAST + 1]:
                state[LAST:] = (price, *order)
            else:
                merge_last(state, [None] * LAST + [price, *order], LAST)
                merge_first(state, [None] * FIRST + [price, *order], FIRST)
        else:
            state[HIGH] = state[LOW] = price
            state[FIRST:] = (price, *order, price, *order)
        count += 1
        delta = price - mean
        mean += delta / count
        state[:3] = count, mean, m2 + delta * (price - mean)
        state[VOLUME] += size
        state[NOTIONAL] = notional

    def merge(self, into: State, other: State) -> None:
        """Count other trades in."""
        if not other[0]:
            return
        if not into[0]:
            into[:] = other
            return
        merge_moments(into, other, MOMENTS)
        into[HIGH] = greater(into[HIGH], other[HIGH])
        into[LOW] = lesser(into[LOW], other[LOW])
        into[VOLUME] += other[VOLUME]
        into[NOTIONAL] += other[NOTIONAL]
        merge_first(into, other, FIRST)
        merge_last(into, other, LAST)

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return [
            *moments(self.price),
            Greatest(self.price),
            Least(self.price),
            Total(self.size),
            TotalOfProducts(self.price, self.size),
            *first_edge(self.price),
            *last_edge(self.price),
        ]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The statistics; all but the count are null while there is no trade."""
        count = state[0]
        return {
            "count": count,
            "mean": finite(state[1]) if count else None,
            "stddev": sample_stddev(count, state[2]),
            "min": state[LOW],
            "max": state[HIGH],
            "open": state[FIRST],
            "close": state[LAST],
            "vwap": ratio(state[NOTIONAL], state[VOLUME]),
            "log_return": log_ratio(state[LAST], state[FIRST]),
            "volatility": parkinson(state[HIGH], state[LOW]),
        }

    def parameters(self) -> Sequence[object]:
        """Price and size."""
        return (self.price, self.size)


TRADES, QUOTES = 0, 1
TRADE_ORDER, BID, ASK, QUOTE_ORDER = 3, 6, 7, 8


class MarketLatest(Aggregate):
    """The newest trade and the newest quote of an instrument, from two sources: 0 is trades, 1 is quotes.

    Each side is the last of its own source by event time, then sequence, then arrival; the two never wait for one another.
    A trade or a quote without its prices is skipped.
    """

    kind = "market_latest"
    slots = 11
    fields = (
        OutputField("price", unit="price", description="price of the newest trade"),
        OutputField("size", unit="size", description="its size"),
        OutputField("side", "string", description="its taker's side, buy or sell"),
        OutputField("trade_time", "integer", "ms", description="its event time"),
        OutputField("bid", unit="price", description="best bid of the newest quote"),
        OutputField("ask", unit="price", description="best ask of the newest quote"),
        OutputField("mid", unit="price", description="(bid + ask) / 2"),
        OutputField("spread", unit="price", description="ask - bid"),
        OutputField("quote_time", "integer", "ms", description="event time of the newest quote"),
    )

    def inputs(self, source: int) -> tuple[str, ...]:
        """Price, size and side of trades; bid and ask of quotes."""
        return ("price", "size", "side") if source == TRADES else ("bid", "ask")

    def required(self, source: int) -> tuple[str, ...]:
        """The prices; a trade's side may be null."""
        return ("price", "size") if source == TRADES else ("bid", "ask")

    def initial(self) -> State:
        """Neither trade nor quote."""
        return [None, None, None, None, -1, -1, None, None, None, -1, -1]

    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Take the trade or quote if it is newer than the one held."""
        if source == TRADES:
            time = state[3]
            if time is None or order[0] > time or (order[0] == time and order > tuple(state[3:6])):
                price = record.price
                size = record.size
                side = record.side
                if price is not None and size is not None:
                    state[:6] = (price, size, side, *order)
            return
        time = state[8]
        if time is None or order[0] > time or (order[0] == time and order > tuple(state[8:])):
            bid = record.bid
            ask = record.ask
            if bid is not None and ask is not None:
                state[6:] = (bid, ask, *order)

    def merge(self, into: State, other: State) -> None:
        """Keep the newer trade and the newer quote."""
        for start, time, end in ((0, TRADE_ORDER, BID), (BID, QUOTE_ORDER, 11)):
            newer = other[time] is not None and (into[time] is None or other[time:end] > into[time:end])
            if newer:
                into[start:end] = other[start:end]

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        newest = [*map(LastOf, self.inputs(source)), *LAST_ORDER]
        absent = [Always(None), Always(None), Always(None), Always(None), Always(-1), Always(-1)]
        return [*newest, *absent[1:]] if source == TRADES else [*absent, *newest]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """Both sides; null where there was no record yet."""
        price, size, side, trade_time, _, _, bid, ask, quote_time, _, _ = state
        quoted = quote_time is not None
        return {
            "price": price,
            "size": size,
            "side": side,
            "trade_time": trade_time,
            "bid": bid,
            "ask": ask,
            "mid": (bid + ask) / 2 if quoted else None,
            "spread": ask - bid if quoted else None,
            "quote_time": quote_time,
        }
