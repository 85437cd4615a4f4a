"""Stock Faust: an agent that does nothing with its events."""

import os

import faust
from marks import Meter

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['BENCH_BROKERS']}",
    datadir=os.environ["BENCH_STATE"],
    topic_partitions=4,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    broker_max_poll_records=5_000,
    web_enabled=False,
)


class Trade(faust.Record, serializer="json"):
    """One trade."""

    symbol: str
    price: float
    size: float
    event_time: int
    trade_id: str
    side: str


trades = app.topic(os.environ["BENCH_TOPIC"], value_type=Trade)
meter = Meter()


@app.agent(trades)
async def count(stream):
    """Only count."""
    async for _ in stream:
        meter.tick()


if __name__ == "__main__":
    app.main()
