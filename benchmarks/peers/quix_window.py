"""Quix Streams: a tumbling window reduced into a candle, RocksDB and changelog on, every update emitted."""

import os
from datetime import timedelta

from marks import Meter
from quixstreams import Application

app = Application(
    broker_address=os.environ["BENCH_BROKERS"],
    consumer_group=os.environ["BENCH_GROUP"],
    state_dir=os.environ["BENCH_STATE"],
    auto_offset_reset="earliest",
    commit_interval=1.0,
    use_changelog_topics=True,
    loglevel="WARNING",
)
meter = Meter()


def begin(trade):
    """The candle of one trade."""
    price, size = trade["price"], trade["size"]
    return {"o": price, "h": price, "l": price, "c": price, "v": size, "n": price * size, "count": 1}


def merge(candle, trade):
    """The candle with one more trade."""
    price, size = trade["price"], trade["size"]
    candle["h"] = max(candle["h"], price)
    candle["l"] = min(candle["l"], price)
    candle["c"] = price
    candle["v"] += size
    candle["n"] += price * size
    candle["count"] += 1
    return candle


def counted(_):
    """Count what came out of the window."""
    meter.tick()


trades = app.dataframe(app.topic(os.environ["BENCH_TOPIC"], value_deserializer="json"))
window = trades.tumbling_window(timedelta(minutes=1), grace_ms=timedelta(seconds=10))
window.reduce(merge, begin).current().update(counted)

if __name__ == "__main__":
    app.run()
