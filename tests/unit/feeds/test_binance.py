"""Binance spot, with frames written after its documentation."""

import pytest

from streamapp.errors import ConfigurationError
from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, ReconnectRequested, VenueError
from tests.fakes.feed_frames import NOW_MS, feed, gaps, protocol, reasons, records


def trade(number, **changes):
    data = {
        "e": "trade",
        "E": 1672515782136,
        "s": "BNBBTC",
        "t": number,
        "p": "0.001",
        "q": "100",
        "T": 1672515782130,
        "m": True,
        "M": True,
    }
    return {"stream": "bnbbtc@trade", "data": {**data, **changes}}


def agg_trade(number, **changes):
    data = {
        "e": "aggTrade",
        "E": 1672515782136,
        "s": "BNBBTC",
        "a": number,
        "p": "0.001",
        "q": "100",
        "f": 100,
        "l": 105,
        "T": 1672515782130,
        "m": False,
        "M": True,
    }
    return {"stream": "bnbbtc@aggTrade", "data": {**data, **changes}}


BOOK = {
    "stream": "bnbusdt@bookTicker",
    "data": {
        "u": 400900217,
        "s": "BNBUSDT",
        "b": "25.35190000",
        "B": "31.21000000",
        "a": "25.36520000",
        "A": "40.66000000",
    },
}


def test_binance_trade_of_a_buying_maker_is_a_sell():
    assert records(feed(protocol("binance"), trade(12345))) == [
        {
            "venue": "binance",
            "symbol": "BNB-BTC",
            "price": 0.001,
            "size": 100.0,
            "side": "sell",
            "trade_id": "12345",
            "sequence": 12345,
            "event_time": 1672515782130,
            "ingest_time": NOW_MS,
        }
    ]


def test_binance_agg_trade_is_numbered_by_its_own_id():
    (record,) = records(feed(protocol("binance"), agg_trade(26129)))

    assert (record["trade_id"], record["side"]) == ("26129", "buy")


def test_binance_book_ticker_becomes_a_quote_at_the_time_of_arrival():
    assert records(feed(protocol("binance"), BOOK)) == [
        {
            "venue": "binance",
            "symbol": "BNB-USDT",
            "bid": 25.3519,
            "bid_size": 31.21,
            "ask": 25.3652,
            "ask_size": 40.66,
            "sequence": 400900217,
            "event_time": NOW_MS,
            "ingest_time": NOW_MS,
        }
    ]


def test_binance_kinds_of_trades_are_never_mixed_for_one_symbol():
    events = feed(protocol("binance"), trade(5), agg_trade(900), trade(6), agg_trade(901, s="ETHBTC"))

    assert [record["trade_id"] for record in records(events)] == ["5", "6", "901"]
    assert gaps(events) == []


def test_binance_gap_is_a_jump_of_the_number_per_symbol():
    events = feed(protocol("binance"), trade(5), trade(9, s="ETHBTC"), trade(8))

    assert gaps(events) == [("BNB-BTC", 6, 8)]


@pytest.mark.parametrize(
    "frame",
    [
        {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}},
        {"e": "serverShutdown", "E": 1},
    ],
)
def test_binance_shutdown_notice_asks_for_a_new_connection(frame):
    (event,) = feed(protocol("binance"), frame)

    assert isinstance(event, ReconnectRequested)


def test_binance_streams_are_named_in_the_url_in_lower_case():
    subject = protocol("binance", "BTC-USDT", "ETHUSDT", url="wss://stream.binance.us:9443/")

    assert subject.url == (
        "wss://stream.binance.us:9443/stream?streams=btcusdt@trade/ethusdt@trade/btcusdt@bookTicker/ethusdt@bookTicker"
    )


def test_binance_url_that_names_its_streams_is_left_as_it_is():
    url = "wss://stream.binance.com/stream?streams=btcusdt@aggTrade"

    assert protocol("binance", "BTC-USDT", url=url).url == url


def test_binance_more_streams_than_a_connection_carries_are_refused():
    with pytest.raises(ConfigurationError, match="1024"):
        protocol("binance", *[f"A{number}-USDT" for number in range(600)])


def test_binance_answers_errors_and_other_streams_are_no_dead_letters():
    events = feed(
        protocol("binance"),
        {"result": None, "id": 1},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": 1},
        {"stream": "btcusdt@depth", "data": {"e": "depthUpdate", "s": 5}},
        {"stream": "btcusdt@depth5", "data": {"lastUpdateId": 160, "bids": []}},
        {"stream": "btcusdt@avgPrice", "data": {"e": "avgPrice", "s": "BTCUSDT"}},
    )

    assert [type(event) for event in events] == [type(SIGN_OF_LIFE), VenueError, *[type(IGNORED)] * 3]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (trade(1, p="0"), "bad_number"),
        (trade(1, q=None), "wrong_type"),
        (trade(1, T=1672515782130123456), "bad_time"),
        ({"stream": "bnbbtc@trade", "data": {"e": "trade", "s": "BNBBTC"}}, "missing_field"),
        ({"stream": "bnbusdt@bookTicker", "data": {**BOOK["data"], "a": "NaN"}}, "bad_number"),
        ({"hello": "world"}, "missing_field"),
        ([1, 2], "wrong_type"),
    ],
)
def test_binance_bad_frame_is_rejected_with_its_reason(frame, reason):
    assert reasons(feed(protocol("binance"), frame)) == [reason]


def test_binance_microseconds_are_read_where_the_option_says_so():
    (record,) = records(feed(protocol("binance", time_unit="us"), trade(1, T=1672515782130999)))

    assert record["event_time"] == 1672515782130
