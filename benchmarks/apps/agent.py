"""A plain agent without a table: what one pass through a user's `async for` costs."""

import os

import faust

from benchmarks.peers.marks import Meter
from streamapp import StreamApp

app = StreamApp(os.environ["BENCH_APP_ID"])


class AgentTrade(faust.Record, serializer="json"):
    symbol: str
    price: float
    size: float
    event_time: int
    trade_id: str
    side: str


trades = app.topic(os.environ["BENCH_TOPIC"], value_type=AgentTrade)
meter = Meter()


@app.agent(trades)
async def count(stream):
    async for _ in stream:
        meter.tick()
