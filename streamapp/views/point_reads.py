"""The plain point read, answered before routing.

`GET /v1/tables/{table}/keys/{key}` is asked far more often than everything else, and what a web framework does around a
handler costs several times what the read itself does. A request that asks for nothing special (no parameters, no condition,
a key that lives here) is admitted, read and written in one step; every other one goes on to the ordinary handler, which
answers the same: tests hold the two to each other.
"""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import unquote

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import SERVER_SOFTWARE

from streamapp.errors import QueryError
from streamapp.metrics import Metrics
from streamapp.queries.bound import bound
from streamapp.queries.keys import checked_key
from streamapp.queries.model import Queries
from streamapp.queries.trace import Trace
from streamapp.views.audit import Audit
from streamapp.views.guard import CHARGED, Guard
from streamapp.views.responses import GZIP_MIN_BYTES, SECURITY_HEADERS, accepts_gzip
from streamapp.views.serialise import encode_reading, weak_etag

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PREFIX = "/v1/tables/"
_KEYS = "/keys/"
#: what makes a request more than a plain one; conditions, bodies, upgrades and ranges are the ordinary handler's business
_SPECIAL = (hdrs.IF_NONE_MATCH, hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.EXPECT, hdrs.UPGRADE)
_UNSENT_MAX_BYTES = 64 << 10
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + "".join(
    f"{name}: {value}\r\n" for name, value in {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}.items()
)
_HEAD += "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items())


class _Answer:
    """A whole response, as the server's protocol takes one: written in one piece, the connection stays."""

    __slots__ = ("_content", "_transport")

    keep_alive = True
    prepared = True
    status = 200
    body_length = 0

    def __init__(self, transport: asyncio.WriteTransport, content: bytes) -> None:
        self._transport = transport
        self._content = content

    async def prepare(self, _request: Any) -> None:
        """Nothing to prepare."""

    async def write_eof(self, _data: bytes = b"") -> None:
        """Send it."""
        self._transport.write(self._content)


class PointReads:
    """Answers plain point reads; everything else is left to the handler that it wraps.

    Args:
        queries: answers what lives here at once.
        guard: admits, as it does for the ordinary handler.
        metrics: counted under the ordinary handler's route.
        template: that route.
        audit: where these reads are recorded, too.
    """

    def __init__(self, queries: Queries, guard: Guard, metrics: Metrics, template: str, audit: Audit) -> None:
        self._audit = audit if audit.on else None
        self._template = template
        self._queries = queries
        self._admit = guard.admit
        self._count_forwarded = guard.count_forwarded
        self._counted = metrics.requests.labels(route=template, status="200")
        self._seconds = metrics.request_seconds.labels(route=template)
        self._head = b""
        self._head_second = -1

    def wrap(self, handler: Handler) -> Handler:
        """The server's handler with this one in front."""

        async def handle(request: web.Request) -> web.StreamResponse:
            answer = self.answer(request)
            return await handler(request) if answer is None else answer

        return handle

    def answer(self, request: web.Request) -> web.StreamResponse | None:
        """The response; None where the request is not a plain read of something that lives here."""
        path = request.raw_path
        if request.method != "GET" or not path.startswith(_PREFIX) or "?" in path or "#" in path:
            return None
        table, slash, key = path[len(_PREFIX) :].partition(_KEYS)
        if not slash or "/" in table or "/" in key:
            return None
        headers = request.headers
        transport = request.transport
        for name in _SPECIAL:
            if name in headers:
                return None
        if (
            transport is None
            or not request.keep_alive
            or request.version != HttpVersion11
            # a client that does not take its answers is slowed down by the ordinary handler
            or transport.get_write_buffer_size() > _UNSENT_MAX_BYTES
        ):
            return None
        now = asyncio.get_running_loop().time
        began = now()
        try:
            caller = self._admit(request, "read")
            assert caller is not None
            if caller.limits is not None:
                if not caller.limits.takes_request():
                    return None  # the ordinary handler says so
                request[CHARGED] = True
            if "%" in path:
                if "%2f" in path.lower():
                    return None  # routes may tell it from a slash
                table, key = unquote(table, errors="strict"), unquote(key, errors="strict")
            reading = bound(self._queries, caller).point(table, checked_key(key))
            if reading is None:
                return None
            body, tag = encode_reading(reading)
        except (QueryError, UnicodeError):
            return None  # the ordinary handler says what is wrong
        except Exception:  # of an aggregate's own code; the same
            return None
        if len(body) >= GZIP_MIN_BYTES and accepts_gzip(request):
            return None
        head = self._fresh_head(reading.freshness.as_of // 1000)
        tail = f"ETag: {weak_etag(tag)}\r\nContent-Length: {len(body)}\r\n\r\n"
        took_s = now() - began
        self._counted.inc()
        self._seconds.observe(took_s)
        if caller.forwarded:
            self._count_forwarded(request)
        elif self._audit is not None:
            trace = Trace(rows=1)
            trace.asked(reading.table, (reading.key,))
            self._audit.write("GET", self._template, caller, trace, "ok", 200, took_s)
        return cast("web.StreamResponse", _Answer(transport, b"".join((head, tail.encode(), body))))

    def _fresh_head(self, second: int) -> bytes:
        """The headers that all answers of one second share."""
        if second != self._head_second:
            self._head_second = second
            date = formatdate(second, usegmt=True)
            self._head = f"{_HEAD}Date: {date}\r\nServer: {SERVER_SOFTWARE}\r\n".encode()
        return self._head
