"""The operations of agents over plain HTTP: `POST /v1/operations/{name}`, and `GET /v1/context` for a summary.

What they are made of is imported on the first request, like the MCP server that shares them: no worker starts later for it.
"""

import asyncio
import importlib
import threading
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from streamapp.clock import Clock
from streamapp.errors import BadParameterError, TooLargeError
from streamapp.metrics import Metrics
from streamapp.queries.model import Queries
from streamapp.settings import Settings
from streamapp.views.auth import CALLER
from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters, key_list
from streamapp.views.responses import compress
from streamapp.views.serialise import dumps

if TYPE_CHECKING:
    from streamapp.operations.runner import Operations

CONTEXT_PATH = "/v1/context"
_CURSOR_MAX_CHARS = 200


class LazyOperations:
    """The operations of this worker, made when they are first asked for, in a thread."""

    def __init__(self, queries: Queries, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self._arguments = (queries, settings, metrics, clock)
        self._lock = threading.Lock()
        self._made: Operations | None = None

    def now(self) -> "Operations":
        """The operations; the first call imports them, so make it in a thread."""
        with self._lock:
            if self._made is not None:
                return self._made
            made: Operations = importlib.import_module("streamapp.operations.runner").Operations(*self._arguments)
            self._made = made
            return made

    async def get(self) -> "Operations":
        """The operations."""
        made = self._made
        return await asyncio.to_thread(self.now) if made is None else made


class OperationViews:
    """Handlers of the operations."""

    def __init__(self, operations: LazyOperations, settings: Settings) -> None:
        self._operations = operations
        self._settings = settings

    def routes(self) -> list[Route]:
        """The list, the call, and the summary. A call may wait, so it bounds its own time."""
        return [
            Route("GET", "/v1/operations", self.listed, "read"),
            Route("POST", "/v1/operations/{name}", self.call, "read", streams=True),
            Route("GET", CONTEXT_PATH, self.context, "read"),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        """`GET /v1/operations`: names, descriptions and schemas."""
        Parameters(request, ())
        await self._operations.get()
        catalogue = importlib.import_module("streamapp.operations.catalogue")
        described = [
            {
                "name": one.name,
                "title": one.title,
                "description": one.description,
                "waits": one.waits,
                "input_schema": one.input_schema(),
                "output_schema": one.output_schema(),
            }
            for one in catalogue.OPERATIONS
        ]
        return _answer(request, dumps({"operations": described}))

    async def call(self, request: web.Request) -> web.Response:
        """`POST /v1/operations/{name}`: the arguments as a JSON object; the answer."""
        Parameters(request, ())
        if request.content_type != "application/json":
            raise BadParameterError("Content-Type", "send the arguments as application/json")
        given = await self._body(request)
        return await self._run(request, request.match_info["name"], given)

    async def context(self, request: web.Request) -> web.Response:
        """`GET /v1/context?tables=&keys=&budget_tokens=&style=&cursor=&max_staleness_ms=`: `summarize_state`."""
        parameters = Parameters(request, ("tables", "keys", "budget_tokens", "style", "cursor", "max_staleness_ms"))
        given: dict[str, Any] = {}
        # without any it is of all; an empty list is no such wish
        if (tables := parameters.text("tables")) is not None:
            given["tables"] = tables.split(",")
        if parameters.text("keys") is not None:
            given["keys"] = key_list(request, self._settings.page_limit_max)
        for name in ("budget_tokens", "max_staleness_ms"):
            number = parameters.integer(name, minimum=0)
            if number is not None:
                given[name] = number
        for name in ("style", "cursor"):
            if text := parameters.text(name):
                given[name] = text
        return await self._run(request, "summarize_state", given)

    async def _run(self, request: web.Request, name: str, given: dict[str, Any]) -> web.Response:
        operations = await self._operations.get()
        answer = await operations.call(name, given, request[CALLER])
        return _answer(request, answer.model_dump_json().encode())

    async def _body(self, request: web.Request) -> dict[str, Any]:
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
            async for part in request.content.iter_chunked(64 << 10):
                size += len(part)
                if size > self._settings.max_body_bytes:
                    raise TooLargeError(f"a request body may have {self._settings.max_body_bytes} bytes")
                parts.append(part)
        try:
            given = orjson.loads(b"".join(parts) or b"{}")
        except orjson.JSONDecodeError:
            given = None
        if not isinstance(given, dict):
            raise BadParameterError("body", "the body must be a JSON object with the operation's arguments")
        return given


def _answer(request: web.Request, body: bytes) -> web.Response:
    response = web.Response(
        body=body, headers={"Content-Type": "application/json", "Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    )
    return compress(request, response)
