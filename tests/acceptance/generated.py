"""Seeded trades for runs against the reference: mostly in order, with what makes windows hard."""

import random
from collections.abc import Iterator
from typing import Any

import orjson

START_MS = 1_790_000_000_000
SYMBOLS = (
    "BTC-USD",
    "ETH-USD",
    "SOL-USD",
    "XRP-USD",
    "ADA-USD",
    "DOT-USD",
    "LTC-USD",
    "LINK-USD",
    "UNI-USD",
    "AVAX-USD",
)


def generated_trades(seed: int, count: int, span_ms: int) -> Iterator[dict[str, Any]]:
    """Trades over `span_ms` of event time.

    Some are out of order within the grace of 10 s, some later than that, a few hopelessly late; times tie, sequences tie
    or are missing, sides are missing, sizes are 0.
    """
    draw = random.Random(seed)
    prices = {symbol: draw.uniform(1, 60_000) for symbol in SYMBOLS}
    for number in range(count):
        symbol = SYMBOLS[min(int(draw.expovariate(0.4)), len(SYMBOLS) - 1)]
        price = prices[symbol] = max(0.5, prices[symbol] * (1 + draw.gauss(0, 3e-4)))
        time = START_MS + number * span_ms // count
        kind = draw.random()
        if kind < 0.10:
            time -= draw.randrange(9_000)
        elif kind < 0.13:
            time -= draw.randrange(60_000)
        elif kind < 0.135:
            time -= draw.randrange(1_200_000)
        if draw.random() < 0.3:
            time -= time % 500
        yield {
            "venue": "generated",
            "symbol": symbol,
            "price": round(price, 2),
            "size": 0 if draw.random() < 0.01 else round(draw.expovariate(2.0), 4),
            "side": draw.choice(("buy", "sell", "buy", "sell", "buy", None)),
            "trade_id": str(number),
            "sequence": None if draw.random() < 0.05 else number // 3,
            "event_time": max(time, 0),
            "ingest_time": time,
        }


def encoded(trade: dict[str, Any]) -> tuple[str, bytes]:
    """Key and value as on the topic."""
    return f"{trade['venue']}:{trade['symbol']}", orjson.dumps(trade)
