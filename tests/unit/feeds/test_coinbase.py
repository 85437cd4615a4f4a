"""Coinbase Exchange, with frames written after its documentation."""

import json

import pytest

from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, DedupKey, TopicRecord, VenueError
from tests.fakes.feed_frames import NOW_MS, feed, gaps, protocol, reasons, records


def match(trade_id, kind="match", **changes):
    message = {
        "type": kind,
        "trade_id": trade_id,
        "maker_order_id": "m",
        "taker_order_id": "t",
        "side": "sell",
        "size": "5.23512",
        "price": "400.23",
        "product_id": "BTC-USD",
        "sequence": 50 + trade_id * 7,
        "time": "2014-11-07T08:19:27.028459Z",
    }
    return {**message, **changes}


def ticker(**changes):
    message = {
        "type": "ticker",
        "sequence": 37475248783,
        "product_id": "ETH-USD",
        "price": "1285.22",
        "best_bid": "1285.04",
        "best_bid_size": "0.46688654",
        "best_ask": "1285.27",
        "best_ask_size": "1.56637040",
        "side": "buy",
        "time": "2022-10-19T23:28:22.061769Z",
        "trade_id": 370843401,
        "last_size": "11.4396987",
    }
    return {**message, **changes}


def heartbeat(last_trade_id):
    return {
        "type": "heartbeat",
        "sequence": 90,
        "last_trade_id": last_trade_id,
        "product_id": "BTC-USD",
        "time": "2014-11-07T08:19:28.464459Z",
    }


def test_coinbase_match_becomes_a_trade_with_the_takers_side():
    (event,) = feed(protocol("coinbase", "BTC-USD"), match(10))

    assert isinstance(event, TopicRecord)
    assert json.loads(event.value) == {
        "venue": "coinbase",
        "symbol": "BTC-USD",
        "price": 400.23,
        "size": 5.23512,
        "side": "buy",
        "trade_id": "10",
        "sequence": 120,
        "event_time": 1415348367028,
        "ingest_time": NOW_MS,
    }
    assert (event.topic, event.key, event.replaceable) == ("trades", b"coinbase:BTC-USD", False)
    assert event.dedup == DedupKey("trades|coinbase:BTC-USD", "10", 120)


def test_coinbase_ticker_becomes_a_quote_and_no_trade():
    (event,) = feed(protocol("coinbase", "ETH-USD"), ticker())

    assert isinstance(event, TopicRecord)
    assert json.loads(event.value) == {
        "venue": "coinbase",
        "symbol": "ETH-USD",
        "bid": 1285.04,
        "bid_size": 0.46688654,
        "ask": 1285.27,
        "ask_size": 1.5663704,
        "sequence": 37475248783,
        "event_time": 1666222102061,
        "ingest_time": NOW_MS,
    }
    assert (event.topic, event.replaceable) == ("quotes", True)


def test_coinbase_gap_is_a_jump_of_the_trade_id_and_not_of_the_sequence():
    events = feed(protocol("coinbase"), match(10), match(11, sequence=9_000_000), match(15))

    assert gaps(events) == [("BTC-USD", 12, 15)]
    assert [record["trade_id"] for record in records(events)] == ["10", "11", "15"]


def test_coinbase_gap_is_reported_before_the_trade_that_revealed_it():
    subject = protocol("coinbase")
    feed(subject, match(10))

    assert [type(event).__name__ for event in feed(subject, match(12))] == ["GapDetected", "TopicRecord"]


def test_coinbase_repeats_and_late_trades_are_forwarded_and_no_gap():
    events = feed(protocol("coinbase"), match(10), match(10), match(12), match(11))

    assert gaps(events) == [("BTC-USD", 11, 12)]
    assert [record["trade_id"] for record in records(events)] == ["10", "10", "12", "11"]


def test_coinbase_last_match_after_a_reconnect_reveals_what_was_missed():
    subject = protocol("coinbase")
    feed(subject, match(10))
    subject.disconnected()

    events = feed(subject, match(14, kind="last_match"), match(15))

    assert gaps(events) == [("BTC-USD", 11, 14)]
    assert [record["trade_id"] for record in records(events)] == ["14", "15"]


def test_coinbase_resume_makes_trades_missed_while_down_a_gap():
    subject = protocol("coinbase")
    subject.resume("BTC-USD", "100")

    assert gaps(feed(subject, match(103, kind="last_match"))) == [("BTC-USD", 101, 103)]


def test_coinbase_gaps_are_per_product():
    events = feed(protocol("coinbase"), match(10), match(500, product_id="ETH-USD"), match(11))

    assert gaps(events) == []


def test_coinbase_heartbeat_reveals_a_missing_trade_only_at_the_next_one():
    subject = protocol("coinbase")

    first = feed(subject, match(10), heartbeat(12))
    second = feed(subject, heartbeat(12))

    assert gaps(first) == []
    assert gaps(second) == [("BTC-USD", 11, 13)]
    assert gaps(feed(subject, heartbeat(12), match(13))) == []


def test_coinbase_heartbeat_ahead_of_its_match_is_no_gap():
    assert gaps(feed(protocol("coinbase"), match(10), heartbeat(11), match(11), heartbeat(11))) == []


def test_coinbase_heartbeats_without_matches_report_no_gap():
    subject = protocol("coinbase", channels=["ticker", "heartbeat"])

    assert feed(subject, heartbeat(10), heartbeat(20), heartbeat(30)) == [SIGN_OF_LIFE] * 3


def test_coinbase_subscribes_to_every_product_and_channel():
    (text,) = protocol("coinbase", "btc-usd", "ETH/USD").open_messages(NOW_MS)

    assert json.loads(text) == {
        "type": "subscribe",
        "product_ids": ["BTC-USD", "ETH-USD"],
        "channels": ["matches", "ticker", "heartbeat"],
    }


def test_coinbase_error_frame_is_reported_with_its_reason():
    events = feed(
        protocol("coinbase"), {"type": "error", "message": "Failed to subscribe", "reason": "X-Y is not valid"}
    )

    assert events == [VenueError("coinbase", None, "Failed to subscribe: X-Y is not valid")]


@pytest.mark.parametrize("kind", ["subscriptions", "l2update", "snapshot", "status", "something_new"])
def test_coinbase_other_frames_are_ignored(kind):
    assert feed(protocol("coinbase"), {"type": kind, "product_id": 3}) == [IGNORED]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": "NaN"}, "bad_number"),
        ({"price": "inf"}, "bad_number"),
        ({"price": "-1"}, "bad_number"),
        ({"price": "0"}, "bad_number"),
        ({"price": "1_0"}, "bad_number"),
        ({"price": ""}, "bad_number"),
        ({"price": "1e999"}, "bad_number"),
        ({"size": "-0.1"}, "bad_number"),
        ({"trade_id": -1}, "bad_number"),
        ({"trade_id": 1 << 64}, "bad_number"),
        ({"price": None}, "wrong_type"),
        ({"price": True}, "wrong_type"),
        ({"price": {}}, "wrong_type"),
        ({"side": "hold"}, "wrong_type"),
        ({"trade_id": 1.5}, "wrong_type"),
        ({"time": "yesterday"}, "bad_time"),
        ({"time": "2014-11-07T08:19:27"}, "bad_time"),
        ({"time": "1914-11-07T08:19:27Z"}, "bad_time"),
        ({"product_id": ""}, "bad_symbol"),
        ({"product_id": "BTC USD"}, "bad_symbol"),
    ],
)
def test_coinbase_bad_match_is_rejected_with_its_reason_and_changes_nothing(changes, reason):
    subject = protocol("coinbase")
    bad = {**match(50), **changes}

    events = feed(subject, match(10), bad)

    assert reasons(events) == [reason]
    assert json.loads(events[1].raw) == bad
    assert gaps(feed(subject, match(11))) == []


def test_coinbase_match_without_a_price_is_a_missing_field():
    bad = match(1)
    del bad["price"]

    assert reasons(feed(protocol("coinbase"), bad)) == ["missing_field"]


@pytest.mark.parametrize("frame", ["", "{", '{"type":"match"', b"\xff\xfe", "\ud800", "[" * 100_000])
def test_coinbase_frame_that_is_no_json_is_malformed_or_of_a_wrong_type(frame):
    (event,) = protocol("coinbase").receive(frame, NOW_MS)

    assert event.reason in ("malformed_json", "wrong_type")


def test_coinbase_oversized_frame_is_rejected_unread_and_kept_in_part():
    subject = protocol("coinbase", max_frame_bytes=100_000)

    (event,) = subject.receive("[" + "1," * 60_000 + "1]", NOW_MS)

    assert event.reason == "oversized"
    assert len(event.raw) == 64 << 10
    assert "120003" in event.error


def test_coinbase_size_of_zero_is_accepted():
    assert records(feed(protocol("coinbase"), match(1, size="0")))[0]["size"] == 0
