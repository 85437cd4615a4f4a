"""The same table by a function of the user's own, in plain Python."""

import os
from datetime import timedelta
from typing import Any

from benchmarks.apps.records import BenchTrade
from streamapp import Fold, StreamApp, tumbling


def step(state: dict[str, Any], trade: BenchTrade) -> dict[str, Any]:
    """Keep the candle up to date."""
    price = trade.price
    if state["count"] == 0:
        state["open"] = state["high"] = state["low"] = price
    elif price > state["high"]:
        state["high"] = price
    elif price < state["low"]:
        state["low"] = price
    state["close"] = price
    state["volume"] += trade.size
    state["count"] += 1
    return state


app = StreamApp(os.environ["BENCH_APP_ID"])
trades = app.topic(os.environ["BENCH_TOPIC"], value_type=BenchTrade)
candles = app.window_table(
    "candles",
    source=trades,
    window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10), retention=timedelta(days=1)),
    aggregate=Fold(
        {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0, "volume": 0.0, "count": 0},
        step,
        reads=("price", "size"),
    ),
)
