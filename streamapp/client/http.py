"""Requests to one worker: bounded in time, repeated a few times with growing pauses, errors as the same classes as there."""

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from streamapp.bearer import bearer
from streamapp.errors import ConfigurationError, QueryError
from streamapp.queries.peers import remote_problem

#: statuses of failures that may pass
RETRIED = frozenset({429, 502, 503, 504})
_PAUSE_MAX_S = 10.0
_LINE_MAX_BYTES = 8 << 20
#: an event stream may be silent for at least this long: three heartbeats as workers send them
_SILENCE_MIN_S = 15.0


class WorkerUnreachableError(QueryError):
    """No worker answered."""

    code, status = "unreachable", 503


class UnexpectedAnswerError(QueryError):
    """A worker answered in another form than this version of the client knows."""

    code, status = "unexpected_answer", 500

    def __init__(self, path: str, problem: Exception) -> None:
        found = " ".join(str(problem).split())[:200]
        super().__init__(
            f"the worker's answer to {path} is not what this client expects; the versions differ: update the older one"
            f" ({found})"
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `id` is what to go on from. A `position` is an id by itself: all before it was told."""

    kind: str
    data: Any
    id: str | None


class Http:
    """A connection pool to one worker; an asynchronous context manager.

    Args:
        url: where the worker listens.
        token: a bearer token, or None.
        timeout_s: bound on one request, and on silence of an event stream, there at least 15 s.
        retries: how often a request is repeated after the first failure that may pass.
        pause_s: upper bound of the first pause; each further one doubles it. The pause itself is drawn below it.
    """

    def __init__(self, url: str, token: str | None, *, timeout_s: float, retries: int, pause_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"url must be like http://127.0.0.1:6066, got {url!r}")
        if not 0 < timeout_s < math.inf or retries < 0 or not 0 <= pause_s < math.inf:
            raise ConfigurationError(
                f"expected timeout_s above 0, retries and pause_s from 0, got {timeout_s}, {retries} and {pause_s}"
            )
        self._url = url.rstrip("/")
        self._headers = bearer(token)
        self._timeout_s = timeout_s
        self._retries = retries
        self._pause_s = pause_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Http":
        # no bound on connections: streams and waits keep theirs, and a read would wait behind them, a stream for ever.
        # How many there are is up to the caller, and the worker refuses what is too much for it.
        self._session = aiohttp.ClientSession(
            headers=self._headers, read_bufsize=_LINE_MAX_BYTES, connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, more_s: float = 0.0) -> Any:
        """The JSON of an answer.

        Args:
            method: GET or POST; either only reads, so it may be repeated.
            path: encoded already.
            body: sent as JSON.
            more_s: how long this waits on purpose; added to the time-out. The body's `timeout_ms` says the same and becomes
                what is left of it when the request is repeated, which happens only before that time is over.

        Raises:
            QueryError: the subclass that the worker's answer stands for; WorkerUnreachableError where there is none.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + more_s if more_s > 0 else None
        for attempt in range(self._retries + 1):
            try:
                return await self._once(method, path, body, more_s)
            except QueryError as problem:
                if problem.status not in RETRIED or attempt == self._retries:
                    raise
                pause = self._pause(attempt, problem.retry_after_s)
                if deadline is not None:
                    more_s = deadline - now() - pause
                    if more_s <= 0:
                        raise
                    body = {**(body or {}), "timeout_ms": int(more_s * 1000)}
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None, more_s: float) -> Any:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s + more_s)
        try:
            async with self._open().request(
                method, URL(self._url + path, encoded=True), json=body, timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.read()
                if response.status != 200:
                    raise _problem(self._url, response, content)
                return json.loads(content)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            raise self._unreachable(problem) from None

    @asynccontextmanager
    async def events(self, path: str, last_id: str | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """One event stream, until it ends or breaks; WorkerUnreachableError when it breaks or falls silent."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout_s, sock_read=max(self._timeout_s, _SILENCE_MIN_S)
        )
        try:
            async with self._open().get(
                URL(self._url + path, encoded=True), headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise _problem(self._url, response, await response.read())
                yield _events(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            raise self._unreachable(problem) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        return self._session

    def _pause(self, attempt: int, retry_after_s: int | None) -> float:
        bound = min(_PAUSE_MAX_S, self._pause_s * 2**attempt)
        drawn = random.uniform(bound / 2, bound)
        return drawn if retry_after_s is None else min(_PAUSE_MAX_S, retry_after_s + drawn)

    def _unreachable(self, problem: Exception) -> WorkerUnreachableError:
        reason = str(problem) or type(problem).__name__
        return WorkerUnreachableError(f"no worker answers at {self._url} ({reason})")


def _problem(url: str, response: aiohttp.ClientResponse, content: bytes) -> QueryError:
    try:
        document = json.loads(content)
        if "code" not in document:
            raise ValueError("no problem document")
        problem = remote_problem(document)
    except (ValueError, TypeError, AttributeError):
        problem = WorkerUnreachableError(f"{url} answers {response.status}; is it a streamapp worker?")
        problem.status = response.status
        return problem
    after = response.headers.get("Retry-After", "")
    problem.retry_after_s = int(after) if after.isdigit() else None
    return problem


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    kind, data, identity, told = "message", "", None, None
    async for raw in response.content:
        name, _, value = raw.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif name == "id":
            identity = value
        elif not name and not value and data:
            yield Event(kind, json.loads(data), identity)
            kind, data, told = "message", "", identity
        elif not name and not value and identity != told:
            # an id without an event, beside a heartbeat: nothing happened, and there is less to be told again
            told = identity
            yield Event("position", None, identity)
