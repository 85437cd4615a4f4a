"""How the command line asks a worker: JSON reads and event streams over HTTP, errors as one line."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from streamapp.bearer import bearer
from streamapp.errors import ConfigurationError, QueryError

DEFAULT_URL = "http://127.0.0.1:6066"
_RECONNECT_MAX_S = 10.0
_LINE_MAX_BYTES = 8 << 20


class WorkerError(QueryError):
    """The worker refused, or none answered.

    Attributes:
        code: the problem document's code, `unreachable` where nobody answered.
    """

    def __init__(self, message: str, code: str, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def find_token(token_file: Path | None) -> str | None:
    """The token of `--token-file`, else of `STREAMAPP_TOKEN`; None where neither is given.

    Raises:
        ConfigurationError: the file cannot be read, is empty, or others than its owner may read it.
    """
    if token_file is None:
        return os.environ.get("STREAMAPP_TOKEN", "").strip() or None
    try:
        if token_file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise ConfigurationError(f"{token_file} may be read by others than its owner; run chmod 600 {token_file}")
        text = token_file.read_text().strip()
    except OSError as problem:
        raise ConfigurationError(f"{token_file} cannot be read: {problem.strerror}") from None
    if not text:
        raise ConfigurationError(f"{token_file} is empty; it should hold one token")
    return text


def path_of(*parts: str, **query: str | int | None) -> str:
    """A path of the HTTP interface, each part percent-encoded, with the query parameters that are not None."""
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    pairs = [f"{name.rstrip('_')}={quote(str(value), safe='')}" for name, value in query.items() if value is not None]
    return path + ("?" + "&".join(pairs) if pairs else "")


class WorkerClient:
    """A connection to one worker; use it as an asynchronous context manager.

    Args:
        url: where the worker listens.
        token: a bearer token, or None.
        timeout_s: bound on one read, and on silence of an event stream.
    """

    def __init__(self, url: str, token: str | None, timeout_s: float = 15.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"--url must be like {DEFAULT_URL}, got {url!r}")
        self._url = url.rstrip("/")
        self._headers = bearer(token)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "WorkerClient":
        self._session = aiohttp.ClientSession(headers=self._headers, read_bufsize=_LINE_MAX_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, path: str) -> Any:
        """The JSON of one read; WorkerError says in one line what the worker said."""
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with self._get(path, timeout) as response:
                await self._refuse_problem(response)
                return json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            raise self._unreachable(problem) from None

    async def events(self, path: str) -> AsyncIterator[tuple[str, Any]]:
        """Kind and data of each event, for ever: comes back after a lost connection, with growing pauses.

        The first connection has to succeed; WorkerError otherwise, and whenever the worker refuses.
        """
        pause_s = 0.0
        connected = False
        while True:
            try:
                async for kind, data in self._stream(path):
                    connected, pause_s = True, 0.0
                    if kind != "problem":
                        yield kind, data
            except (aiohttp.ClientError, TimeoutError, OSError) as problem:
                if not connected:
                    raise self._unreachable(problem) from None
            except WorkerError as problem:
                if problem.status < 500 or not connected:
                    raise
            pause_s = min(_RECONNECT_MAX_S, pause_s * 2 or 0.25)
            await asyncio.sleep(pause_s)

    async def _stream(self, path: str) -> AsyncIterator[tuple[str, Any]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s)
        async with self._get(path, timeout) as response:
            await self._refuse_problem(response)
            kind, data = "message", ""
            async for raw in response.content:
                name, _, value = raw.decode().rstrip("\n").partition(":")
                if name == "event":
                    kind = value.strip()
                elif name == "data":
                    data = value
                elif not name and data:
                    yield kind, json.loads(data)
                    kind, data = "message", ""

    def _get(self, path: str, timeout: aiohttp.ClientTimeout) -> Any:
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        # the path is encoded already: a key's own `%2F` must stay one
        return self._session.get(URL(self._url + path, encoded=True), timeout=timeout, allow_redirects=False)

    async def _refuse_problem(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 200:
            return
        try:
            problem = json.loads(await response.read())
            detail, code = str(problem["detail"]), str(problem["code"])
        except (ValueError, KeyError, TypeError):
            raise WorkerError(
                f"{self._url} answers {response.status}; is it a streamapp worker?", "unexpected", response.status
            ) from None
        if nearest := problem.get("nearest"):
            detail += f"; like it: {', '.join(map(str, nearest))}"
        raise WorkerError(f"{code}: {detail}", code, response.status)

    def _unreachable(self, problem: Exception) -> WorkerError:
        reason = str(problem) or type(problem).__name__
        return WorkerError(
            f"no worker answers at {self._url} ({reason}); start one, or name it with --url", "unreachable"
        )
