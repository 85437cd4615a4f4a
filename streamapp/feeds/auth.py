"""How a feed proves who it is: at the handshake (headers, query) or by its first messages. Nothing secret is printable.

Credentials come from `[feeds.NAME.auth]` or from the environment (`STREAMAPP_FEEDS__NAME__AUTH__SECRET=...`).
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from streamapp.errors import ConfigurationError
from streamapp.settings import FeedAuthSettings

#: parameters that name what is subscribed to; the value of any other parameter is taken for a secret
_HARMLESS_PARAMETERS = frozenset({"stream", "streams", "symbol", "symbols", "channel", "channels", "compress", "v"})
_TOKEN_LIKE = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_\-.~]{20,}")
_COINBASE_PATH = "/users/self/verify"


def redact_url(url: str) -> str:
    """The URL fit for logs and messages: no user info, no query value and no path part that could be a token."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = "/".join("***" if _TOKEN_LIKE.fullmatch(part) else part for part in parts.path.split("/"))
    query = "&".join(
        f"{name}={quote(value, safe='/@,') if name.lower() in _HARMLESS_PARAMETERS else '***'}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return urlunsplit((parts.scheme, host, path, query, ""))


def coinbase_signature(secret_base64: str, timestamp: str) -> str:
    """The base64 HMAC-SHA256 of `timestamp + "GET" + "/users/self/verify"` under the decoded secret.

    Source: Coinbase Exchange, "WebSocket authentication". `timestamp` is seconds since the epoch, as text.

    Raises:
        ConfigurationError: the secret is not base64.
    """
    try:
        secret = base64.b64decode(secret_base64, validate=True)
    except binascii.Error:
        raise ConfigurationError(
            "feed auth: expected the secret in base64, as Coinbase hands it out; got something else"
        ) from None
    digest = hmac.new(secret, f"{timestamp}GET{_COINBASE_PATH}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class FeedAuth:
    """The credentials of one feed, applied to its URL, its headers and its first messages."""

    def __init__(self, settings: FeedAuthSettings | None = None) -> None:
        self._settings = settings or FeedAuthSettings()
        missing = [name for name in self._required() if getattr(self._settings, name) is None]
        if missing:
            raise ConfigurationError(
                f"feed auth: kind {self._settings.kind!r} needs {', '.join(missing)}; "
                "set them under [feeds.NAME.auth] or as STREAMAPP_FEEDS__NAME__AUTH__..."
            )

    def _required(self) -> Sequence[str]:
        match self._settings.kind:
            case "coinbase_hmac":
                return ("key", "secret", "passphrase")
            case "message":
                return ("message",)
            case _:
                return ()

    def __repr__(self) -> str:
        """Only the kind: never a credential."""
        return f"FeedAuth(kind={self._settings.kind!r})"

    def headers(self) -> Mapping[str, str]:
        """Headers of the handshake."""
        return {name: value.get_secret_value() for name, value in self._settings.headers.items()}

    def url(self, url: str) -> str:
        """The URL with the secret query parameters; use it for the handshake only, and `redact_url` for words."""
        if not self._settings.query:
            return url
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        pairs += [(name, value.get_secret_value()) for name, value in self._settings.query.items()]
        return urlunsplit(parts._replace(query=urlencode(pairs, safe="/@,")))

    def first_messages(self, messages: Sequence[str], now_ms: int) -> list[str]:
        """The protocol's opening messages, signed or with the authentication in front, in the order to send them.

        Args:
            messages: what the protocol wants to send on open.
            now_ms: processing time; a signature is good for about 30 s around it.
        """
        match self._settings.kind:
            case "coinbase_hmac":
                return [self._sign_coinbase(message, now_ms) for message in messages]
            case "message":
                return [self._filled_message(now_ms), *messages]
            case _:
                return list(messages)

    def _sign_coinbase(self, message: str, now_ms: int) -> str:
        body = json.loads(message)
        if not isinstance(body, dict) or body.get("type") != "subscribe":
            return message
        timestamp = str(now_ms // 1000)
        body |= {
            "signature": coinbase_signature(self._reveal("secret"), timestamp),
            "key": self._reveal("key"),
            "passphrase": self._reveal("passphrase"),
            "timestamp": timestamp,
        }
        return json.dumps(body, separators=(",", ":"))

    def _filled_message(self, now_ms: int) -> str:
        """The user's first message; only whole words in braces are replaced, so JSON's own braces stay."""
        values = {name: self._reveal(name) for name in ("key", "secret", "passphrase")} | {"timestamp_ms": str(now_ms)}
        template = self._reveal("message")
        return re.sub(
            r"\{(key|secret|passphrase|timestamp_ms)\}",
            lambda found: json.dumps(values[found[1]])[1:-1],  # escaped as inside a JSON string
            template,
        )

    def _reveal(self, name: str) -> str:
        secret = getattr(self._settings, name)
        return secret.get_secret_value() if secret is not None else ""
