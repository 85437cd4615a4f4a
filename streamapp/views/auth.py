"""Who may read: bearer tokens, their scopes, and the cookie that a browser keeps instead.

Settings hold the SHA-256 of each token, never the token. A token has 256 bits of chance, so that a plain hash is enough.
"""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from aiohttp import web

from streamapp.clock import Clock
from streamapp.errors import ConfigurationError, ForbiddenError, RateLimitedError, UnauthorizedError
from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.settings import Settings

#: scope -> what it opens; `admin` includes the others
SCOPES = {
    "read": "tables, feeds and the OpenAPI document",
    "metrics": "the Prometheus metrics",
    "admin": "everything",
}
COOKIE = "streamapp_token"
COOKIE_MAX_AGE_S = 30 * 86_400
TOKEN_MAX_CHARS = 512
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PEERS_MAX = 4_096
_GUESSED = web.RequestKey("guessed", bool)
#: on a request that was let in: the name of its token
CALLER = web.RequestKey("caller", str)


@dataclass(frozen=True, slots=True)
class Token:
    """One known token: a name for logs, its scopes, and the SHA-256 of its text."""

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)

    def allows(self, scope: str) -> bool:
        """Whether the token opens that scope."""
        return scope in self.scopes or "admin" in self.scopes


def new_token(name: str, scopes: Iterable[str]) -> tuple[str, str]:
    """A fresh token and its entry for `STREAMAPP_API_TOKENS`; ConfigurationError for a bad name or scope."""
    text = f"streamapp_{secrets.token_urlsafe(32)}"
    entry = f"{name}:{'+'.join(scopes)}:{hashlib.sha256(text.encode()).hexdigest()}"
    parse_tokens(entry)
    return text, entry


def parse_tokens(setting: str) -> tuple[Token, ...]:
    """The tokens of `name:scope+scope:sha256hex,...`; ConfigurationError says which entry is wrong, never its hash."""
    tokens: dict[str, Token] = {}
    for position, entry in enumerate((part.strip() for part in setting.split(",")), start=1):
        if not entry:
            continue
        parts = entry.split(":")
        if len(parts) != 3:
            raise ConfigurationError(
                f"api_tokens: entry {position} must be name:scope+scope:sha256hex, got {len(parts)} part(s) between colons"
            )
        name, scopes, digest = parts[0], frozenset(parts[1].split("+")), parts[2].lower()
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"api_tokens: entry {position} needs a name of letters, digits and _.-, at most 64 of them"
            )
        if unknown := sorted(scopes - SCOPES.keys()):
            raise ConfigurationError(f"api_tokens: {name} has unknown scope(s) {unknown}; known are {sorted(SCOPES)}")
        if not _DIGEST.fullmatch(digest):
            raise ConfigurationError(
                f"api_tokens: {name} must end in the 64 hex digits of its SHA-256, got {len(digest)} characters;"
                " `streamapp token` makes an entry"
            )
        if name in tokens:
            raise ConfigurationError(f"api_tokens: {name} occurs twice; give each token its own name")
        tokens[name] = Token(name, scopes, bytes.fromhex(digest))
    return tuple(tokens.values())


class FailureLimit:
    """Counts unknown tokens per address, for a bounded number of addresses; the oldest are forgotten first."""

    def __init__(self, clock: Clock, failures_max: int, window_ms: int, peers_max: int = _PEERS_MAX) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._window_ms = window_ms
        self._peers_max = peers_max
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()  # peer -> since, count

    def check(self, peer: str) -> None:
        """RateLimitedError while the address has used up its failures."""
        since, count = self._failures.get(peer, (0, 0))
        left_ms = since + self._window_ms - self._clock.monotonic_ms()
        if count >= self._failures_max and left_ms > 0:
            raise RateLimitedError(
                f"{count} unknown tokens from this address; try again later", retry_after_s=-(-left_ms // 1000)
            )

    def failed(self, peer: str) -> None:
        """Count one failure."""
        now = self._clock.monotonic_ms()
        since, count = self._failures.pop(peer, (now, 0))
        if now - since >= self._window_ms:
            since, count = now, 0
        self._failures[peer] = (since, count + 1)
        while len(self._failures) > self._peers_max:
            self._failures.popitem(last=False)

    def __len__(self) -> int:
        return len(self._failures)


def peer_of(request: web.Request) -> str:
    """The address to count failures for; an IPv6 network of 64 bits counts as one."""
    peer = request.remote or "unknown"
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    return str(int(address) >> 64) if isinstance(address, IPv6Address) else peer


class Authenticator:
    """Decides on each request by its bearer token, or by the cookie of the dashboard's login.

    Without any configured token everything is open: `check_bind` allows that on loopback only.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._tokens = parse_tokens(settings.api_tokens)
        self.open = not self._tokens
        self._hop_token = hop_token(settings).encode()
        self.limit = FailureLimit(clock, settings.login_failures_max, settings.login_window_ms)

    def identify(self, text: str) -> Token | None:
        """The token of that text. Every known hash is compared, in constant time, whichever fits."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def presented(self, request: web.Request) -> str | None:
        """The token that a request carries; a header wins over the cookie."""
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, text = header.partition(" ")
            return text.strip() if scheme.lower() == "bearer" else ""
        return request.cookies.get(COOKIE) if "Cookie" in request.headers else None

    def authorize(self, request: web.Request, scope: str) -> None:
        """Let a request pass; UnauthorizedError, ForbiddenError, or RateLimitedError after too many unknown tokens."""
        if self.open:
            return
        if scope == "read" and HOP_HEADER in request.headers and self._from_peer(request):
            return
        text = self.presented(request)
        if not text:
            raise UnauthorizedError("this route needs a token: send `Authorization: Bearer TOKEN`")
        token = self.identify(text) if len(text) <= TOKEN_MAX_CHARS else None
        if token is None:
            # a page left open with an old cookie guesses nothing, and must not lock its reader's next login out
            # and a request that is admitted twice, on the short way and then on the ordinary one, is one guess
            if "Authorization" in request.headers and _GUESSED not in request:
                peer = peer_of(request)
                self.limit.check(peer)
                self.limit.failed(peer)
                request[_GUESSED] = True
            raise UnauthorizedError("the token is not known here; `streamapp token` makes one and its settings entry")
        if not token.allows(scope):
            raise ForbiddenError(f"the token {token.name!r} lacks the scope {scope!r}; it has {sorted(token.scopes)}")
        request[CALLER] = token.name

    def _from_peer(self, request: web.Request) -> bool:
        """Whether another worker with the same settings forwards somebody's read, whom it has admitted itself."""
        presented = request.headers[HOP_HEADER].encode("utf-8", "surrogateescape")
        return hmac.compare_digest(presented, self._hop_token)

    def login(self, request: web.Request, text: str) -> Token:
        """Check a token that a person typed; RateLimitedError after too many wrong ones from one address."""
        peer = peer_of(request)
        self.limit.check(peer)
        token = self.identify(text) if len(text) <= TOKEN_MAX_CHARS else None
        if token is None:
            self.limit.failed(peer)
            raise UnauthorizedError("the token is not known here")
        if not token.allows("read"):
            raise ForbiddenError(f"the token {token.name!r} lacks the scope 'read'")
        return token
