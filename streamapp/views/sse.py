"""Subscriptions over server-sent events: one table, or several in one connection.

A stream begins with a snapshot of everything it covers, or, for a client that comes back with `Last-Event-ID`, with what
has changed since. Either way it has missed no value that still stands; values that were replaced in between are not told.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from streamapp.errors import BadParameterError, OwnerUnreachableError, RateLimitedError, RestoringError
from streamapp.metrics import Metrics
from streamapp.operations.conditions import Condition, parse_bounded
from streamapp.queries.keys import checked_key
from streamapp.queries.model import HOP_HEADER, Change, Queries
from streamapp.queries.positions import ID_MAX_CHARS
from streamapp.settings import Settings
from streamapp.views.event_stream import EventStream, StatusSource, Written
from streamapp.views.guard import Route
from streamapp.views.outbox import Outbox
from streamapp.views.parameters import Parameters
from streamapp.views.problems import document
from streamapp.views.reads import Reads
from streamapp.views.responses import SECURITY_HEADERS
from streamapp.views.status import StatusViews

logger = logging.getLogger(__name__)

SUBSCRIPTIONS_MAX = 16  # tables or keys that one connection may follow
INTERVAL_MAX_MS = 60_000
_HEADERS: dict[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one subscription follows: a table, or what of it has a key, a prefix, values that meet a condition."""

    table: str
    key: str | None = None
    prefix: str = ""
    condition: Condition | None = None

    @property
    def name(self) -> str:
        """As in `of=`."""
        return self.table if self.key is None else f"{self.table}/{self.key}"


class StreamViews:
    """Handlers of the event streams; counts the open ones and ends them when the server stops."""

    def __init__(self, reads: Reads, settings: Settings, metrics: Metrics, status: StatusViews) -> None:
        self._reads = reads
        self._settings = settings
        self._metrics = metrics
        self._status = status
        self._open: set[EventStream] = set()
        self._written = Written()
        self._outbox = Outbox()
        self._reserved = 0  # admitted, from before their snapshot is asked for until they are gone

    def routes(self) -> list[Route]:
        """The contract's stream of one table, and the one that the dashboard lives on."""
        return [
            Route("GET", "/v1/tables/{table}/changes", self.changes, "read", streams=True),
            Route("GET", "/v1/changes", self.many, "read", streams=True),
        ]

    async def close(self, _application: web.Application | None = None) -> None:
        """End every open stream, so that stopping the server need not wait for its clients."""
        for stream in tuple(self._open):
            stream.close()

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/tables/{table}/changes?key=&prefix=&condition=&interval_ms=`."""
        parameters = Parameters(request, ("key", "prefix", "condition", "interval_ms"))
        info = self._reads.of(request).table(request.match_info["table"])
        key, prefix, condition = (parameters.text(name) for name in ("key", "prefix", "condition"))
        if key is not None and prefix is not None:
            raise BadParameterError("prefix", "key and prefix exclude each other; give one of them")
        wanted = Wanted(
            info.name,
            None if key is None else checked_key(key),
            "" if not prefix else checked_key(prefix, "prefix"),
            None if condition is None else parse_bounded(condition, info.fields),
        )
        return await self._serve(request, [wanted], self._interval(parameters))

    async def many(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/changes?of=TABLE&of=TABLE/KEY&status=true&interval_ms=`: several in one connection.

        Browsers open only a few connections to one server, so a page with three tables needs this. A subscription that
        this worker cannot serve for now (its key lives elsewhere, or is being restored) is told of in an `event: refused`,
        whose data is `{"of": ..., "problem": {...}}`, and the others go on.
        """
        parameters = Parameters(request, ("of", "status", "interval_ms"), repeatable=("of",))
        subscriptions: list[Wanted] = []
        for text in parameters.all("of"):
            table, slash, key = text.partition("/")
            subscriptions.append(Wanted(table, checked_key(key, "of") if slash else None))
        if not 0 < len(subscriptions) <= SUBSCRIPTIONS_MAX:
            raise BadParameterError(
                "of", f"of names 1 to {SUBSCRIPTIONS_MAX} of TABLE or TABLE/KEY, got {len(subscriptions)}"
            )
        wanted = parameters.choice("status", ("true", "false"), "false") == "true"
        status = partial(self._status.document, self._reads.of(request)) if wanted else None
        return await self._serve(request, subscriptions, self._interval(parameters), several=True, status=status)

    @staticmethod
    def _interval(parameters: Parameters) -> int:
        return parameters.integer("interval_ms", minimum=0, maximum=INTERVAL_MAX_MS) or 0

    async def _serve(
        self,
        request: web.Request,
        subscriptions: list[Wanted],
        interval_ms: int,
        *,
        several: bool = False,
        status: StatusSource | None = None,
    ) -> web.StreamResponse:
        since = request.headers.get("Last-Event-ID")
        if since is not None and len(since) > ID_MAX_CHARS:
            raise BadParameterError("Last-Event-ID", f"an event id has at most {ID_MAX_CHARS} characters")
        queries = self._reads.of(request)
        for wanted in subscriptions:
            queries.table(wanted.table)
        if self._reserved >= self._settings.sse_subscribers_max:
            raise RateLimitedError(
                f"{self._reserved} event streams are open, which is the most this worker serves", retry_after_s=5
            )
        self._reserved += 1
        self._metrics.subscribers.set(self._reserved)
        try:
            async with AsyncExitStack() as stack:
                # subscribed before anything is sent: what goes wrong here still becomes a problem document
                async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                    forwarded = HOP_HEADER in request.headers
                    changes, refused = await self._subscribe(
                        stack, queries, subscriptions, since or None, several, local_only=forwarded
                    )
                response = web.StreamResponse(headers=_HEADERS)
                if request.method == "HEAD":
                    return response
                response.headers.update(SECURITY_HEADERS)
                await response.prepare(request)
                await self._write(request, response, changes, refused, interval_ms, status)
                return response
        finally:
            self._reserved -= 1
            self._metrics.subscribers.set(self._reserved)

    async def _write(
        self,
        request: web.Request,
        response: web.StreamResponse,
        changes: list[AsyncIterator[Change]],
        refused: list[dict[str, object]],
        interval_ms: int,
        status: StatusSource | None,
    ) -> None:
        """Until either side ends it; a client that does not read is cut off."""
        stream: EventStream | None = None
        try:
            self._bound(request)
            stream = EventStream(
                response,
                request,
                self._settings,
                self._metrics,
                self._written,
                self._outbox,
                interval_ms=interval_ms,
                status=status,
            )
            self._open.add(stream)
            await stream.run(changes, refused)
        except ConnectionError as gone:
            logger.debug("an event stream ended: %s", gone)
            if request.transport is not None:
                request.transport.abort()
        finally:
            if stream is not None:
                self._open.discard(stream)

    def _bound(self, request: web.Request) -> None:
        """What waits in the kernel can be replaced by nothing newer, and takes memory: not much should."""
        sock = request.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # a pair of sockets of some other kind
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.sse_send_buffer_bytes)

    async def _subscribe(
        self,
        stack: AsyncExitStack,
        queries: Queries,
        subscriptions: list[Wanted],
        since: str | None,
        tolerant: bool,
        *,
        local_only: bool,
    ) -> tuple[list[AsyncIterator[Change]], list[dict[str, object]]]:
        """What can be followed, and what is refused for now; without tolerance, or beyond it, the error goes up."""
        changes: list[AsyncIterator[Change]] = []
        refused: list[dict[str, object]] = []
        for wanted in subscriptions:
            following = queries.changes(
                wanted.table,
                wanted.key,
                prefix=wanted.prefix,
                condition=wanted.condition,
                since=since,
                local_only=local_only,
            )
            try:
                changes.append(await stack.enter_async_context(following))
            except (OwnerUnreachableError, RestoringError) as error:
                if not tolerant:
                    raise
                refused.append({"of": wanted.name, "problem": document(error)})
        return changes, refused
