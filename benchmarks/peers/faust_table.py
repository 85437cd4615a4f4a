"""Plain Faust: a RocksDB window table with its changelog, updated by an agent."""

import os

import faust
from marks import Meter

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['BENCH_BROKERS']}",
    store="rocksdb://",
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
# Faust reads event time from the record's own timestamp, which is the same here
candles = (
    app.Table("candles", default=list, partitions=4, options={"driver": "rocksdict"})
    .tumbling(60.0, expires=86_400.0)
    .relative_to_stream()
)
meter = Meter()


@app.agent(trades)
async def aggregate(stream):
    """Read, change, write back."""
    async for trade in stream:
        window = candles[trade.symbol]
        price, size = trade.price, trade.size
        candle = window.value()
        if candle:
            opened, high, low, _, volume, notional, count = candle
            candle = [
                opened,
                max(high, price),
                min(low, price),
                price,
                volume + size,
                notional + price * size,
                count + 1,
            ]
        else:
            candle = [price, price, price, price, size, price * size, 1]
        candles[trade.symbol] = candle
        meter.tick()


if __name__ == "__main__":
    app.main()
