"""Asking the other workers: one hop, with a time-out, never further."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from streamapp.errors import OwnerUnreachableError, QueryError
from streamapp.metrics import Metrics
from streamapp.queries.model import (
    HOP_HEADER,
    FeedFreshness,
    Freshness,
    Reading,
    WindowSpan,
)
from streamapp.queries.trace import ON_BEHALF, ON_BEHALF_HEADER
from streamapp.settings import Settings

_RESPONSE_MAX_BYTES = 8 << 20
_KEYS_MAX_BYTES = 3_000  # of a list of keys in a path
_CODE_MAX_CHARS = 64
_EVENT_MAX_BYTES = 1 << 20  # of one event of a stream


def hop_token(settings: Settings) -> str:
    """What proves to the owner that another worker of the same cluster asks; all of them share the same settings."""
    secret = settings.api_tokens if settings.cluster_secret is None else settings.cluster_secret.get_secret_value()
    return hmac.new(secret.encode(), b"streamapp-hop", hashlib.sha256).hexdigest()


class Peers:
    """Reads from other workers over their HTTP API."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._timeout = aiohttp.ClientTimeout(total=settings.forward_timeout_ms / 1000)
        self._token = hop_token(settings)
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None

        self._streams_max = settings.sse_subscribers_max
        self._silence_s = 3 * settings.sse_heartbeat_ms / 1000
        self._streams: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pools: one for reads, and one for streams, which would take all of it."""
        self._streams = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeout.total, sock_read=max(self._silence_s, 1.0)
            ),
            headers={HOP_HEADER: self._token},
            connector=aiohttp.TCPConnector(limit=self._streams_max),
            read_bufsize=_EVENT_MAX_BYTES,
        )
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            headers={HOP_HEADER: self._token},
            connector=aiohttp.TCPConnector(limit=64),
            auto_decompress=True,
        )

    async def stop(self) -> None:
        """Close them."""
        for session in (self._session, self._streams):
            if session is not None:
                await session.close()

    async def get(self, url: str, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One GET at a worker.

        Raises:
            OwnerUnreachableError: it did not answer in time, or not with an answer of this API.
            QueryError: what it answered, where that is a problem document.
        """
        assert self._session is not None
        wanted = {name: str(value) for name, value in parameters.items() if value is not None}
        try:
            more = f"{'&' if '?' in path else '?'}{urlencode(wanted)}" if wanted else ""
            whole = URL(f"{url.rstrip('/')}{path}{more}", encoded=True)  # a comma inside a key stays %2C
            async with self._session.get(whole, allow_redirects=False, headers=_on_behalf()) as answer:
                body = await _json(answer)
                if answer.status == 200:
                    self._metrics.forwarded.labels("answered").inc()
                    return body
        except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
            self._metrics.forwarded.labels("unreachable").inc()
            raise OwnerUnreachableError(
                f"the worker at {url} that owns this key did not answer: {_named(problem)}", retry_after_s=1
            ) from None
        self._metrics.forwarded.labels("refused").inc()
        raise _owners_problem(body)

    @asynccontextmanager
    async def stream(
        self, url: str, path: str, parameters: Mapping[str, Any], *, since: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An event stream of a worker, from the event of an id on; errors as of `get`, also of the time until it begins."""
        assert self._streams is not None
        wanted = {name: str(value) for name, value in parameters.items() if value is not None}
        try:
            async with asyncio.timeout(self._timeout.total):
                answer = await self._streams.get(
                    f"{url.rstrip('/')}{path}",
                    params=wanted,
                    headers={**_on_behalf(), **({"Last-Event-ID": since} if since else {})},
                    allow_redirects=False,
                )
                refusal = None if answer.status == 200 else await _json(answer)
        except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
            self._metrics.forwarded.labels("unreachable").inc()
            raise OwnerUnreachableError(
                f"the worker at {url} that owns these keys did not answer: {type(problem).__name__}", retry_after_s=1
            ) from None
        try:
            if refusal is not None:
                self._metrics.forwarded.labels("refused").inc()
                raise _owners_problem(refusal)
            self._metrics.forwarded.labels("answered").inc()
            yield answer
        finally:
            answer.close()


def _on_behalf() -> dict[str, str]:
    """The name that the other worker counts a read by; it decides nothing there."""
    name = ON_BEHALF.get()
    return {ON_BEHALF_HEADER: name} if name else {}


def _named(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__


async def _json(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    raw = bytearray()
    async for part in answer.content.iter_any():  # a `read` with a bound stops at whatever has arrived
        raw += part
        if len(raw) > _RESPONSE_MAX_BYTES:
            raise ValueError(f"expected at most {_RESPONSE_MAX_BYTES} bytes")
    body = msgspec.json.decode(raw)  # unlike others it takes integers of any size, as they are written here
    if not isinstance(body, dict):
        raise ValueError("expected an object")
    return body


def _owners_problem(body: Mapping[str, Any]) -> QueryError:
    """The same; an owner that failed counts as one that does not answer, since a copy elsewhere may."""
    problem = remote_problem(body)
    if type(problem) is QueryError and problem.status >= 500:
        return OwnerUnreachableError(f"the owner answered {problem.status}: {problem}", retry_after_s=1)
    return problem


def remote_problem(body: Mapping[str, Any]) -> QueryError:
    """The error that a problem document stands for; a plain QueryError with its code and status, where none has its code."""
    for kind in _all_kinds(QueryError):
        # a kind without a code of its own (a client's, whose codes are what a worker said) would claim its parent's
        if "code" in vars(kind) and kind.code == body.get("code"):
            problem = kind.__new__(kind)
            after = body.get("retry_after_s")
            QueryError.__init__(
                problem, str(body.get("detail", "")), retry_after_s=after if isinstance(after, int) else None
            )
            problem.__dict__.update(
                {
                    "nearest": tuple(body.get("nearest", ())),
                    "parameter": str(body.get("parameter", "")),
                    "staleness_ms": int(body.get("staleness_ms", 0)),
                }
            )
            return problem
    status = body.get("status")
    unknown = QueryError(str(body.get("detail", "")))
    unknown.code = str(body.get("code", QueryError.code))[:_CODE_MAX_CHARS]
    unknown.status = status if isinstance(status, int) and 400 <= status < 600 else QueryError.status
    return unknown


def _all_kinds(kind: type[QueryError]) -> list[type[QueryError]]:
    return [inner for sub in kind.__subclasses__() for inner in (sub, *_all_kinds(sub))]


def in_parts(keys: Sequence[str], most: int) -> list[list[str]]:
    """Keys in the order given, in lists that fit into one path each, of so many at most."""
    parts: list[list[str]] = [[]]
    room = _KEYS_MAX_BYTES
    for key in keys:
        size = len(quote(key, safe="")) + 3
        if (size > room or len(parts[-1]) >= most) and parts[-1]:
            parts.append([])
            room = _KEYS_MAX_BYTES
        parts[-1].append(key)
        room -= size
    return parts


def key_path(table: str, key: str, rest: str = "") -> str:
    """The path of a key's read."""
    return f"/v1/tables/{quote(table, safe='')}/keys/{quote(key, safe='')}{rest}"


def reading_of(body: Mapping[str, Any]) -> Reading:
    """A reading from the JSON of another worker's answer."""
    window, fresh = body["window"], dict(body["freshness"])
    feed = fresh.pop("feed", None)
    return Reading(
        body["table"],
        body["key"],
        WindowSpan(**window) if window is not None else None,
        body["value"],
        Freshness(**fresh, feed=FeedFreshness(**feed) if feed is not None else None),
    )
