"""Telling base from quote."""

import pytest

from streamapp.feeds.binance import QUOTE_ASSETS, QUOTE_ASSETS_US
from streamapp.feeds.symbols import SymbolSplitter, joined


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("OMGBUSD", "OMG-BUSD"),
        ("btcusdt", "BTC-USDT"),
        ("ETHBTC", "ETH-BTC"),
        ("BTCEUR", "BTC-EUR"),
        ("1000SATSUSDT", "1000SATS-USDT"),
        ("USDTTRY", "USDT-TRY"),
        ("USDT", "USDT"),
        ("FOOBAR", "FOOBAR"),
    ],
)
def test_splitter_cuts_at_a_quote_asset_or_not_at_all(symbol, expected):
    assert SymbolSplitter(QUOTE_ASSETS).split(symbol) == expected


@pytest.mark.parametrize(
    ("symbol", "expected"), [("BNBUSD", "BNB-USD"), ("SHIBUSD", "SHIB-USD"), ("OMGBUSD", "OMG-BUSD")]
)
def test_splitter_prefers_the_quote_that_leaves_a_known_base(symbol, expected):
    assert SymbolSplitter(QUOTE_ASSETS_US).split(symbol) == expected


def test_splitter_takes_named_symbols_as_they_are():
    splitter = SymbolSplitter(QUOTE_ASSETS_US, ["XYB-USD", "ABC/BUSD", "DEFUSD"])

    assert [splitter.split(symbol) for symbol in ("XYBUSD", "abcbusd", "DEFUSD")] == ["XYB-USD", "ABC-BUSD", "DEF-USD"]


def test_joined_is_the_inverse_for_venues():
    assert joined("OMG-BUSD") == "omgbusd"
