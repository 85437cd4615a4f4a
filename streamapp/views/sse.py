"""Subscriptions over server-sent events: one table, or several in one connection.

A stream begins with a snapshot of everything it covers, so that a client which reconnects (with `Last-Event-ID` or
without) has missed no value that still stands; values that were replaced in between are not told again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

from aiohttp import web

from streamapp.errors import BadParameterError, OwnerUnreachableError, RateLimitedError, RestoringError
from streamapp.metrics import Metrics
from streamapp.queries.model import HOP_HEADER, Change, Queries
from streamapp.settings import Settings
from streamapp.views.event_stream import EventStream, StatusSource
from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters, checked_key
from streamapp.views.problems import document
from streamapp.views.reads import Reads
from streamapp.views.responses import SECURITY_HEADERS
from streamapp.views.status import StatusViews

logger = logging.getLogger(__name__)

SUBSCRIPTIONS_MAX = 16  # tables or keys that one connection may follow
INTERVAL_MAX_MS = 60_000
_LAST_EVENT_ID_MAX_CHARS = 1_024
_HEADERS: dict[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class StreamViews:
    """Handlers of the event streams; counts the open ones and ends them when the server stops."""

    def __init__(self, reads: Reads, settings: Settings, metrics: Metrics, status: StatusViews) -> None:
        self._reads = reads
        self._settings = settings
        self._metrics = metrics
        self._status = status
        self._open: set[EventStream] = set()
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
        """`GET /v1/tables/{table}/changes?key=&interval_ms=`."""
        parameters = Parameters(request, ("key", "interval_ms"))
        key = parameters.text("key")
        subscription = (request.match_info["table"], None if key is None else checked_key(key))
        return await self._serve(request, [subscription], self._interval(parameters))

    async def many(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/changes?of=TABLE&of=TABLE/KEY&status=true&interval_ms=`: several in one connection.

        Browsers open only a few connections to one server, so a page with three tables needs this. A subscription that
        this worker cannot serve for now (its key lives elsewhere, or is being restored) is told of in an `event: refused`,
        whose data is `{"of": ..., "problem": {...}}`, and the others go on.
        """
        parameters = Parameters(request, ("of", "status", "interval_ms"), repeatable=("of",))
        subscriptions: list[tuple[str, str | None]] = []
        for text in parameters.all("of"):
            table, slash, key = text.partition("/")
            subscriptions.append((table, checked_key(key, "of") if slash else None))
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
        subscriptions: list[tuple[str, str | None]],
        interval_ms: int,
        *,
        several: bool = False,
        status: StatusSource | None = None,
    ) -> web.StreamResponse:
        if len(request.headers.get("Last-Event-ID", "")) > _LAST_EVENT_ID_MAX_CHARS:
            raise BadParameterError("Last-Event-ID", f"an event id has at most {_LAST_EVENT_ID_MAX_CHARS} characters")
        queries = self._reads.of(request)
        for table, _ in subscriptions:
            queries.table(table)
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
                        stack, queries, subscriptions, several, local_only=forwarded
                    )
                response = web.StreamResponse(headers=_HEADERS)
                if request.method == "HEAD":
                    return response
                response.headers.update(SECURITY_HEADERS)
                await response.prepare(request)
                stream = EventStream(
                    response,
                    self._settings,
                    self._metrics,
                    interval_ms=interval_ms,
                    status=status,
                )
                self._open.add(stream)
                try:
                    await stream.run(changes, refused)
                except ConnectionError as gone:
                    logger.debug("an event stream ended: %s", gone)
                    if request.transport is not None:
                        request.transport.abort()
                finally:
                    self._open.discard(stream)
                return response
        finally:
            self._reserved -= 1
            self._metrics.subscribers.set(self._reserved)

    async def _subscribe(
        self,
        stack: AsyncExitStack,
        queries: Queries,
        subscriptions: list[tuple[str, str | None]],
        tolerant: bool,
        *,
        local_only: bool,
    ) -> tuple[list[AsyncIterator[Change]], list[dict[str, object]]]:
        """What can be followed, and what is refused for now; without tolerance, or beyond it, the error goes up."""
        changes: list[AsyncIterator[Change]] = []
        refused: list[dict[str, object]] = []
        for table, key in subscriptions:
            try:
                changes.append(await stack.enter_async_context(queries.changes(table, key, local_only=local_only)))
            except (OwnerUnreachableError, RestoringError) as error:
                if not tolerant:
                    raise
                refused.append({"of": table if key is None else f"{table}/{key}", "problem": document(error)})
        return changes, refused
