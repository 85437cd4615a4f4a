"""Coinbase Exchange frames of a walk's trades."""

from collections.abc import Iterable
from typing import TypeAlias

from streamapp.simulator.faults import FaultPlan
from streamapp.simulator.walk import RandomWalk, WalkTrade, iso_time

MATCHES = "matches"
TICKER = "ticker"
HEARTBEAT = "heartbeat"
CHANNELS = (MATCHES, TICKER, HEARTBEAT)

_MAKER = {"buy": "sell", "sell": "buy"}


#: channel, product and payload (ASCII); channel and product are empty for garbage, which everybody gets
Frame: TypeAlias = tuple[str, str, str]

_TWO = [f"{number:02d}" for number in range(100)]
_FOUR = [f"{number:04d}" for number in range(10_000)]


class FrameEncoder:
    """Turns trades into frames, in order, with the faults of a plan.

    Args:
        plan: what goes wrong.
        ticker_every: every n-th trade of a product also gives a ticker; 0: none.
    """

    def __init__(self, plan: FaultPlan, ticker_every: int = 5) -> None:
        self._plan = plan
        self._ticker_every = ticker_every
        self._held: list[tuple[int, list[Frame]]] = []
        self._second = -1
        self._prefix = ""
        #: the newest trade that was told, per symbol
        self.told: dict[str, WalkTrade] = {}

    def encode(self, trades: Iterable[WalkTrade]) -> list[Frame]:
        """The frames of some trades; one that is to come late may wait for a later call."""
        if self._plan.active:
            return self._encode_with_faults(trades)
        frames: list[Frame] = []
        add, told, ticker_every = frames.append, self.told, self._ticker_every
        for trade in trades:
            time = self._time(trade.time_us)
            symbol = trade.symbol
            told[symbol] = trade
            add((MATCHES, symbol, match_text(trade, "match", time)))
            if ticker_every and not trade.trade_id % ticker_every:
                add((TICKER, symbol, ticker_text(trade, time)))
        return frames

    def _encode_with_faults(self, trades: Iterable[WalkTrade]) -> list[Frame]:
        frames: list[Frame] = []
        for trade in trades:
            fault = self._plan.draw()
            if fault.garbage is not None:
                frames.append(("", "", fault.garbage))
            if not fault.skip:
                self.told[trade.symbol] = trade
                time = self._time(trade.time_us)
                own: list[Frame] = [(MATCHES, trade.symbol, match_text(trade, "match", time))] * fault.copies
                if self._ticker_every and not trade.trade_id % self._ticker_every:
                    own.append((TICKER, trade.symbol, ticker_text(trade, time)))
                if fault.delay:
                    self._held.append((trade.number + fault.delay, own))
                else:
                    frames += own
            if self._held:
                frames += self._release(trade.number)
        return frames

    def flush(self) -> list[Frame]:
        """What is still held back; at the end of a run."""
        frames = [frame for _, held in self._held for frame in held]
        self._held.clear()
        return frames

    def _release(self, number: int) -> list[Frame]:
        due = [entry for entry in self._held if entry[0] <= number]
        self._held = [entry for entry in self._held if entry[0] > number]
        return [frame for _, held in due for frame in held]

    def _time(self, time_us: int) -> str:
        second, microsecond = divmod(time_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._prefix = iso_time(second * 1_000_000)[:20]
        return f"{self._prefix}{microsecond:06d}Z"


def match_text(trade: WalkTrade, kind: str, time: str) -> str:
    """A `match` or `last_match`; `side` is the maker's, as at the venue."""
    _, symbol, trade_id, sequence, price, size, taker, _, _, _ = trade
    order = f"-8000-{sequence:012x}"
    return (
        f'{{"type":"{kind}","trade_id":{trade_id},"maker_order_id":"00000000-0000-4000{order}",'
        f'"taker_order_id":"00000000-0000-4001{order}","side":"{_MAKER[taker]}",'
        f'"size":"{size // 10_000}.{_FOUR[size % 10_000]}","price":"{price // 100}.{_TWO[price % 100]}",'
        f'"product_id":"{symbol}","sequence":{sequence},"time":"{time}"}}'
    )


def ticker_text(trade: WalkTrade, time: str) -> str:
    """A `ticker` right after a trade."""
    _, symbol, trade_id, sequence, price, size, taker, bid, ask, _ = trade
    return (
        f'{{"type":"ticker","sequence":{sequence},"product_id":"{symbol}",'
        f'"price":"{price // 100}.{_TWO[price % 100]}","best_bid":"{bid // 100}.{_TWO[bid % 100]}",'
        f'"best_bid_size":"{1 + sequence % 9}.5000","best_ask":"{ask // 100}.{_TWO[ask % 100]}",'
        f'"best_ask_size":"{1 + trade_id % 9}.2500","side":"{taker}","time":"{time}",'
        f'"trade_id":{trade_id},"last_size":"{size // 10_000}.{_FOUR[size % 10_000]}"}}'
    )


def heartbeat_text(walk: RandomWalk, symbol: str) -> str:
    """A `heartbeat` of one product."""
    trade_id, sequence = walk.position(symbol)
    return (
        f'{{"type":"heartbeat","last_trade_id":{trade_id},"product_id":"{symbol}","sequence":{sequence},'
        f'"time":"{iso_time(walk.now_us)}"}}'
    )
