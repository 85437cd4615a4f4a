"""An application of one's own: one table and one agent over the trades that a bridge writes.

From this folder: faust -A prices worker -l info --web-port 6066
"""

from datetime import timedelta

from streamapp import Candle, StreamApp, Trade, tumbling

app = StreamApp("prices")
trades = app.topic("trades", value_type=Trade)
candles = app.window_table(
    "candles",
    source=trades,
    window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10), retention=timedelta(days=1)),
    aggregate=Candle(),
)


@app.agent(trades)  # plain Faust agents go on working
async def big(stream):
    async for trade in stream:
        if trade.size > 10:
            print(trade)
