"""The MCP server of a worker at `/mcp`, behind the same checks as every other route.

The protocol's package is imported on the first request, in a thread: it takes as long as a worker takes to start.
"""

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import web

from streamapp.errors import ForbiddenError
from streamapp.queries.access import CALLER_IN_SCOPE
from streamapp.settings import Settings
from streamapp.views.asgi import AsgiApp, AsgiBridge
from streamapp.views.auth import CALLER
from streamapp.views.binding import is_loopback
from streamapp.views.guard import Route

logger = logging.getLogger(__name__)

PATH = "/mcp"
_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 1.0


class Served(Protocol):
    """A protocol server as this view runs it."""

    def run(self) -> contextlib.AbstractAsyncContextManager[AsgiApp]:
        """Its life: entered and left in one task; gives the ASGI application."""
        ...

    def close(self) -> None:
        """End the subscriptions gracefully; called before the life ends."""
        ...


#: makes the server on first use; called in a thread
Build = Callable[[], Served]


class McpView:
    """Handlers of `/mcp`.

    Args:
        build: makes the server; called once, in a thread.
        settings: limits, and the names this server answers for.
    """

    def __init__(self, build: Build, settings: Settings) -> None:
        self._build = build
        self._bridge = AsgiBridge(
            body_max_bytes=settings.max_body_bytes,
            write_timeout_s=settings.sse_write_timeout_ms / 1000,
            body_timeout_s=settings.request_timeout_ms / 1000,
        )
        self._allowed = {name.strip().lower() for name in settings.web_allowed_hosts.split(",") if name.strip()}
        self._starting: asyncio.Task[AsgiApp] | None = None
        self._served: Served | None = None
        self._life: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    def routes(self) -> list[Route]:
        """All methods of the transport; a stream may last, so no time-out holds."""
        return [
            Route(method, PATH, self.handle, "read", streams=True, limited=method != "POST")
            for method in ("POST", "GET", "DELETE")
        ]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request of the transport."""
        self._check_origin(request)
        app = await self._app()
        return await self._bridge.serve(request, app, {CALLER_IN_SCOPE: request[CALLER]})

    def _check_origin(self, request: web.Request) -> None:
        """A browser says which page asks; a page of another server must not, even with a user's cookie."""
        origin = request.headers.get("Origin")
        if origin is None:
            return
        try:
            parts = urlsplit(origin)
            name = (parts.hostname or "").lower()
        except ValueError:
            name = ""
        own = origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()
        if not (own or name in self._allowed or (name and is_loopback(name))):
            raise ForbiddenError(
                f"this server does not answer pages of {origin[:100]!r}; STREAMAPP_WEB_ALLOWED_HOSTS names those it does"
            )

    async def _app(self) -> AsgiApp:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="mcp-start")
        starting = self._starting
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                return await asyncio.shield(starting)
        except Exception:
            if starting.done() and self._starting is starting:
                self._starting = None  # the next request tries again
            raise

    async def _start(self) -> AsgiApp:
        served = await asyncio.to_thread(self._build)
        ready: asyncio.Future[AsgiApp] = asyncio.get_running_loop().create_future()
        self._served = served
        self._life = asyncio.create_task(self._live(served, ready), name="mcp")
        return await ready

    async def _live(self, served: Served, ready: "asyncio.Future[AsgiApp]") -> None:
        # entered and left in one task, as the package's cancel scopes demand
        try:
            async with served.run() as app:
                ready.set_result(app)
                await self._ended.wait()
        except Exception as problem:
            if ready.done():
                logger.exception("the MCP server failed")
            else:
                ready.set_exception(problem)
        finally:
            if not self._ended.is_set():
                self._starting = None  # the next request makes a new server, instead of asking one that is gone

    async def close(self, _application: web.Application | None = None) -> None:
        """End the subscriptions with their last word, then all open requests, then the server; bounded."""
        if self._served is not None:
            self._served.close()
            await self._bridge.idle(_END_TIMEOUT_S)
        self._bridge.close()
        self._ended.set()
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        if self._life is not None:
            await asyncio.wait({self._life}, timeout=_END_TIMEOUT_S)
            self._life.cancel()


def lazily(module: str, function: str, *arguments: Any) -> Build:
    """A `Build` that imports what it needs when it is called."""

    def build() -> Served:
        make: Callable[..., Served] = getattr(importlib.import_module(module), function)
        return make(*arguments)

    return build
