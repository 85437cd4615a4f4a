"""OAuth 2.1: access tokens of an issuer elsewhere, as a resource server checks them (RFC 9068, 9728, 8707).

Signatures and claims are PyJWT's business. What is decided here: which keys and algorithms count, what a token's scopes
open, and by which name its holder is counted. A checked token is remembered by its hash for a minute, so that the way of
every further request is a look-up.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt

from streamapp.clock import Clock
from streamapp.errors import ConfigurationError, InvalidTokenError
from streamapp.queries.access import PLAIN_SCOPES, Access, Caller, is_read_scope, parse_access
from streamapp.queries.limits import Limits
from streamapp.settings import Settings
from streamapp.views.jwks import ASYMMETRIC, Jwks, checked_url
from streamapp.views.wellknown import METADATA_PATH

TOKEN_MAX_CHARS = 8_000
_REMEMBERED_MAX = 10_000
_REMEMBERED_MS = 60_000
_LABELS_MAX = 100
_SCOPES_MAX = 64
#: of one scope, as RFC 6749 has it
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@|/-]{1,100}")


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a checked token lets in.

    Attributes:
        caller: what it may read, and its name.
        scopes: as the token has them.
        until_ms: to be checked again from then on, wall time.
    """

    caller: Caller
    scopes: frozenset[str]
    until_ms: int


class OAuth:
    """Checks the access tokens of one issuer.

    Args:
        settings: issuer, audience, algorithms and bounds; ConfigurationError where they cannot be used.
        clock: when remembered tokens end.
        limits: the limits of a name, shown under a label.

    Attributes:
        issuer: its identifier.
        resource: what tokens have to be made for, a URL.
        scopes: what clients are told to ask for, separated by spaces.
    """

    def __init__(self, settings: Settings, clock: Clock, limits: Callable[[str, str], Limits | None]) -> None:
        assert settings.oauth_issuer
        self.issuer = checked_url(settings.oauth_issuer, "oauth_issuer")
        self.resource = _resource(settings)
        self.scopes = _asked(settings.oauth_scopes)
        self._audiences = [settings.oauth_audience or self.resource]
        self._algorithms = _allowed(settings.oauth_algorithms)
        self._leeway_ms = settings.oauth_leeway_ms
        self._clock = clock
        self._limits = limits
        url = settings.oauth_jwks_url
        self._jwks = Jwks(
            self.issuer,
            None if url is None else checked_url(url, "oauth_jwks_url"),
            clock,
            timeout_ms=settings.oauth_timeout_ms,
            refresh_ms=settings.oauth_jwks_refresh_ms,
            max_age_ms=settings.oauth_jwks_max_age_ms,
            pause_ms=settings.oauth_jwks_pause_ms,
        )
        self._holders: OrderedDict[bytes, Holder] = OrderedDict()
        self._labels: set[str] = set()

    @property
    def metadata_url(self) -> str:
        """Where clients learn whom to ask for a token."""
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}{METADATA_PATH}{parts.path.rstrip('/')}"

    def metadata(self) -> dict[str, Any]:
        """The document of RFC 9728.

        Clients that are told nothing else ask for all of `scopes_supported`, so it names what they need, not all there is.
        """
        return {
            "resource": self.resource,
            "authorization_servers": [self.issuer],
            "scopes_supported": self.scopes.split(" "),
            "bearer_methods_supported": ["header"],
            "resource_name": "streamapp: live state",
        }

    def known(self, text: str) -> Holder | None:
        """Whom a token lets in that was checked lately; None where it has to be checked."""
        digest = _digest(text)
        holder = self._holders.get(digest)
        if holder is None:
            return None
        if self._clock.now_ms() >= holder.until_ms:
            del self._holders[digest]
            return None
        return holder

    async def check(self, text: str) -> Holder:
        """Whom a token lets in.

        Raises:
            InvalidTokenError: it is none of this issuer's for this server, or its time is over or has not come.
            IssuerUnreachableError: that cannot be found out now.
        """
        if (holder := self.known(text)) is not None:
            return holder
        claims = await self._claims(text)
        holder = self._holder(claims)
        self._holders[_digest(text)] = holder
        while len(self._holders) > _REMEMBERED_MAX:
            self._holders.popitem(last=False)
        return holder

    async def close(self) -> None:
        """End what is under way."""
        await self._jwks.close()

    async def _claims(self, text: str) -> dict[str, Any]:
        if len(text) > TOKEN_MAX_CHARS:
            raise InvalidTokenError(f"an access token may have {TOKEN_MAX_CHARS} characters, got {len(text)}")
        try:
            header = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            raise InvalidTokenError("the access token is malformed") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            raise InvalidTokenError(f"the access token must be signed by one of {', '.join(self._algorithms)}")
        if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in ("jwt", "at+jwt"):
            raise InvalidTokenError("the token is of another type than an access token")
        key = await self._jwks.find(kid, algorithm)
        if key is None:
            raise InvalidTokenError("the access token is signed with a key that the issuer does not list")
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                audience=self._audiences,
                issuer=self.issuer,
                leeway=self._leeway_ms / 1000,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidTokenError("the access token has expired") from None
        except jwt.PyJWTError as problem:
            raise InvalidTokenError(f"the access token does not hold: {_reason(problem)}") from None
        return claims

    def _holder(self, claims: dict[str, Any]) -> Holder:
        # the name of a client that acts for itself is its subject, too
        who = claims.get("sub") or claims.get("client_id") or claims.get("azp")
        if not isinstance(who, str) or not who:
            raise InvalidTokenError("the access token names neither a subject nor a client")
        scopes = _scopes(claims)
        access = parse_access(["read"]) if "admin" in scopes else _access(scopes)
        plain = who if _PLAIN_NAME.fullmatch(who) else hashlib.sha256(who.encode("utf-8", "replace")).hexdigest()[:32]
        name = f"oauth:{plain}"
        if len(self._labels) < _LABELS_MAX:
            self._labels.add(name)
        label = name if name in self._labels else "oauth:other"
        ends_ms = int(claims["exp"]) * 1000 + self._leeway_ms
        caller = Caller(name, access, self._limits(name, label), label=label, expires_ms=ends_ms)
        return Holder(caller, scopes, min(ends_ms, self._clock.now_ms() + _REMEMBERED_MS))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _reason(problem: Exception) -> str:
    """A claim at fault in words; the library's own may quote the token."""
    words = {
        jwt.ImmatureSignatureError: "its time has not come",
        jwt.InvalidAudienceError: "it is for another audience",
        jwt.InvalidIssuerError: "it is another issuer's",
        jwt.MissingRequiredClaimError: "a claim of exp, iss and aud is missing",
        jwt.InvalidSignatureError: "its signature is wrong",
    }
    return next((text for kind, text in words.items() if isinstance(problem, kind)), "it is malformed")


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes of `scope` (RFC 9068); of `scp`, a text or a list, only where an issuer writes that one instead."""
    claim = claims["scope"] if "scope" in claims else claims.get("scp")
    words: list[str] = []
    if isinstance(claim, str):
        words = claim.split(" ")
    elif isinstance(claim, list) and "scope" not in claims and all(isinstance(word, str) for word in claim):
        words = claim
    if len(words) > _SCOPES_MAX:
        raise InvalidTokenError(f"an access token may have {_SCOPES_MAX} scopes, got {len(words)}")
    return frozenset(word for word in words if word)


def _access(scopes: frozenset[str]) -> Access:
    """What scopes open to read; a malformed one opens nothing."""
    good = []
    for scope in scopes:
        try:
            parse_access([scope])
        except ConfigurationError:
            continue
        if is_read_scope(scope):
            good.append(scope)
    try:
        return parse_access(good)
    except ConfigurationError as problem:
        raise InvalidTokenError(str(problem)) from None


def _asked(setting: str) -> str:
    """The scopes that clients are told to ask for, as the issuer knows them."""
    words = list(dict.fromkeys(setting.split()))
    for word in words:
        if is_read_scope(word):
            parse_access([word])
        if not (_SCOPE.fullmatch(word) and (is_read_scope(word) or word in PLAIN_SCOPES)):
            raise ConfigurationError(
                f"oauth_scopes: {word[:100]!r} opens nothing here; expected read, read/TABLE, read/TABLE/PREFIX, metrics or"
                " admin, separated by spaces, in ASCII without quotes"
            )
    if not words:
        raise ConfigurationError("oauth_scopes: name one at least; a client that asks for none may be given none")
    return " ".join(words)


def _resource(settings: Settings) -> str:
    """The URL of the protected resource, by which clients know it."""
    audience = settings.oauth_audience or ""
    if audience.startswith(("https://", "http://")):
        return audience
    if not settings.web_advertised_url:
        raise ConfigurationError(
            "oauth_issuer needs oauth_audience as a URL, or web_advertised_url: a token must be made for this server alone"
        )
    return f"{settings.web_advertised_url.rstrip('/')}/mcp"


def _allowed(setting: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in setting.split(",") if name.strip())
    if unknown := sorted(set(names) - ASYMMETRIC):
        raise ConfigurationError(
            f"oauth_algorithms: {', '.join(unknown)} cannot be used; expected of {', '.join(sorted(ASYMMETRIC))}."
            " An algorithm with a shared secret would take the issuer's public key for one"
        )
    if not names:
        raise ConfigurationError("oauth_algorithms: name one at least")
    return names
