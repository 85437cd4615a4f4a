"""Whatever a peer sends: no exception, events only, and records that satisfy their models."""

import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.feeds.protocol import INTERNAL_ERROR, FeedEvent, Rejected, TopicRecord
from streamapp.records.models import Quote, Trade
from tests.fakes.feed_frames import NOW_MS, protocol

MODELS = {"trades": Trade, "quotes": Quote}
GENERIC = {
    "name": "acme",
    "model": "streamapp.records.models.Trade",
    "topic": "trades",
    "records": "$.data[*]",
    "sequence": "$.i",
    "fields": {
        "symbol": {"path": "$.s", "kind": "upper"},
        "price": {"path": "$.p", "kind": "number"},
        "size": "$.q",
        "trade_id": {"path": "$.i", "kind": "text"},
        "event_time": {"path": "$.T", "kind": "s"},
    },
}
NAMES = ("coinbase", "binance", "kraken", "bitstamp", "generic")

text = st.text(max_size=8) | st.sampled_from(
    ["BTC-USD", "1.5", "NaN", "-1", "1e999", "2024-01-01T00:00:00Z", "buy", "sell"]
)
number = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**53, 2**63, 2**64, 10**400, 1e308])
scalar = st.none() | st.booleans() | number | text
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)

coinbase = st.fixed_dictionaries(
    {"type": st.sampled_from(["match", "last_match", "ticker", "heartbeat", "error", "l2update", "x"])},
    optional={
        name: value
        for name in (
            "trade_id",
            "product_id",
            "price",
            "size",
            "side",
            "time",
            "sequence",
            "best_bid",
            "best_ask",
            "message",
        )
    },
)
binance = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {},
            optional={
                "e": st.sampled_from(["trade", "aggTrade", "serverShutdown"]) | value,
                **{name: value for name in "stapqTmubBA"},
            },
        )
        | value
    },
    optional={"stream": st.sampled_from(["a@trade", "a@bookTicker", "a@depth"]) | value, "error": value, "id": value},
)
kraken = st.fixed_dictionaries(
    {"channel": st.sampled_from(["trade", "ticker", "status", "heartbeat", "book"]) | value},
    optional={
        "type": st.sampled_from(["snapshot", "update"]),
        "data": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    name: value
                    for name in ("symbol", "side", "price", "qty", "trade_id", "timestamp", "bid", "ask", "system")
                },
            ),
            max_size=3,
        )
        | value,
        "method": value,
        "error": value,
        "success": value,
    },
)
bitstamp = st.fixed_dictionaries(
    {"event": st.sampled_from(["trade", "data", "bts:error", "bts:heartbeat"]) | value},
    optional={
        "channel": st.sampled_from(["live_trades_btcusd", "order_book_btcusd", "live_trades_"]) | value,
        "data": st.fixed_dictionaries(
            {}, optional={name: value for name in ("id", "price", "amount", "type", "microtimestamp", "bids", "asks")}
        )
        | value,
    },
)
other = st.fixed_dictionaries(
    {"data": st.lists(st.fixed_dictionaries({}, optional={name: value for name in "spqiT"}), max_size=3) | value}
)
SHAPED = {"coinbase": coinbase, "binance": binance, "kraken": kraken, "bitstamp": bitstamp, "generic": other}


def build(venue):
    if venue == "generic":
        return protocol("generic", url="ws://venue.test", **GENERIC)
    return protocol(venue, **({"quotes": True} if venue == "bitstamp" else {}))


def check(events):
    assert events
    for event in events:
        assert isinstance(event, FeedEvent)
        if isinstance(event, Rejected):
            assert event.reason != INTERNAL_ERROR, event
        if isinstance(event, TopicRecord):
            model = MODELS[event.topic]
            record = model.model_validate_json(event.value)
            assert json.loads(event.value).keys() == model.model_fields.keys()
            assert event.key == record.key.encode()
            assert event.event_time == record.event_time


@pytest.mark.parametrize("venue", NAMES)
@settings(max_examples=60)
@given(frame=st.binary(max_size=200) | st.text(max_size=200))
def test_protocol_survives_any_bytes(venue, frame):
    check(build(venue).receive(frame, NOW_MS))


@pytest.mark.parametrize("venue", NAMES)
@settings(max_examples=60)
@given(message=value)
def test_protocol_survives_any_json(venue, message):
    check(build(venue).receive(json.dumps(message), NOW_MS))


@pytest.mark.parametrize("venue", NAMES)
@settings(max_examples=200)
@given(data=st.data())
def test_protocol_survives_its_own_frames_with_anything_in_them(venue, data):
    message = data.draw(SHAPED[venue])

    check(build(venue).receive(json.dumps(message).encode(), NOW_MS))


price = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
size = st.floats(min_value=0, allow_infinity=False)
count = st.integers(min_value=0, max_value=2**63 - 1)
moment = st.datetimes(min_value=datetime.datetime(1970, 1, 1))  # noqa: DTZ001 - the zone is added as text
moment = moment.map(lambda one: one.isoformat() + "Z")


@settings(max_examples=200)
@given(price=price, size=size, trade_id=count, sequence=count, side=st.sampled_from(["buy", "sell"]), time=moment)
def test_protocol_records_of_valid_numbers_satisfy_the_model(price, size, trade_id, sequence, side, time):
    message = {
        "type": "match",
        "product_id": "BTC-USD",
        "price": repr(price),
        "size": repr(size),
        "trade_id": trade_id,
        "sequence": sequence,
        "side": side,
        "time": time,
    }

    events = protocol("coinbase").receive(json.dumps(message), NOW_MS)

    check(events)
    record = Trade.model_validate_json(events[0].value)
    assert (record.price, record.size, record.trade_id, record.sequence) == (price, size, str(trade_id), sequence)
    assert record.side != side
