"""Bytewax: a folded tumbling window. No changelog and no recovery: state is in memory only."""

import json
import os
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from marks import Meter

meter = Meter()


def decode(message):
    """Key and trade."""
    trade = json.loads(message.value)
    return trade["symbol"], trade


def event_time(trade):
    """As Bytewax wants it."""
    return datetime.fromtimestamp(trade["event_time"] / 1000, UTC)


def add(candle, trade):
    """The candle with one more trade."""
    price, size = trade["price"], trade["size"]
    if candle:
        candle[1] = max(candle[1], price)
        candle[2] = min(candle[2], price)
        candle[3] = price
        candle[4] += size
        candle[5] += price * size
        candle[6] += 1
    else:
        candle.extend((price, price, price, price, size, price * size, 1))
    meter.tick()
    return candle


def merge(candle, other):
    """Never called for tumbling windows."""
    return candle or other


flow = Dataflow("candles")
records = kafka.input(
    "trades",
    flow,
    brokers=[os.environ["BENCH_BROKERS"]],
    topics=[os.environ["BENCH_TOPIC"]],
    tail=False,
    batch_size=5_000,
)
windows = fold_window(
    "candle",
    op.map("decode", records.oks, decode),
    EventClock(ts_getter=event_time, wait_for_system_duration=timedelta(seconds=10)),
    TumblingWindower(length=timedelta(minutes=1), align_to=datetime(2024, 1, 1, tzinfo=UTC)),
    list,
    add,
    merge,
    ordered=False,
)
op.inspect("out", op.filter("nothing", windows.down, lambda _: False))
