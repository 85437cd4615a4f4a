"""Kraken v2, with frames written after its documentation."""

import json

from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, SendText, VenueError
from tests.fakes.feed_frames import NOW_MS, feed, gaps, protocol, reasons, records


def trade(number, **changes):
    data = {
        "symbol": "MATIC/USD",
        "side": "sell",
        "price": 0.5117,
        "qty": 40.0,
        "ord_type": "market",
        "trade_id": number,
        "timestamp": "2023-09-25T07:49:37.708706Z",
    }
    return {**data, **changes}


def trades(*data, kind="update"):
    return {"channel": "trade", "type": kind, "data": list(data)}


def test_kraken_trade_becomes_a_record():
    assert records(feed(protocol("kraken"), trades(trade(4665906)))) == [
        {
            "venue": "kraken",
            "symbol": "MATIC-USD",
            "price": 0.5117,
            "size": 40.0,
            "side": "sell",
            "trade_id": "4665906",
            "sequence": 4665906,
            "event_time": 1695628177708,
            "ingest_time": NOW_MS,
        }
    ]


def test_kraken_snapshot_is_put_in_order_and_fills_a_short_break():
    subject = protocol("kraken")
    feed(subject, trades(trade(10)))
    subject.disconnected()

    events = feed(subject, trades(trade(12), trade(11), trade(10), kind="snapshot"), trades(trade(13)))

    assert [record["trade_id"] for record in records(events)] == ["10", "11", "12", "13"]
    assert gaps(events) == []


def test_kraken_gap_is_a_jump_of_the_trade_id():
    events = feed(protocol("kraken"), trades(trade(10), trade(13)))

    assert gaps(events) == [("MATIC-USD", 11, 13)]


def test_kraken_ticker_becomes_a_quote_with_or_without_a_time():
    ticker = {"symbol": "ALGO/USD", "bid": 0.10025, "bid_qty": 740.0, "ask": 0.10035, "ask_qty": 740.0, "last": 0.10035}
    with_time = {**ticker, "timestamp": "2023-09-25T09:04:31.742599Z"}
    message = {"channel": "ticker", "type": "update", "data": [ticker, with_time]}

    first, second = records(feed(protocol("kraken"), message))

    assert (first["bid"], first["ask"], first["event_time"]) == (0.10025, 0.10035, NOW_MS)
    assert second["event_time"] == 1695632671742


def test_kraken_bad_element_does_not_take_the_good_ones_along():
    events = feed(protocol("kraken"), trades(trade(10), trade(11, price=-1), trade(11)))

    assert reasons(events) == ["bad_number"]
    assert [record["trade_id"] for record in records(events)] == ["10", "11"]
    assert gaps(events) == []


def test_kraken_subscribes_per_channel_in_its_own_form():
    messages = [json.loads(text) for text in protocol("kraken", "BTC-USD").open_messages(NOW_MS)]

    assert [message["params"]["channel"] for message in messages] == ["trade", "ticker"]
    assert all(message["params"]["symbol"] == ["BTC/USD"] for message in messages)
    assert messages[1]["params"]["event_trigger"] == "bbo"


def test_kraken_pings_when_due():
    subject = protocol("kraken", "BTC-USD")
    subject.open_messages(NOW_MS)

    assert subject.tick(NOW_MS + 19_999) == []
    assert subject.tick(NOW_MS + 20_000) == [SendText('{"method":"ping"}')]
    assert subject.tick(NOW_MS + 20_001) == []


def test_kraken_housekeeping_frames():
    events = feed(
        protocol("kraken"),
        {"channel": "heartbeat"},
        {"method": "pong", "time_in": "2023-09-24T14:10:23.799685Z"},
        {"method": "subscribe", "success": True, "result": {"channel": "trade"}},
        {"method": "subscribe", "success": False, "error": "Currency pair not supported X/Y", "symbol": "X/Y"},
        {"channel": "status", "type": "update", "data": [{"system": "online", "api_version": "v2"}]},
        {"channel": "status", "type": "update", "data": [{"system": "maintenance"}]},
        {"channel": "book", "type": "update", "data": [{"symbol": 3}]},
        {"channel": "ohlc", "type": "update", "data": []},
    )

    assert events == [
        SIGN_OF_LIFE,
        SIGN_OF_LIFE,
        SIGN_OF_LIFE,
        VenueError("kraken", "X-Y", "subscribe: Currency pair not supported X/Y"),
        SIGN_OF_LIFE,
        VenueError("kraken", None, "system status: maintenance"),
        IGNORED,
        IGNORED,
    ]


def test_kraken_frames_of_version_1_are_ignored():
    events = feed(
        protocol("kraken"),
        [1664, {"a": [["1.0", "2.0", "1618678132.9"]]}, "book-1000", "WAVES/EUR"],
        {"event": "heartbeat"},
        {"event": "systemStatus", "status": "online"},
    )

    assert events == [IGNORED, SIGN_OF_LIFE, IGNORED]


def test_kraken_other_arrays_are_rejected():
    assert reasons(feed(protocol("kraken"), [1, 2, 3, 4], ["a"])) == ["wrong_type", "wrong_type"]
