"""Modules such as users write, each under names of its own, so that tests can share one Kafka."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import orjson

from tests.fakes.processes import Topics, Worker, until

MINUTE = 60_000
#: the start of a minute, some weeks ago
START = 1_790_000_040_000

CANDLES = """
from datetime import timedelta

from streamapp import Candle, StreamApp, Trade, tumbling

app = StreamApp(APP)
trades = app.topic(TRADES, value_type=Trade)
candles = app.window_table(
    "candles",
    source=trades,
    window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10), retention=timedelta(days=1)),
    aggregate=Candle(),
)
"""


class UserApp:
    """One module in a folder, with an id and a source topic that nothing else uses.

    Args:
        text: the module; `APP` and `TRADES` in it are the id and the topic.
    """

    def __init__(self, topics: Topics, folder: Path, text: str = CANDLES, name: str = "app") -> None:
        self.topics = topics
        self.folder = folder
        self.id = f"{name}-{uuid.uuid4().hex[:8]}"
        self.trades = f"{self.id}-trades"
        self.module = "user_module"
        source = f"APP, TRADES = {self.id!r}, {self.trades!r}\n{dedent(text)}"
        (folder / f"{self.module}.py").write_text(source, encoding="utf-8")

    def worker(self, name: str = "worker", env: Mapping[str, str] | None = None) -> Worker:
        """A worker of this module; not started yet."""
        return Worker(self.topics.brokers, self.folder, module=self.module, name=name, env=env)

    def send(self, *trades: dict[str, Any]) -> None:
        """Append trades to the source topic."""
        self.topics.produce(self.trades, [(f"{t['venue']}:{t['symbol']}", orjson.dumps(t)) for t in trades])

    def until_shared(self, first: Worker, second: Worker) -> None:
        """Wait until both workers are ready and have all partitions of the source topic between them, each some of them."""
        partitions = list(range(self.topics.partitions(self.trades)))

        def shared() -> bool:
            one, other = first.assigned(self.trades), second.assigned(self.trades)
            return bool(one and other) and sorted(one + other) == partitions

        until("both to have a share", shared, hint=lambda: first.last_words + second.log[-2_000:])
        first.until_ready()
        second.until_ready()

    def drained(self, worker: Worker, *more: str) -> None:
        """Wait until all that was sent is durable and committed."""
        self.topics.until_drained(self.id, self.trades, *more, hint=lambda: worker.last_words)


def trade(symbol: str = "BTC-USD", time: int = START, price: float = 100.0, **changed: Any) -> dict[str, Any]:
    """A trade as JSON has it."""
    return {
        "venue": "x",
        "symbol": symbol,
        "price": price,
        "size": 1.0,
        "side": "buy",
        "trade_id": "1",
        "sequence": None,
        "event_time": time,
        "ingest_time": time,
        **changed,
    }
