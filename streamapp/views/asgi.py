"""One ASGI application under a route of aiohttp's server: same port, same event loop.

Enough of ASGI 3 for request and response, event streams included. A client that leaves is told to the application as
`http.disconnect`, also while nothing is being written, and so is the server's own end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from aiohttp import web

from streamapp.errors import TooLargeError
from streamapp.views.responses import SECURITY_HEADERS

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_END_S = 5.0  # how long an application may take to end once its client is gone
_LOOK_S = 1.0  # how long a lost connection may go unnoticed where the server does not cancel handlers
#: aiohttp writes these itself
_OWN_HEADERS = frozenset({"content-length", "connection", "transfer-encoding", "date", "server"})


class AsgiBridge:
    """Passes requests to an ASGI application and its answers back.

    Args:
        body_max_bytes: largest request body.
        write_timeout_s: a client that takes nothing of a stream for this long is dropped.
        body_timeout_s: how long a whole request body may take.
    """

    def __init__(self, *, body_max_bytes: int, write_timeout_s: float, body_timeout_s: float) -> None:
        self._body_max_bytes = body_max_bytes
        self._body_timeout_s = body_timeout_s
        self._write_timeout_s = write_timeout_s
        self._closing = asyncio.Event()
        self._open: set[_Exchange] = set()
        self._idle: asyncio.Event | None = None
        self._endings: set[asyncio.Task[None]] = set()

    async def idle(self, timeout_s: float) -> None:
        """Wait until no request is open, or for the time-out."""
        self._idle = asyncio.Event()
        if self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()

    def close(self) -> None:
        """Tell every open request that its client is gone: the server stops."""
        self._closing.set()
        for exchange in tuple(self._open):
            exchange.disconnect()

    async def serve(self, request: web.Request, app: AsgiApp, extra: Mapping[str, Any]) -> web.StreamResponse:
        """Answer one request by the application.

        Args:
            request: as it came.
            app: called with a scope of type `http`.
            extra: more of the scope, for example who the caller is.

        Raises:
            TooLargeError: the body is over the limit.
            TimeoutError: the body did not come in time.
            ConnectionResetError: the client left before there was an answer.
        """
        exchange = _Exchange(request, await self._body(request), self._write_timeout_s)
        if self._closing.is_set():
            exchange.disconnect()
        self._open.add(exchange)
        run = asyncio.ensure_future(app({**_scope(request), **extra}, exchange.receive, exchange.send))
        run.add_done_callback(lambda _: self._ended(exchange))
        try:
            # aiohttp cancels the handler of a client that leaves; the application ends by itself instead, in its own way:
            # a session, for one, outlives the stream that carried its first answer
            await asyncio.shield(run)
        except asyncio.CancelledError:
            exchange.disconnect()
            ending = asyncio.create_task(_end(run), name="asgi-end")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            raise
        return await exchange.finished()

    def _ended(self, exchange: "_Exchange") -> None:
        self._open.discard(exchange)
        exchange.disconnect()
        if self._idle is not None and not self._open:
            self._idle.set()

    async def _body(self, request: web.Request) -> bytes:
        if not request.can_read_body:
            return b""
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._body_timeout_s):
            async for part in request.content.iter_chunked(64 << 10):
                size += len(part)
                if size > self._body_max_bytes:
                    raise TooLargeError(f"a request body may have {self._body_max_bytes} bytes")
                parts.append(part)
        return b"".join(parts)


async def _end(run: "asyncio.Future[None]") -> None:
    """Let an application end whose client is gone; bounded."""
    await asyncio.wait({run}, timeout=_END_S)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


def _scope(request: web.Request) -> dict[str, Any]:
    transport = request.transport
    client = transport.get_extra_info("peername") if transport is not None else None
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"{request.version.major}.{request.version.minor}",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": request.raw_path.partition("?")[0].encode("latin-1", "replace"),
        "query_string": request.rel_url.raw_query_string.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": tuple(client[:2]) if isinstance(client, tuple) else None,
        "server": None,
    }


class _Exchange:
    """One request and its answer, as the application sees them."""

    def __init__(self, request: web.Request, body: bytes, write_timeout_s: float) -> None:
        self._request = request
        self._body: bytes | None = body
        self._write_timeout_s = write_timeout_s
        self._gone = asyncio.Event()
        self._response: web.StreamResponse | None = None
        self._stream = False
        self._parts: list[bytes] = []

    def disconnect(self) -> None:
        """Let `receive` say that the client is gone."""
        self._gone.set()

    async def receive(self) -> Message:
        """The whole body at first, then the end of the connection, whenever that is."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        while not self._gone.is_set():
            transport = self._request.transport
            if transport is None or transport.is_closing():
                break
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._gone.wait()
            except TimeoutError:
                pass
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a part of the answer. An event stream is begun at once, since its first event may be far away."""
        if self._gone.is_set() and self._response is None:
            return
        if message["type"] == "http.response.start":
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.decode("latin-1").lower() not in _OWN_HEADERS
            ]
            kinds = [value for name, value in headers if name.lower() == "content-type"]
            self._stream = bool(kinds) and kinds[0].startswith("text/event-stream")
            self._response = (web.StreamResponse if self._stream else web.Response)(status=message["status"])
            for name, value in headers:
                self._response.headers.add(name, value)
            if self._stream:
                self._response.headers.update(SECURITY_HEADERS)
                await self._bounded(self._response.prepare(self._request))
        elif message["type"] == "http.response.body":
            part = message.get("body", b"")
            if not self._stream:
                self._parts.append(part)
            elif part and self._response is not None and not self._gone.is_set():
                await self._bounded(self._response.write(part))

    async def _bounded(self, writing: Awaitable[object]) -> None:
        """A write that does not wait for ever; when it fails the client counts as gone, which ends the application."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await writing
        except (TimeoutError, ConnectionError) as problem:
            logger.debug("a stream ended: %s", problem or "the client took nothing within the write time-out")
            self._gone.set()
            if self._request.transport is not None:
                self._request.transport.abort()

    async def finished(self) -> web.StreamResponse:
        """What aiohttp is to be given."""
        response = self._response
        if response is None:
            raise ConnectionResetError("the client left before there was an answer")
        if isinstance(response, web.Response):
            response.body = b"".join(self._parts)
        elif response.prepared:
            await self._bounded(response.write_eof())
        return response
