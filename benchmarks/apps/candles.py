"""One table: a candle per symbol and minute, as every engine of the comparison keeps it."""

import os
from datetime import timedelta

from benchmarks.apps.records import BenchTrade
from streamapp import Candle, StreamApp, tumbling

app = StreamApp(os.environ["BENCH_APP_ID"])
trades = app.topic(os.environ["BENCH_TOPIC"], value_type=BenchTrade)
candles = app.window_table(
    "candles",
    source=trades,
    window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10), retention=timedelta(days=1)),
    aggregate=Candle(),
)
