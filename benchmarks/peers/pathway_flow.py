"""Pathway: grouped and reduced by symbol and minute. No persistence: state is in memory only."""

import os
import time

import pathway as pw
from marks import Meter, mark


class Trade(pw.Schema):
    """One trade."""

    symbol: str
    price: float
    size: float
    event_time: int
    trade_id: str
    side: str


meter = Meter()
counts = {}


def changed(key, row, time, is_addition):
    """Remember how many trades each candle holds."""
    if is_addition:
        counts[key] = row["count"]


def batch_over(_):
    """The engine has worked off one batch: from the end of the first one to the end of the last counts."""
    total = sum(counts.values())
    if not meter.seen:
        meter.seen, meter.begin = total, time.perf_counter()
        mark("first", events=total)
    elif total >= meter.wanted:
        meter.finish(total - meter.seen)


settings = {
    "bootstrap.servers": os.environ["BENCH_BROKERS"],
    "group.id": os.environ["BENCH_GROUP"],
    "auto.offset.reset": "earliest",
}
trades = pw.io.kafka.read(
    settings, topic=os.environ["BENCH_TOPIC"], schema=Trade, format="json", autocommit_duration_ms=200
)
keyed = trades.with_columns(minute=pw.this.event_time // 60_000, notional=pw.this.price * pw.this.size)
candles = keyed.groupby(pw.this.symbol, pw.this.minute).reduce(
    pw.this.symbol,
    pw.this.minute,
    high=pw.reducers.max(pw.this.price),
    low=pw.reducers.min(pw.this.price),
    volume=pw.reducers.sum(pw.this.size),
    notional=pw.reducers.sum(pw.this.notional),
    count=pw.reducers.count(),
)
pw.io.subscribe(candles, on_change=changed, on_time_end=batch_over)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
