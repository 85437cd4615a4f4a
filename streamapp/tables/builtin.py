"""The tables of the built-in application: candles, statistics, the latest values and signals of every instrument."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from streamapp.records.models import Quote, Trade
from streamapp.tables.market import MarketLatest, TradeStats
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import hopping, tumbling

if TYPE_CHECKING:
    from streamapp.app import StreamApp
    from streamapp.settings import Settings

KEY_FORM = "venue:symbol, for example coinbase:BTC-USD"


def declare_market_tables(app: "StreamApp") -> Any:
    """Declare `candles_1m`, `candles_5m`, `candles_1h`, `stats_5m` and `latest`; returns `candles_1m`."""
    settings: Settings = app.settings
    trades = app.topic("trades", value_type=Trade)
    quotes = app.topic("quotes", value_type=Quote)
    grace = timedelta(milliseconds=settings.grace_ms)
    candles_1m = None
    for name, minutes, span, retention_ms in (
        ("candles_1m", 1, "minute", settings.retention_1m_ms),
        ("candles_5m", 5, "5 minutes", settings.retention_5m_ms),
        ("candles_1h", 60, "hour", settings.retention_1h_ms),
    ):
        table = app.window_table(
            name,
            source=trades,
            window=tumbling(timedelta(minutes=minutes), grace=grace, retention=timedelta(milliseconds=retention_ms)),
            aggregate=Candle(),
            description=f"Open, high, low, close and volume of every {span}.",
            key_form=KEY_FORM,
        )
        candles_1m = candles_1m or table
    app.window_table(
        "stats_5m",
        source=trades,
        window=hopping(
            timedelta(minutes=5),
            timedelta(seconds=30),
            grace=grace,
            retention=timedelta(milliseconds=settings.retention_5m_ms),
        ),
        aggregate=TradeStats(),
        description="Price statistics over five minutes, every 30 seconds.",
        key_form=KEY_FORM,
    )
    app.latest_table(
        "latest",
        source=[trades, quotes],
        aggregate=MarketLatest(),
        description="The last trade and the best bid and ask.",
        key_form=KEY_FORM,
    )
    return candles_1m


__all__ = ["KEY_FORM", "declare_market_tables"]
