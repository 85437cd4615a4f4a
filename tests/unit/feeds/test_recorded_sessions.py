"""Real sessions: every trade and ticker in them becomes exactly one record, and nothing is rejected.

What must come out is counted from the lines with the json module alone.
"""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from streamapp.feeds.protocol import GapDetected, Rejected, TopicRecord
from streamapp.feeds.recording import read_recording
from tests.fakes.feed_frames import protocol

RECORDINGS = Path(__file__).resolve().parents[4] / "shared" / "recordings"


def _coinbase(frame):
    kind = frame["type"]
    if kind in ("match", "last_match"):
        return "trades", frame["product_id"], str(frame["trade_id"]), float(frame["price"])
    if kind == "ticker":
        return "quotes", frame["product_id"], str(frame["sequence"]), float(frame["best_bid"])
    return None


def _binance(frame):
    stream, data = frame["stream"], frame["data"]
    symbol = {"OMGBUSD": "OMG-BUSD", "CRVUSDT": "CRV-USDT", "COMPUSDT": "COMP-USDT", "ZRXUSDT": "ZRX-USDT"}
    if stream.endswith("@aggTrade"):
        return "trades", symbol[data["s"]], str(data["a"]), float(data["p"])
    if stream.endswith("@bookTicker"):
        return "quotes", symbol[data["s"]], str(data["u"]), float(data["b"])
    return None


def _bitstamp(frame):
    if frame["event"] != "trade":
        return None
    assert frame["channel"] == "live_trades_ethusd"
    return "trades", "ETH-USD", str(frame["data"]["id"]), frame["data"]["price"]


def _nothing(frame):
    return None


@pytest.mark.parametrize(
    ("venue", "name", "expected_of", "trades", "quotes"),
    [
        ("coinbase", "coinbase.ws.gz", _coinbase, 46, 46),
        ("binance", "binance_us.ws.gz", _binance, 11, 128),
        ("bitstamp", "bitstamp.ws.gz", _bitstamp, 10, 0),
        ("kraken", "kraken_v1_book.ws.gz", _nothing, 0, 0),
    ],
)
def test_recorded_session_yields_every_trade_and_ticker_once(venue, name, expected_of, trades, quotes):
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no recordings beside the repository: {path}")
    expected = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            moment, separator, payload = line.strip().partition(": ")
            if separator and moment.replace(".", "", 1).isdigit() and (found := expected_of(json.loads(payload))):
                expected.append(found)

    subject = protocol(venue)
    events = [
        event
        for line in read_recording(path)
        if line.kind == "received"
        for event in subject.receive(line.text, line.time_ms)
    ]

    records = [event for event in events if isinstance(event, TopicRecord)]
    got = []
    for record in records:
        value = json.loads(record.value)
        assert record.dedup is not None
        got.append((record.topic, record.symbol, record.dedup.record_id, value.get("price", value.get("bid"))))
    assert got == expected
    assert Counter(record.topic for record in records) == Counter(trades=trades, quotes=quotes)
    assert len({(record.dedup.stream, record.dedup.record_id) for record in records}) == len(records)
    assert [event for event in events if isinstance(event, Rejected)] == []
    assert [event for event in events if isinstance(event, GapDetected)] == []
