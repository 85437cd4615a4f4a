"""The public keys of an OAuth issuer: fetched off the request's way, bounded, and kept while the issuer is down."""

import asyncio
import logging
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import orjson

from streamapp.clock import Clock
from streamapp.errors import ConfigurationError, QueryError

logger = logging.getLogger(__name__)

_DOCUMENT_MAX_BYTES = 256 << 10
_KEYS_MAX = 100
_RSA_LEAST_BITS = 2_048
#: the algorithms that a kind of key can be used with; none that needs a shared secret
_BY_KIND = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ASYMMETRIC = frozenset(name for names in _BY_KIND.values() for name in names)


class IssuerUnreachableError(QueryError):
    """The issuer's keys are not known here, and cannot be had now, so no token of it can be checked."""

    code, status = "issuer_unreachable", 503


def checked_url(url: str, name: str) -> str:
    """A URL that keys may be fetched from: https, or http on this machine; ConfigurationError for any other."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        loopback = host == "localhost" or ((host[:1].isdigit() or ":" in host) and ip_address(host).is_loopback)
    except ValueError:
        parts, host, loopback = urlsplit(""), "", False
    if not host or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        raise ConfigurationError(
            f"{name}: expected an https URL without a user (http only on loopback), got {url[:200]!r};"
            " whoever can change what is fetched from there can make tokens"
        )
    return url


class Jwks:
    """The keys of one issuer.

    Args:
        issuer: its identifier, a URL.
        url: where its keys are; None finds that in the issuer's metadata (RFC 8414, then OpenID Connect Discovery).
        clock: its monotonic time counts.
        timeout_ms: bound on one fetch.
        refresh_ms: keys older than this are fetched again, while the old ones go on.
        max_age_ms: keys older than this are used no more.
        pause_ms: an unknown key, or a failure, makes for a new fetch at most this often.
    """

    def __init__(
        self,
        issuer: str,
        url: str | None,
        clock: Clock,
        *,
        timeout_ms: int,
        refresh_ms: int,
        max_age_ms: int,
        pause_ms: int,
    ) -> None:
        self._issuer = issuer
        self._url = url
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._refresh_ms = refresh_ms
        self._max_age_ms = max_age_ms
        self._pause_ms = pause_ms
        self._keys: list[Mapping[str, Any]] = []
        self._made: dict[tuple[str | None, str], jwt.PyJWK | None] = {}
        self._fetched_ms: int | None = None
        self._tried_ms: int | None = None
        self._fetching: asyncio.Task[None] | None = None
        self.fetches = 0

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of that name for that algorithm; None where the issuer has none.

        Raises:
            IssuerUnreachableError: no keys are known, or those that are known are too old.
        """
        age_ms = self._age_ms()
        if age_ms is None or age_ms >= self._max_age_ms:
            await self._fetch_again()
            age_ms = self._age_ms()
            if age_ms is None or age_ms >= self._max_age_ms:
                raise IssuerUnreachableError(
                    "the issuer's keys cannot be had now, so its tokens cannot be checked; try again",
                    retry_after_s=max(1, -(-self._pause_ms // 1000)),
                )
        elif age_ms >= self._refresh_ms and self._may_fetch():
            self._begin()
        key = self._key(kid, algorithm)
        if key is None:
            await self._fetch_again()
            key = self._key(kid, algorithm)
        return key

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _age_ms(self) -> int | None:
        return None if self._fetched_ms is None else self._clock.monotonic_ms() - self._fetched_ms

    def _may_fetch(self) -> bool:
        return self._tried_ms is None or self._clock.monotonic_ms() - self._tried_ms >= self._pause_ms

    def _key(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        place = (kid, algorithm)
        if place not in self._made:
            fitting = [key for key in self._keys if kid in (None, key.get("kid")) and algorithm in _algorithms(key)]
            found = _made(fitting[0], algorithm) if len(fitting) == 1 else None
            if found is None:
                return None  # not remembered: whoever invents names must not fill the memory
            self._made[place] = found
        return self._made[place]

    def _begin(self) -> "asyncio.Task[None]":
        if self._fetching is None or self._fetching.done():
            self._tried_ms = self._clock.monotonic_ms()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        return self._fetching

    async def _fetch_again(self) -> None:
        """Wait for a fetch: the one under way, or a new one where it is time for that."""
        under_way = self._fetching is not None and not self._fetching.done()
        if under_way or self._may_fetch():
            await asyncio.shield(self._begin())

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            async with asyncio.timeout(self._timeout_ms / 1000), aiohttp.ClientSession() as session:
                url = self._url or await self._discovered(session)
                listed = (await _document(session, url)).get("keys")
        except (aiohttp.ClientError, TimeoutError, ValueError, ConfigurationError) as problem:
            logger.warning(
                "the keys of %s cannot be had: %s", self._issuer, str(problem)[:300] or type(problem).__name__
            )
            return
        usable = [key for key in listed if _algorithms(key)] if isinstance(listed, list) else []
        if not usable or len(usable) > _KEYS_MAX:
            logger.warning("%s lists %d keys that can be used; expected 1 to %d", self._issuer, len(usable), _KEYS_MAX)
            return
        self._keys, self._made = usable, {}
        self._fetched_ms = self._clock.monotonic_ms()

    async def _discovered(self, session: aiohttp.ClientSession) -> str:
        parts = urlsplit(self._issuer)
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        places = (
            f"{origin}/.well-known/oauth-authorization-server{path}",
            f"{origin}{path}/.well-known/openid-configuration",
        )
        problem: Exception = ValueError("no metadata")
        for place in places:
            try:
                metadata = await _document(session, place)
            except (aiohttp.ClientError, ValueError) as error:
                problem = error
                continue
            if metadata.get("issuer") != self._issuer:
                raise ValueError(f"{place} is the metadata of another issuer")
            return checked_url(str(metadata.get("jwks_uri")), "jwks_uri")
        raise problem


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A JSON object, read no further than the bound; nothing is followed elsewhere."""
    async with session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answered {answer.status}")
        raw = bytearray()
        async for part in answer.content.iter_any():
            raw += part
            if len(raw) > _DOCUMENT_MAX_BYTES:
                raise ValueError(f"{url}: expected at most {_DOCUMENT_MAX_BYTES} bytes")
    body = orjson.loads(raw)
    if not isinstance(body, dict):
        raise ValueError(f"{url}: expected a JSON object")
    return body


def _algorithms(key: object) -> tuple[str, ...]:
    """What a listed key can be used with to check signatures; nothing for a secret, a private key, or other uses."""
    if not isinstance(key, Mapping) or key.get("use", "sig") != "sig" or "d" in key:
        return ()
    uses = key.get("key_ops") or ["verify"]
    if not isinstance(uses, (list, tuple)) or "verify" not in uses:
        return ()
    kind = key.get("kty")
    curve = None if kind == "RSA" else key.get("crv")
    known = _BY_KIND.get((kind, curve)) if isinstance(kind, str) and isinstance(curve, (str, type(None))) else None
    stated = key.get("alg")
    if known is None or not isinstance(key.get("kid", ""), str):
        return ()
    return known if stated is None else tuple(name for name in known if name == stated)


def _made(key: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        made = jwt.PyJWK(dict(key), algorithm)
    except jwt.PyJWTError:
        return None
    if key.get("kty") == "RSA" and made.key.key_size < _RSA_LEAST_BITS:
        return None
    return made
