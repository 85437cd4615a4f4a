"""What a client of the simulator has asked for."""

import json

import pytest

from streamapp.simulator.subscription import Subscription

PRODUCTS = ["BTC-USD", "ETH-USD"]
FRAMES = [
    ("matches", "BTC-USD", "m1"),
    ("ticker", "BTC-USD", "t1"),
    ("matches", "ETH-USD", "m2"),
    ("", "", "garbage"),
    ("heartbeat", "BTC-USD", "h1"),
]


def say(subject, kind, products, channels):
    reply, new = subject.on_message(json.dumps({"type": kind, "product_ids": products, "channels": channels}))
    return json.loads(reply), new


def test_subscription_gets_its_channels_and_products_only():
    subject = Subscription(PRODUCTS)

    reply, new = say(subject, "subscribe", ["BTC-USD"], ["matches", "heartbeat"])

    assert reply == {
        "type": "subscriptions",
        "channels": [
            {"name": "matches", "product_ids": ["BTC-USD"]},
            {"name": "heartbeat", "product_ids": ["BTC-USD"]},
        ],
    }
    assert new == ["BTC-USD"]
    assert subject.texts(FRAMES) == ["m1", "garbage", "h1"]


def test_subscription_without_products_is_for_all_of_them():
    subject = Subscription(PRODUCTS)
    say(subject, "subscribe", [], ["matches"])

    assert subject.texts(FRAMES) == ["m1", "m2", "garbage"]


def test_subscription_products_may_be_given_per_channel():
    subject = Subscription(PRODUCTS)
    say(subject, "subscribe", ["BTC-USD"], ["ticker", {"name": "matches", "product_ids": ["ETH-USD"]}])

    assert subject.texts(FRAMES) == ["t1", "m2", "garbage"]


def test_subscription_adds_up_and_only_new_matches_count_as_new():
    subject = Subscription(PRODUCTS)
    say(subject, "subscribe", ["BTC-USD"], ["matches"])

    _, new = say(subject, "subscribe", PRODUCTS, ["matches", "ticker"])

    assert new == ["ETH-USD"]
    assert subject.texts(FRAMES) == ["m1", "t1", "m2", "garbage"]


def test_subscription_of_everything_still_leaves_out_heartbeats_that_nobody_asked_for():
    subject = Subscription(PRODUCTS)
    say(subject, "subscribe", PRODUCTS, ["matches", "ticker"])

    assert "h1" not in subject.texts(FRAMES)


def test_subscription_ends_with_unsubscribe():
    subject = Subscription(PRODUCTS)
    say(subject, "subscribe", PRODUCTS, ["matches"])
    say(subject, "unsubscribe", ["BTC-USD"], ["matches"])

    assert subject.texts(FRAMES) == ["m2", "garbage"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('{"type":"subscribe","product_ids":["X-Y"],"channels":["matches"]}', "X-Y is not a valid product"),
        ('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level3"]}', "level3 is not a channel"),
        ('{"type":"subscribe"}', "expected a subscribe message"),
        ('{"type":"order","channels":["matches"]}', "order"),
        ("{", "expected a subscribe message"),
        ("[]", "expected a subscribe message"),
        ('{"type":"subscribe","channels":5}', "expected a subscribe message"),
        ('{"type":"subscribe","channels":[[]]}', "is not a channel"),
        ('{"type":"subscribe","product_ids":[[]],"channels":["matches"]}', "not a valid product"),
    ],
)
def test_subscription_that_makes_no_sense_is_answered_with_an_error(message, words):
    reply, new = Subscription(PRODUCTS).on_message(message)

    assert json.loads(reply)["type"] == "error"
    assert words in json.loads(reply)["reason"]
    assert new == []
