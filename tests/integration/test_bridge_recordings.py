"""Recorded sessions of real venues, over a real WebSocket, into a real Kafka: everything once, nothing rejected.

What must arrive is counted from the recording's lines with the json module alone.
"""

import asyncio
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from streamapp.bridge.service import Bridge
from streamapp.records.models import FeedStatus, Quote, Trade
from streamapp.settings import FeedSettings, Settings
from streamapp.simulator.replay import Replay, ReplaySettings
from tests.fakes.bridge_runs import clean_topics, read_topics

pytestmark = pytest.mark.integration

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "recordings"


def _identity(venue, frame):
    """(topic, id) of what a frame of a recording must become; None for frames of no interest."""
    match venue:
        case "coinbase" if frame["type"] in ("match", "last_match"):
            return "trades", frame["product_id"], str(frame["trade_id"])
        case "coinbase" if frame["type"] == "ticker":
            return "quotes", frame["product_id"], str(frame["sequence"])
        case "binance" if frame["stream"].endswith("@aggTrade"):
            return "trades", frame["data"]["s"], str(frame["data"]["a"])
        case "binance" if frame["stream"].endswith("@bookTicker"):
            return "quotes", frame["data"]["s"], str(frame["data"]["u"])
        case "bitstamp" if frame["event"] == "trade":
            return "trades", frame["channel"].removeprefix("live_trades_").upper(), str(frame["data"]["id"])
    return None


def _received(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            moment, separator, payload = line.strip().partition(": ")
            if separator and moment.replace(".", "", 1).isdigit():
                yield json.loads(payload)


async def _until_frames(bridge, venue, count):
    async with asyncio.timeout(60):
        while bridge.metrics.bridge_frames.labels(venue)._value.get() < count:  # noqa: ASYNC110 - a plain counter
            await asyncio.sleep(0.01)
        await bridge.outbox.drained()


@pytest.mark.parametrize(
    ("venue", "name", "symbols"),
    [
        ("coinbase", "coinbase.ws.gz", ("BTC-USD",)),
        ("binance", "binance_us.ws.gz", ("CRV-USDT",)),
        ("bitstamp", "bitstamp.ws.gz", ("ETH-USD",)),
        ("kraken", "kraken_v1_book.ws.gz", ("BTC-USD",)),
    ],
)
async def test_bridge_recorded_session_reaches_kafka_exactly_once(kafka, venue, name, symbols):
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no recordings beside the repository: {path}")
    frames = list(_received(path))
    expected = Counter(found for frame in frames if (found := _identity(venue, frame)))
    settings = Settings(kafka_brokers=kafka)
    await clean_topics(settings)
    replay = Replay(ReplaySettings(path=path, speed=None))
    await replay.start()
    feeds = {"recorded": FeedSettings(venue=venue, url=replay.url, symbols=symbols)}

    # twice over the same topics: what the first run has stored, the second must recognise
    for _ in range(2):
        bridge = Bridge(settings, feeds)
        await bridge.start()
        await _until_frames(bridge, venue, len(frames))
        await bridge.stop()
        assert bridge.problem is None
    await replay.stop()

    topics = await read_topics(kafka)
    got = Counter()
    for topic, model, identity in (("trades", Trade, "trade_id"), ("quotes", Quote, "sequence")):
        for record in topics[topic]:
            value = model.model_validate_json(json.dumps(record.value))
            assert value.key == record.key
            symbol = value.symbol if venue == "coinbase" else value.symbol.replace("-", "")
            got[topic, symbol, str(record.value[identity])] += 1
    assert got == expected
    assert set(expected.values()) <= {1}
    assert topics["dead-letters"] == []
    states = [FeedStatus.model_validate_json(json.dumps(record.value)).state for record in topics["feed-status"]]
    assert "connected" in states
    assert states[-1] == "disconnected"
    assert "gap" not in states
