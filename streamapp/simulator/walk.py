"""The seeded random walk: which trades happen, apart from who is told.

Pure: no clock, no I/O. Two walks with the same parameters yield the same trades, on any machine (integers only), so that
a test can compute what a run of the simulator must have produced.
"""

import datetime
import random
from typing import NamedTuple

from streamapp.errors import ConfigurationError

_NAMED = (
    ("BTC-USD", 6_412_000),
    ("ETH-USD", 318_400),
    ("SOL-USD", 14_850),
    ("XRP-USD", 5_231),
    ("ADA-USD", 4_417),
    ("DOGE-USD", 1_284),
    ("LTC-USD", 8_126),
    ("LINK-USD", 1_637),
    ("AVAX-USD", 3_512),
    ("DOT-USD", 718),
)
#: symbols at most: they are drawn with 16 random bits
MAX_SYMBOLS = 10_000
#: prices are whole multiples of 0.01, sizes of 0.0001
PRICE_DECIMALS = 2
SIZE_DECIMALS = 4

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class WalkTrade(NamedTuple):
    """One trade of the walk.

    Attributes:
        number: how many trades of all symbols came before it.
        symbol: `BASE-QUOTE`.
        trade_id: counts per symbol, from 1, without holes.
        sequence: counts per symbol with holes, as an order book's does.
        price_units: the price in hundredths.
        size_units: the size in ten-thousandths.
        taker: `buy` or `sell`.
        bid_units: the best bid right after it, in hundredths.
        ask_units: the best ask right after it, in hundredths.
        time_us: event time, microseconds since the epoch.
    """

    number: int
    symbol: str
    trade_id: int
    sequence: int
    price_units: int
    size_units: int
    taker: str
    bid_units: int
    ask_units: int
    time_us: int

    @property
    def price(self) -> float:
        """The price, as whoever parses the frame's text gets it."""
        return self.price_units / 100

    @property
    def size(self) -> float:
        """The size, as whoever parses the frame's text gets it."""
        return self.size_units / 10_000

    @property
    def event_time(self) -> int:
        """Milliseconds since the epoch, rounded down, as on the topic."""
        return self.time_us // 1000


class _State:
    __slots__ = ("ceiling", "floor", "price", "sequence", "step", "symbol", "trade_id")

    def __init__(self, symbol: str, price: int) -> None:
        self.symbol = symbol
        self.price = price
        self.floor = max(10, price // 2)
        self.ceiling = price * 2
        self.step = max(1, price // 200_000)
        self.trade_id = 0
        self.sequence = 1_000


def walk_symbols(count: int) -> list[str]:
    """The names of the first `count` symbols: well-known ones, then `S0011-USD` and so on."""
    return [symbol for symbol, _ in _starts(count)]


def _starts(count: int) -> list[tuple[str, int]]:
    if not 1 <= count <= MAX_SYMBOLS:
        raise ConfigurationError(f"the number of symbols must be from 1 to {MAX_SYMBOLS}, got {count}")
    more = [(f"S{number:04d}-USD", 1_000 + number * 37) for number in range(len(_NAMED) + 1, count + 1)]
    return [*_NAMED, *more][:count]


class RandomWalk:
    """An endless sequence of trades over several symbols.

    Trade `i` happens at `start_time_ms + i / rate` seconds, stretched by `time_scale`. Prices move by a symmetric step,
    rarely by a large one with a large size, and stay between half and twice the start.

    Args:
        seed: same seed, same trades.
        symbols: how many symbols take part.
        rate: trades per second over all symbols, of unscaled event time.
        start_time_ms: event time of the first trade, milliseconds since the epoch.
        time_scale: seconds of event time per second of the schedule.

    Raises:
        ConfigurationError: a number out of its range.
    """

    def __init__(self, *, seed: int, symbols: int, rate: float, start_time_ms: int, time_scale: float = 1.0) -> None:
        if rate <= 0 or time_scale <= 0:
            raise ConfigurationError(f"rate and time scale must be above 0, got {rate} and {time_scale}")
        self._states = [_State(symbol, price) for symbol, price in _starts(symbols)]
        self._by_symbol = {state.symbol: state for state in self._states}
        self._bits = random.Random(seed).getrandbits
        self._start_us = start_time_ms * 1000
        self._us_per_trade = 1_000_000 * time_scale / rate
        #: how many trades have happened
        self.index = 0

    @property
    def symbols(self) -> list[str]:
        """The names of all symbols, in the order of the walk."""
        return [state.symbol for state in self._states]

    @property
    def now_us(self) -> int:
        """Event time of the next trade, microseconds since the epoch."""
        return self._start_us + int(self.index * self._us_per_trade)

    def position(self, symbol: str) -> tuple[int, int]:
        """The last trade id and sequence of a symbol; the id is 0 before its first trade."""
        state = self._by_symbol[symbol]
        return state.trade_id, state.sequence

    def take(self, count: int) -> list[WalkTrade]:
        """The next `count` trades, in order of event time."""
        states, bits, many = self._states, self._bits, len(self._states)
        start_us, us_per_trade = self._start_us, self._us_per_trade
        trades = []
        for number in range(self.index, self.index + count):
            draw = bits(64)
            state = states[(draw & 0xFFFF) % many]
            step = (((draw >> 16) & 0xF) - ((draw >> 20) & 0xF)) * state.step
            size = 1 + ((draw >> 26) & 0xFFF) * ((draw >> 38) & 0x3F)
            if not (draw >> 53) & 0x7FF:
                step *= 24
                size *= 40
            price = state.price + step
            if not state.floor <= price <= state.ceiling:
                price = state.price - step
            state.price = price
            state.trade_id = trade_id = state.trade_id + 1
            state.sequence = sequence = state.sequence + 1 + ((draw >> 24) & 0x3)
            half_spread = 1 + ((draw >> 44) & 0x7)
            time_us = start_us + int(number * us_per_trade)
            if (draw >> 47) & 1:
                taker, bid, ask = "buy", price - half_spread, price
            else:
                taker, bid, ask = "sell", price, price + half_spread
            trades.append(WalkTrade(number, state.symbol, trade_id, sequence, price, size, taker, bid, ask, time_us))
        self.index += count
        return trades


def iso_time(time_us: int) -> str:
    """Microseconds since the epoch as RFC 3339, in UTC with six decimals."""
    moment = _EPOCH + datetime.timedelta(microseconds=time_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
