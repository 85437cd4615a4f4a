"""Who may read: bearer tokens, their scopes, and the cookie that a browser keeps instead.

Settings hold the SHA-256 of each token, never the token. A token has 256 bits of chance, so that a plain hash is enough.
"""

import hashlib
import hmac
import importlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from aiohttp import web

from streamapp.clock import Clock
from streamapp.errors import (
    ConfigurationError,
    InsufficientScopeError,
    InvalidTokenError,
    QueryError,
    RateLimitedError,
    UnauthorizedError,
)
from streamapp.metrics import Metrics
from streamapp.queries.access import (
    ANONYMOUS,
    EVERYTHING,
    PLAIN_SCOPES,
    Access,
    Caller,
    is_read_scope,
    parse_access,
    parse_rule,
)
from streamapp.queries.limits import LimitBook, Rates, parse_token_limits
from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.settings import Settings

if TYPE_CHECKING:
    from streamapp.views.oauth import OAuth

#: scope -> what it opens; `admin` includes the others
SCOPES = {
    "read": "tables, feeds and the OpenAPI document",
    "read/TABLE": "one table of them",
    "read/TABLE/PREFIX": "the keys of a table (* for any) that begin so",
    "metrics": "the Prometheus metrics",
    "admin": "everything",
}
COOKIE = "streamapp_token"
COOKIE_MAX_AGE_S = 30 * 86_400
TOKEN_MAX_CHARS = 512
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: the form of a signed token
_SHAPE = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PEERS_MAX = 4_096
_GUESSED = web.RequestKey("guessed", bool)
#: on a request that was let in to read: in whose name
CALLER = web.RequestKey("caller", Caller)
#: another worker, which forwards a read of somebody whom it has admitted, limited and bound itself
FORWARDED = Caller("worker", EVERYTHING, forwarded=True)
_SECRET_LEAST_CHARS = 32


@dataclass(frozen=True, slots=True)
class Token:
    """One known token: a name for logs, its scopes, what they let it read, and the SHA-256 of its text."""

    name: str
    scopes: frozenset[str]
    access: Access
    digest: bytes = field(repr=False)

    def allows(self, scope: str) -> bool:
        """Whether the token opens that scope; for `read`, anything of it."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "read" and bool(self.access.rules))


def access_of(scopes: Iterable[str]) -> Access:
    """What scopes let their caller read; ConfigurationError for a malformed one."""
    scopes = frozenset(scopes)
    return EVERYTHING if "admin" in scopes else parse_access(scopes)


def is_token_name(name: str) -> bool:
    """Whether a token may have this name."""
    return _NAME.fullmatch(name) is not None


def new_token(name: str, scopes: Iterable[str]) -> tuple[str, str]:
    """A fresh token and its entry for `STREAMAPP_API_TOKENS`; ConfigurationError for a bad name or scope.

    In `read/TABLE/PREFIX` a colon or a comma may stand as it is; the entry has it percent-encoded.
    """
    written = [parse_rule(scope).text() if is_read_scope(scope) else scope for scope in scopes]
    if not written or any(set(",:") & set(scope) for scope in written):
        raise ConfigurationError(f"api_tokens: scopes must be joined by +, got {'+'.join(written)!r}")
    text = f"streamapp_{secrets.token_urlsafe(32)}"
    entry = f"{name}:{'+'.join(written)}:{hashlib.sha256(text.encode()).hexdigest()}"
    if len(parse_tokens(entry)) != 1:
        raise ConfigurationError("api_tokens: expected a name and scopes without a comma")
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
        if unknown := sorted(scope for scope in scopes - PLAIN_SCOPES if not is_read_scope(scope)):
            raise ConfigurationError(f"api_tokens: {name} has unknown scope(s) {unknown}; known are {sorted(SCOPES)}")
        try:
            access = access_of(scopes)
        except ConfigurationError as problem:
            raise ConfigurationError(f"api_tokens: {name}: {problem}") from None
        if not _DIGEST.fullmatch(digest):
            raise ConfigurationError(
                f"api_tokens: {name} must end in the 64 hex digits of its SHA-256, got {len(digest)} characters;"
                " `streamapp token` makes an entry"
            )
        if name in tokens:
            raise ConfigurationError(f"api_tokens: {name} occurs twice; give each token its own name")
        tokens[name] = Token(name, scopes, access, bytes.fromhex(digest))
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
    if not isinstance(address, IPv6Address):
        return peer
    older = address.ipv4_mapped  # how a socket that takes both kinds shows the older one: all of them are one network
    return str(int(address) >> 64) if older is None else str(older)


class Authenticator:
    """Decides on each request by its bearer token (a configured one, or an issuer's), or by the cookie of the login.

    Without any configured token everything is open: `check_bind` allows that on loopback only.
    """

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._tokens = parse_tokens(settings.api_tokens)
        self.open = not protected(settings)
        _check_secret(settings)
        self._hop_token = hop_token(settings).encode()
        self._refused = metrics.refused_calls
        self._limits = _limit_book(settings, self._tokens, clock, metrics)
        self.oauth = _oauth(settings, clock, self._limits) if settings.oauth_issuer else None
        self._callers = {
            token.name: Caller(token.name, token.access, self._limits.of(token.name)) for token in self._tokens
        }
        anonymous = self._limits.of(ANONYMOUS.name)
        # then it makes no difference who asks, nor whether another worker does
        self._unchecked = self.open and anonymous is None and settings.audit == "off"
        self._anonymous = Caller(ANONYMOUS.name, EVERYTHING, anonymous)
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

    def authorize(self, request: web.Request, scope: str) -> Caller:
        """Let a request pass, in somebody's name.

        Raises:
            UnauthorizedError: no token, or none that is known.
            InsufficientScopeError: none of its scopes opens this.
            RateLimitedError: too many unknown tokens came from that address.
        """
        if self._unchecked:
            return self._anonymous
        if scope == "read" and HOP_HEADER in request.headers and self._from_peer(request):
            return FORWARDED
        if self.open:
            return self._anonymous
        text = self.presented(request)
        if not text:
            raise UnauthorizedError("this route needs a token: send `Authorization: Bearer TOKEN`")
        token = self.identify(text) if len(text) <= TOKEN_MAX_CHARS else None
        if token is None and self.oauth is not None and "Authorization" in request.headers and _looks_like_jwt(text):
            holder = self.oauth.known(text)
            if holder is None:
                raise InvalidTokenError("the access token has not been checked")  # no guess: it is about to be
            self._require(scope, holder.scopes, holder.caller)
            return holder.caller
        if token is None:
            # a page left open with an old cookie guesses nothing, and must not lock its reader's next login out
            # and a request that is admitted twice, on the short way and then on the ordinary one, is one guess
            if "Authorization" in request.headers and _GUESSED not in request:
                peer = peer_of(request)
                self.limit.check(peer)
                self.limit.failed(peer)
                request[_GUESSED] = True
            raise UnauthorizedError("the token is not known here; `streamapp token` makes one and its settings entry")
        caller = self._callers[token.name]
        self._require(scope, token.scopes, caller)
        return caller

    async def prepare(self, request: web.Request) -> None:
        """Check an access token of the issuer's that is not known yet; `authorize` finds it known then.

        Raises:
            InvalidTokenError: it does not hold.
            IssuerUnreachableError: the issuer's keys cannot be had.
        """
        if self.oauth is None or "Authorization" not in request.headers:
            return
        text = self.presented(request)
        if text and _looks_like_jwt(text) and (len(text) > TOKEN_MAX_CHARS or self.identify(text) is None):
            await self.oauth.check(text)

    def challenge(self, error: QueryError) -> str:
        """What `WWW-Authenticate` says for a refusal (RFC 6750, RFC 9728)."""
        parts = ['realm="streamapp"']
        # always with what to ask for: a client that is not told asks for whatever it finds listed somewhere
        scope = "read" if self.oauth is None else self.oauth.scopes
        if isinstance(error, InsufficientScopeError):
            parts += ['error="insufficient_scope"', f'scope="{scope if error.scope == "read" else error.scope}"']
        else:
            if isinstance(error, InvalidTokenError):
                parts += ['error="invalid_token"', f'error_description="{error}"']
            if self.oauth is not None:
                parts.append(f'scope="{scope}"')
        if self.oauth is not None:
            parts.append(f'resource_metadata="{self.oauth.metadata_url}"')
        return "Bearer " + ", ".join(parts)

    async def close(self, _application: web.Application | None = None) -> None:
        """End what is under way."""
        if self.oauth is not None:
            await self.oauth.close()

    def _require(self, scope: str, scopes: frozenset[str], caller: Caller) -> None:
        if scope in scopes or "admin" in scopes or (scope == "read" and caller.access.rules):
            return
        self._refused.labels(caller.metric_label, "scope").inc()
        raise InsufficientScopeError(
            f"{caller.name!r} lacks the scope {scope!r}; it has {sorted(scopes)[:20]}", scope=scope
        )

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
            raise InsufficientScopeError(f"the token {token.name!r} lacks the scope 'read'")
        return token


def _oauth(settings: Settings, clock: Clock, limits: LimitBook) -> "OAuth":
    # what it needs takes a tenth of a second to import, which only those who use it have to wait for
    oauth: OAuth = importlib.import_module("streamapp.views.oauth").OAuth(settings, clock, limits.of)
    return oauth


def _looks_like_jwt(text: str) -> bool:
    return _SHAPE.fullmatch(text) is not None


def protected(settings: Settings) -> bool:
    """Whether a token is asked for."""
    return bool(parse_tokens(settings.api_tokens)) or settings.oauth_issuer is not None


def _check_secret(settings: Settings) -> None:
    """Workers admit each other by what they share; where nothing is shared, anybody could say to be one."""
    secret = settings.cluster_secret
    if secret is not None and len(secret.get_secret_value()) < _SECRET_LEAST_CHARS:
        raise ConfigurationError(f"cluster_secret: expected {_SECRET_LEAST_CHARS} characters of chance or more")
    if settings.oauth_issuer is not None and secret is None and not parse_tokens(settings.api_tokens):
        raise ConfigurationError(
            "oauth_issuer needs cluster_secret (or api_tokens): the same on every worker, by which they know each other"
        )


def _limit_book(settings: Settings, tokens: Iterable[Token], clock: Clock, metrics: Metrics) -> LimitBook:
    default = Rates(settings.limit_requests_per_s, settings.limit_burst, settings.limit_cost_per_min)
    own = parse_token_limits(settings.token_limits, default)
    known = {ANONYMOUS.name, *(token.name for token in tokens)}
    if unknown := sorted(name for name in own.keys() - known if not name.startswith("oauth:")):
        raise ConfigurationError(f"token_limits: no token is called {', '.join(unknown)}; there are {sorted(known)}")
    return LimitBook(default, own, clock, lambda name, reason: metrics.refused_calls.labels(name, reason).inc())
