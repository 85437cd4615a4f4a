"""Bitstamp, with frames written after its documentation."""

import json

import pytest

from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, ReconnectRequested, SendText, VenueError
from tests.fakes.feed_frames import NOW_MS, feed, gaps, protocol, reasons, records


def trade(number, **changes):
    data = {
        "id": number,
        "timestamp": "1641343699",
        "amount": 0.0792,
        "amount_str": "0.07920000",
        "price": 3805.44,
        "price_str": "3805.44",
        "type": 0,
        "microtimestamp": "1641343699596999",
        "buy_order_id": 1,
        "sell_order_id": 2,
    }
    return {"event": "trade", "channel": "live_trades_ethusd", "data": {**data, **changes}}


def test_bitstamp_trade_becomes_a_record():
    assert records(feed(protocol("bitstamp"), trade(216000477))) == [
        {
            "venue": "bitstamp",
            "symbol": "ETH-USD",
            "price": 3805.44,
            "size": 0.0792,
            "side": "buy",
            "trade_id": "216000477",
            "sequence": 216000477,
            "event_time": 1641343699596,
            "ingest_time": NOW_MS,
        }
    ]


def test_bitstamp_type_1_is_a_sell():
    assert records(feed(protocol("bitstamp"), trade(1, type=1)))[0]["side"] == "sell"


def test_bitstamp_jump_of_the_id_is_no_gap():
    subject = protocol("bitstamp")
    subject.resume("ETH-USD", "1")

    assert gaps(feed(subject, trade(5), trade(90))) == []


BOOK = {
    "event": "data",
    "channel": "order_book_btcusd",
    "data": {
        "timestamp": "1641343691",
        "microtimestamp": "1641343691244908",
        "bids": [["46000.1", "0.5"], ["46000.0", "1"]],
        "asks": [["46001.2", "0.25"]],
    },
}


def test_bitstamp_order_book_gives_a_quote_only_where_asked_for():
    (quote,) = records(feed(protocol("bitstamp", quotes=True), BOOK))

    assert (quote["symbol"], quote["bid"], quote["bid_size"], quote["ask"], quote["ask_size"]) == (
        "BTC-USD",
        46000.1,
        0.5,
        46001.2,
        0.25,
    )
    assert quote["event_time"] == 1641343691244
    assert feed(protocol("bitstamp"), BOOK) == [IGNORED]


def test_bitstamp_request_to_reconnect_is_honoured():
    (event,) = feed(protocol("bitstamp"), {"event": "bts:request_reconnect", "channel": "", "data": ""})

    assert isinstance(event, ReconnectRequested)


def test_bitstamp_subscribes_to_each_channel_and_keeps_the_connection_alive():
    subject = protocol("bitstamp", "BTC-USD", "ethusd", quotes=True)

    channels = [json.loads(text)["data"]["channel"] for text in subject.open_messages(NOW_MS)]

    assert channels == ["live_trades_btcusd", "live_trades_ethusd", "order_book_btcusd", "order_book_ethusd"]
    assert subject.tick(NOW_MS + 1) == []
    assert subject.tick(NOW_MS + 15_000) == [SendText('{"event":"bts:heartbeat"}')]


def test_bitstamp_housekeeping_frames():
    events = feed(
        protocol("bitstamp"),
        {"event": "bts:subscription_succeeded", "channel": "live_trades_btcusd", "data": {}},
        {"event": "bts:heartbeat", "channel": "", "data": {"status": "success"}},
        {"event": "bts:error", "channel": "", "data": {"code": None, "message": "Bad subscription string."}},
        {"event": "data", "channel": "diff_order_book_btcusd", "data": {"bids": 3}},
        {"event": "order_created", "channel": "live_orders_btcusd", "data": {}},
    )

    assert [type(event) for event in events] == [type(SIGN_OF_LIFE)] * 2 + [VenueError] + [type(IGNORED)] * 2


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (trade(1, price="x"), "bad_number"),
        (trade(1, price=-1), "bad_number"),
        (trade(1, type=2), "wrong_type"),
        (trade(1, microtimestamp="9999999999999999999"), "bad_number"),
        (trade(1, microtimestamp=2**62), "bad_time"),
        ({"event": "trade", "channel": "live_trades_btcusd", "data": ""}, "wrong_type"),
        ({"event": "trade", "data": {}}, "missing_field"),
        ({"channel": "x"}, "missing_field"),
    ],
)
def test_bitstamp_bad_frame_is_rejected_with_its_reason(frame, reason):
    assert reasons(feed(protocol("bitstamp"), frame)) == [reason]
