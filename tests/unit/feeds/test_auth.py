"""Authentication of a feed, and that nothing secret can be printed."""

import base64
import hashlib
import hmac
import json

import pytest

from streamapp.errors import ConfigurationError
from streamapp.feeds.auth import FeedAuth, coinbase_signature, redact_url
from streamapp.settings import FeedAuthSettings

SECRET = base64.b64encode(b"not a real secret").decode()


def test_coinbase_signature_is_the_hmac_of_timestamp_method_and_path():
    expected = hmac.new(b"not a real secret", b"1700000000GET/users/self/verify", hashlib.sha256).digest()

    assert coinbase_signature(SECRET, "1700000000") == base64.b64encode(expected).decode()


def test_coinbase_signature_of_a_secret_that_is_not_base64_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError) as caught:
        coinbase_signature("hunter2!", "1")

    assert "hunter2" not in str(caught.value)


def test_auth_signs_subscriptions_and_leaves_other_messages():
    auth = FeedAuth(FeedAuthSettings(kind="coinbase_hmac", key="k", secret=SECRET, passphrase="p"))
    subscribe = json.dumps({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches"]})

    signed, other = auth.first_messages([subscribe, '{"type":"other"}'], now_ms=1_700_000_000_999)

    body = json.loads(signed)
    assert body["product_ids"] == ["BTC-USD"]
    assert body["timestamp"] == "1700000000"
    assert (body["key"], body["passphrase"]) == ("k", "p")
    assert body["signature"] == coinbase_signature(SECRET, "1700000000")
    assert other == '{"type":"other"}'


def test_auth_message_goes_first_and_is_escaped():
    template = '{"action":"auth","key":"{key}","secret":"{secret}","other":"{untouched}"}'
    auth = FeedAuth(FeedAuthSettings(kind="message", key='quote"d', secret="s", message=template))

    first, subscription = auth.first_messages(["subscribe"], now_ms=0)

    assert json.loads(first) == {"action": "auth", "key": 'quote"d', "secret": "s", "other": "{untouched}"}
    assert subscription == "subscribe"


def test_auth_at_the_handshake_adds_headers_and_query():
    auth = FeedAuth(FeedAuthSettings(headers={"Authorization": "Bearer t"}, query={"token": "a b"}))

    assert auth.headers() == {"Authorization": "Bearer t"}
    assert auth.url("wss://venue.test/ws?streams=a@trade/b@trade") == (
        "wss://venue.test/ws?streams=a@trade/b@trade&token=a+b"
    )


def test_auth_never_shows_a_credential():
    settings = FeedAuthSettings(kind="coinbase_hmac", key="kk-secret", secret=SECRET, passphrase="pp-secret")

    for text in (repr(FeedAuth(settings)), repr(settings), str(settings)):
        assert SECRET not in text
        assert "kk-" not in text
        assert "pp-" not in text


def test_auth_names_what_is_missing():
    with pytest.raises(ConfigurationError, match="needs secret, passphrase"):
        FeedAuth(FeedAuthSettings(kind="coinbase_hmac", key="k"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://venue.test/ws?token=abc", "wss://venue.test/ws?token=***"),
        ("wss://user:pass@venue.test:444/", "wss://venue.test:444/"),
        ("wss://venue.test/stream?streams=a@trade/b@trade", "wss://venue.test/stream?streams=a@trade/b@trade"),
        ("wss://venue.test/v2/0a1b2c3d4e5f60718293a4b5", "wss://venue.test/v2/***"),
        ("ws://127.0.0.1:8080/", "ws://127.0.0.1:8080/"),
        ("wss://venue.test/?whatever=t0ken#frag", "wss://venue.test/?whatever=***"),
    ],
)
def test_redacted_url_shows_no_token(url: str, shown: str):
    assert redact_url(url) == shown
