"""`GET /openapi.json`: OpenAPI 3.1, generated from the tables as they are declared."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web

from streamapp.operations.conditions import CONDITION_MAX_CHARS
from streamapp.queries.keys import KEY_MAX_CHARS
from streamapp.queries.model import TableInfo
from streamapp.queries.positions import ID_MAX_CHARS
from streamapp.settings import Settings
from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters
from streamapp.views.problems import PROBLEM_TYPE
from streamapp.views.reads import Reads
from streamapp.views.responses import answer
from streamapp.views.rest import DEFAULT_PAGE, DEFAULT_TOP, PREFIXES_MAX
from streamapp.views.schemas import Schema, array_of, closed, fixed_schemas, or_null, page_of, reading_schemas, ref
from streamapp.views.serialise import dumps
from streamapp.views.sse import INTERVAL_MAX_MS, SUBSCRIPTIONS_MAX
from streamapp.views.wellknown import METADATA_PATH

_TEXT: Schema = {"type": "string"}
_EPOCH_MS: Schema = {"type": "integer", "minimum": 0}

#: status -> what may be behind it
_REFUSALS = {
    400: "bad_parameter",
    401: "unauthorized",
    403: "forbidden",
    404: "unknown_table, unknown_key, no_such_window or not_found",
    405: "method_not_allowed",
    409: "stale",
    413: "too_large",
    429: "rate_limited",
    500: "internal",
    503: "restoring, owner_unreachable, lease_expired or issuer_unreachable",
    504: "timeout",
}


def _query(name: str, schema: Schema, description: str, *, required: bool = False, **more: Any) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description, **more}


def _path(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _operation(
    identity: str,
    summary: str,
    schema: Schema | None,
    *,
    parameters: Sequence[Schema] = (),
    refusals: Sequence[int] = (),
    scope: str | None = "read",
    media: str = "application/json",
    conditional: bool = False,
    body: Schema | None = None,
) -> Schema:
    done: Schema = {"description": summary, "content": {media: {"schema": schema or _TEXT}}}
    responses: Schema = {"200": done}
    if conditional:
        done["headers"] = {
            "ETag": {"schema": _TEXT, "description": "weak; of the values, not of the clock-driven freshness"}
        }
        responses["304"] = {"description": "the client's ETag still holds"}
    always = (400, 403, 413, 500, 504) + ((401, 429, 503) if scope else ())
    for status in sorted({*always, *refusals}):
        responses[str(status)] = {
            "description": _REFUSALS[status],
            "content": {PROBLEM_TYPE: {"schema": ref("Problem")}},
        }
    operation: Schema = {"operationId": identity, "summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    operation["security"] = [{"bearer": []}, {"cookie": []}] if scope else []
    return operation


def _paths(tables: Sequence[TableInfo], limit_max: int) -> Schema:
    names = [info.name for info in tables]
    table = _path("table", {"type": "string", "examples": names} if names else _TEXT, "a name from /v1/tables")
    key = _path(
        "key",
        {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS},
        "percent-encoded; `:` and `/` may stand as they are",
    )
    limit = {"type": "integer", "minimum": 1, "maximum": limit_max}
    page = _query("limit", {**limit, "default": min(DEFAULT_PAGE, limit_max)}, "items per page")
    cursor = _query("cursor", _TEXT, "from the page before; opaque")
    staleness = _query("max_staleness_ms", {"type": "integer", "minimum": 0}, "refuse (409) what may be further behind")
    interval = _query(
        "interval_ms",
        {"type": "integer", "minimum": 0, "maximum": INTERVAL_MAX_MS},
        "shortest time between two bursts of changes",
    )
    resume: Schema = {
        "name": "Last-Event-ID",
        "in": "header",
        "schema": {"type": "string", "maxLength": ID_MAX_CHARS},
        "description": "the last id that was received: what has changed since comes as `change`, in the place of snapshots",
    }
    reading = ref("Reading")
    item = {"oneOf": [reading, ref("FailedItem")]}
    stream = "server-sent events: `snapshot`, then `change`; `data` is a Reading"
    health = closed({"status": _TEXT})
    html = "text/html"
    return {
        "/v1/tables": {
            "get": _operation("tables", "Every table", closed({"tables": array_of(ref("Table"))}), conditional=True)
        },
        "/v1/tables/{table}": {
            "parameters": [table],
            "get": _operation("table", "One table", ref("Table"), refusals=(404,), conditional=True),
        },
        "/v1/tables/{table}/keys": {
            "parameters": [table],
            "get": _operation(
                "keys",
                "Keys, in order, of all partitions",
                page_of(_TEXT, table=_TEXT),
                parameters=[_query("prefix", _TEXT, "only keys that begin so"), page, cursor],
                refusals=(404, 503),
                conditional=True,
            ),
        },
        "/v1/tables/{table}/keys/{key}": {
            "parameters": [table, key],
            "get": _operation(
                "value",
                "The current value of a key",
                reading,
                parameters=[
                    _query("at", _EPOCH_MS, "the window that holds this instant; the one that began first"),
                    staleness,
                ],
                refusals=(404, 409, 503),
                conditional=True,
            ),
        },
        "/v1/tables/{table}/keys/{key}/windows": {
            "parameters": [table, key],
            "get": _operation(
                "windows",
                "Windows of a key in order of start",
                page_of(reading, table=_TEXT, key=_TEXT),
                parameters=[
                    _query("from", _EPOCH_MS, "first start, inclusive"),
                    _query("to", _EPOCH_MS, "last start, exclusive"),
                    page,
                    cursor,
                ],
                refusals=(404, 503),
                conditional=True,
            ),
        },
        "/v1/tables/{table}/values": {
            "parameters": [table],
            "get": _operation(
                "values",
                "Several keys at once, in the order asked",
                closed({"table": _TEXT, "items": array_of(item)}),
                parameters=[
                    _query(
                        "keys",
                        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": limit_max},
                        "comma separated; a comma within a key is `%2C`",
                        required=True,
                        style="form",
                        explode=False,
                    ),
                    staleness,
                ],
                refusals=(404, 503),
                conditional=True,
            ),
        },
        "/v1/tables/{table}/top": {
            "parameters": [table],
            "get": _operation(
                "top",
                "Newest values of all keys, ordered by one number",
                page_of(reading, table=_TEXT, by=_TEXT, order=_TEXT),
                parameters=[
                    _query("by", _TEXT, "a numeric field", required=True),
                    _query("order", {"enum": ["asc", "desc"], "default": "desc"}, "nulls come last either way"),
                    _query("limit", {**limit, "default": min(DEFAULT_TOP, limit_max)}, "how many"),
                    _query(
                        "prefixes",
                        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": PREFIXES_MAX},
                        "only keys that begin so, comma separated; a comma within one is `%2C`",
                        style="form",
                        explode=False,
                    ),
                ],
                refusals=(404, 503),
                conditional=True,
            ),
        },
        "/v1/tables/{table}/changes": {
            "parameters": [table],
            "get": _operation(
                "changes",
                "Snapshots, then every change",
                {"type": "string", "description": stream},
                parameters=[
                    _query("key", _TEXT, "only this key"),
                    _query("prefix", _TEXT, "only keys that begin so; not together with key"),
                    _query(
                        "condition",
                        {"type": "string", "minLength": 1, "maxLength": CONDITION_MAX_CHARS},
                        "only values for which it holds, such as `close > 70000`; that it ceases to hold is not told",
                    ),
                    interval,
                    resume,
                ],
                refusals=(404, 429, 503),
                media="text/event-stream",
            ),
        },
        "/v1/changes": {
            "get": _operation(
                "manyChanges",
                "Changes of several tables or keys in one connection",
                {
                    "type": "string",
                    "description": f"{stream}; with `status=true` also `status`, whose `data` is a Status",
                },
                parameters=[
                    _query(
                        "of",
                        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": SUBSCRIPTIONS_MAX},
                        "TABLE or TABLE/KEY; repeat it for more",
                        required=True,
                    ),
                    _query(
                        "status",
                        {"type": "boolean", "default": False},
                        "also send the worker's and feeds' state each second",
                    ),
                    interval,
                    resume,
                ],
                refusals=(404, 429, 503),
                media="text/event-stream",
            )
        },
        "/v1/operations": {
            "get": _operation(
                "operations",
                "What agents may call, with schemas of arguments and answers",
                closed({"operations": array_of({"type": "object"})}),
            )
        },
        "/v1/operations/{name}": {
            "parameters": [_path("name", _TEXT, "a name from /v1/operations")],
            "post": _operation(
                "callOperation",
                "Call one operation; /v1/operations has the schemas",
                {"type": "object"},
                refusals=(404, 409, 503),
                body={"type": "object"},
            ),
        },
        "/v1/context": {
            "get": _operation(
                "context",
                "A summary of the tables within a budget of tokens",
                {"type": "object"},
                parameters=[
                    _query("tables", _TEXT, "comma separated; default: all"),
                    _query("keys", _TEXT, "comma separated; default: all"),
                    _query("budget_tokens", {"type": "integer", "minimum": 100}, "most tokens of the summary"),
                    _query("style", {"enum": ["text", "json"], "default": "text"}, "how the summary is written"),
                    _query("cursor", _TEXT, "of an earlier summary: only what has changed since"),
                    staleness,
                ],
                refusals=(404, 409, 503),
            )
        },
        "/mcp": {
            method: _operation(
                f"mcp{method.capitalize()}",
                "The Model Context Protocol, streamable HTTP",
                {"type": "object"},
                media="*/*",
                refusals=(404, 405),
            )
            for method in ("get", "post", "delete")
        },
        "/v1/status": {"get": _operation("status", "This worker and its feeds", ref("Status"))},
        "/health/live": {"get": _operation("live", "Whether the process answers", health, scope=None)},
        "/health/ready": {
            "get": _operation("ready", "Whether everything assigned is restored", health, scope=None, refusals=(503,))
        },
        **{
            path: {
                "get": _operation(
                    f"protectedResource{number}",
                    "Whom to ask for an access token (RFC 9728); where an issuer is configured",
                    {"type": "object"},
                    scope=None,
                    refusals=(404,),
                )
            }
            for number, path in enumerate((METADATA_PATH, f"{METADATA_PATH}/mcp"), start=1)
        },
        "/metrics": {"get": _operation("metrics", "Prometheus metrics", _TEXT, scope="metrics", media="text/plain")},
        "/openapi.json": {"get": _operation("openapi", "This document", {"type": "object"}, conditional=True)},
        "/": {"get": _operation("dashboard", "The dashboard", _TEXT, scope=None, media=html, conditional=True)},
        "/static/{name}": {
            "parameters": [_path("name", _TEXT, "a file of the dashboard")],
            "get": _operation(
                "dashboardFile",
                "A file of the dashboard",
                _TEXT,
                scope=None,
                media="*/*",
                refusals=(404,),
                conditional=True,
            ),
        },
        "/session": {
            "get": _operation(
                "session",
                "Whether this browser may read",
                closed({"login_required": {"type": "boolean"}, "allowed": {"type": "boolean"}, "name": or_null(_TEXT)}),
                scope=None,
            )
        },
        "/login": {
            "post": _operation(
                "login",
                "Exchange a token for the dashboard's cookie",
                closed({"name": _TEXT, "scopes": array_of(_TEXT)}),
                scope=None,
                refusals=(401, 429),
                body={"type": "object", "properties": {"token": _TEXT}, "required": ["token"]},
            )
        },
        "/logout": {"post": _operation("logout", "Forget the cookie", {"type": "object"}, scope=None)},
    }


def build_document(tables: Sequence[TableInfo], limit_max: int) -> dict[str, Any]:
    """The whole document for these tables; `limit_max` is the largest page."""
    try:
        release = version("streamapp")
    except PackageNotFoundError:
        release = "0"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streamapp",
            "version": release,
            "description": "Reads of live tables. Every answer says how fresh it is; times are epoch milliseconds, UTC.",
        },
        "paths": _paths(tables, limit_max),
        "components": {
            "schemas": {**fixed_schemas(), **reading_schemas(tables)},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "streamapp_token"},
            },
        },
    }


class OpenApiView:
    """The handler of `/openapi.json`."""

    def __init__(self, reads: Reads, settings: Settings) -> None:
        self._reads = reads
        self._limit_max = settings.page_limit_max

    def routes(self) -> list[Route]:
        """The document names the tables, so it takes the right to read them."""
        return [Route("GET", "/openapi.json", self.document, "read")]

    async def document(self, request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        Parameters(request, ())
        body = dumps(build_document(self._reads.of(request).tables(), self._limit_max))
        return answer(request, body, body)
