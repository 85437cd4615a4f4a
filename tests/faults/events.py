"""Seeded trades: mostly in order, with all that makes windows hard, each told apart by a unique ascending id."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from tests.faults.tables import GRACE_MS, MINUTE_MS

#: the start of a five minutes, some weeks ago
START_MS = 1_790_000_100_000
SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "ADA-USD", "DOT-USD")
VENUES = ("a", "b", "c")
#: event time that one trade stands for, so that a run of some ten thousand lasts an hour of event time
STEP_MS = 120

Record = tuple[str, bytes]


class Trades:
    """An endless run of trades; the same seed gives the same ones, however they are taken.

    Args:
        seed: decides everything.
        lateness: share of the trades that come later than the grace.
        shuffle: share of the trades that come late, but within the grace.
    """

    def __init__(self, seed: int, *, lateness: float = 0.03, shuffle: float = 0.15) -> None:
        self._draw = random.Random(f"trades-{seed}")
        self._lateness = lateness
        self._shuffle = shuffle
        self._prices = {(venue, symbol): self._draw.uniform(1, 60_000) for venue in VENUES for symbol in SYMBOLS}
        self.count = 0

    def take(self, count: int) -> list[Record]:
        """The next trades, as key and value."""
        return [encoded(self._next()) for _ in range(count)]

    def plain(self, count: int) -> list[dict[str, Any]]:
        """The next trades, as they are before encoding."""
        return [self._next() for _ in range(count)]

    def _next(self) -> dict[str, Any]:
        draw, number = self._draw, self.count
        self.count += 1
        venue = draw.choice(VENUES)
        symbol = SYMBOLS[min(int(draw.expovariate(0.5)), len(SYMBOLS) - 1)]
        price = self._prices[venue, symbol] = max(0.5, self._prices[venue, symbol] * (1 + draw.gauss(0, 3e-4)))
        time = on_time = START_MS + number * STEP_MS
        kind = draw.random()
        if kind < self._lateness:
            time -= draw.randrange(GRACE_MS, 12 * MINUTE_MS)
        elif kind < self._lateness + self._shuffle:
            time -= draw.randrange(GRACE_MS * 9 // 10)
        if draw.random() < 0.3:
            time -= time % 1_000  # times tie, across keys and within one
        return {
            "venue": venue,
            "symbol": symbol,
            "price": round(price, 2),
            "size": 0 if draw.random() < 0.01 else round(draw.expovariate(2.0), 4),
            "side": draw.choice(("buy", "sell", "buy", "sell", "buy", None)),
            "trade_id": str(number),
            "sequence": None if draw.random() < 0.05 else number // 3,
            "event_time": time,
            "ingest_time": on_time,
        }


def encoded(trade: dict[str, Any]) -> Record:
    """Key and value as on the topic."""
    return f"{trade['venue']}:{trade['symbol']}", orjson.dumps(trade)


def shares(records: Sequence[Record], parts: int) -> Iterator[Sequence[Record]]:
    """The records in so many consecutive parts of about the same size."""
    for part in range(parts):
        yield records[len(records) * part // parts : len(records) * (part + 1) // parts]
