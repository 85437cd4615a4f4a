"""The reads of the contract as HTTP routes. Every answer is JSON; parameters are strict; cursors are passed through."""

from aiohttp import web

from streamapp.errors import BadParameterError, QueryError
from streamapp.queries.access import RULES_MAX
from streamapp.queries.keys import checked_key
from streamapp.queries.model import HOP_HEADER
from streamapp.settings import Settings
from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters, key_list, text_list
from streamapp.views.reads import Reads
from streamapp.views.responses import answer
from streamapp.views.serialise import describe_table, dumps, encode_items, encode_page, encode_reading, failed_item

_TABLE = "/v1/tables/{table}"
KEY_TEMPLATE = _TABLE + "/keys/{key}"
_CURSOR_MAX_CHARS = 6_000  # of the longest key of the largest characters
_EPOCH_MS_MAX = 9_999_999_999_999_999
DEFAULT_PAGE = 100
DEFAULT_TOP = 10
PREFIXES_MAX = 2 * RULES_MAX


def _forwarded(request: web.Request) -> bool:
    """Whether another worker already forwarded this read; it must not travel on."""
    return HOP_HEADER in request.headers


def _prefixes(request: web.Request) -> list[str]:
    """The beginnings that `prefixes=A,B` names, without those that another one covers; an empty list is refused."""
    kept: list[str] = []
    # the worker that forwards has put the beginnings that its caller may read in the place of shorter ones
    most = PREFIXES_MAX + RULES_MAX if _forwarded(request) else PREFIXES_MAX
    for prefix in sorted(text_list(request, "prefixes", most)):
        if not (kept and prefix.startswith(kept[-1])):
            kept.append(prefix)
    return kept


class RestViews:
    """Handlers over the reads of their callers."""

    def __init__(self, reads: Reads, settings: Settings) -> None:
        self._reads = reads
        self._limit_max = settings.page_limit_max

    def routes(self) -> list[Route]:
        """Every route; the point read comes first, because paths are tried in this order.

        A key may hold slashes as they are; only one that ends in `/windows` needs `%2F` there.
        """
        return [
            Route("GET", f"{_TABLE}/keys/{{key:.+(?<!/windows)}}", self.get, "read", name=KEY_TEMPLATE),
            Route("GET", "/v1/tables", self.tables, "read"),
            Route("GET", _TABLE, self.table, "read"),
            Route("GET", f"{_TABLE}/keys", self.keys, "read"),
            Route("GET", f"{_TABLE}/keys/{{key:.+}}/windows", self.windows, "read", name=f"{KEY_TEMPLATE}/windows"),
            Route("GET", f"{_TABLE}/values", self.values, "read"),
            Route("GET", f"{_TABLE}/top", self.top, "read"),
        ]

    async def tables(self, request: web.Request) -> web.Response:
        """`GET /v1/tables`."""
        Parameters(request, ())
        reads = self._reads.of(request)
        infos = reads.tables()
        counts = await reads.key_counts([info.name for info in infos], local_only=_forwarded(request))
        body = dumps({"tables": [describe_table(*pair) for pair in zip(infos, counts, strict=True)]})
        return answer(request, body, body)

    async def table(self, request: web.Request) -> web.Response:
        """`GET /v1/tables/{table}`: one entry of the list."""
        Parameters(request, ())
        reads = self._reads.of(request)
        info = reads.table(request.match_info["table"])
        (count,) = await reads.key_counts([info.name], local_only=_forwarded(request))
        body = dumps(describe_table(info, count))
        return answer(request, body, body)

    async def keys(self, request: web.Request) -> web.Response:
        """`GET /v1/tables/{table}/keys?prefix=&limit=&cursor=`."""
        parameters = Parameters(request, ("prefix", "limit", "cursor"))
        table = request.match_info["table"]
        page = await self._reads.of(request).keys(
            table,
            prefix=parameters.text("prefix") or "",
            limit=self._limit(parameters, DEFAULT_PAGE),
            cursor=self._cursor(parameters),
            local_only=_forwarded(request),
        )
        return answer(request, *encode_page(page, table=table))

    async def get(self, request: web.Request) -> web.Response:
        """`GET /v1/tables/{table}/keys/{key}?at=&max_staleness_ms=`: one value.

        A 304 carries how fresh the unchanged value is as `Streamapp-As-Of` and `Streamapp-Staleness-Ms`.
        """
        at = max_staleness_ms = None
        if request.rel_url.raw_query_string:
            parameters = Parameters(request, ("at", "max_staleness_ms"))
            at = parameters.integer("at", minimum=0, maximum=_EPOCH_MS_MAX)
            max_staleness_ms = parameters.integer("max_staleness_ms", minimum=0)
        reading = await self._reads.of(request).get(
            request.match_info["table"],
            checked_key(request.match_info["key"]),
            at=at,
            max_staleness_ms=max_staleness_ms,
            local_only=_forwarded(request),
        )
        body, tag = encode_reading(reading)
        unchanged = None
        if "If-None-Match" in request.headers:
            unchanged = {
                "Streamapp-As-Of": str(reading.freshness.as_of),
                "Streamapp-Staleness-Ms": str(reading.freshness.staleness_ms),
            }
        return answer(request, body, tag, unchanged_headers=unchanged)

    async def values(self, request: web.Request) -> web.Response:
        """`GET /v1/tables/{table}/values?keys=A,B&max_staleness_ms=`: readings in the order asked, errors in place."""
        parameters = Parameters(request, ("keys", "max_staleness_ms"))
        table = request.match_info["table"]
        keys = key_list(request, self._limit_max)
        found = await self._reads.of(request).values(
            table,
            keys,
            max_staleness_ms=parameters.integer("max_staleness_ms", minimum=0),
            local_only=_forwarded(request),
        )
        items: list[object] = []
        for key, item in zip(keys, found, strict=True):
            if isinstance(item, QueryError):
                items.append(failed_item(table, key, item))
            elif isinstance(item, Exception):
                raise item
            else:
                items.append(item)
        array, tag = encode_items(items)
        return answer(request, dumps({"table": table})[:-1] + b',"items":' + array + b"}", tag)

    async def windows(self, request: web.Request) -> web.Response:
        """`GET /v1/tables/{table}/keys/{key}/windows?from=&to=&limit=&cursor=`: by start, `from` <= start < `to`."""
        parameters = Parameters(request, ("from", "to", "limit", "cursor"))
        table, key = request.match_info["table"], checked_key(request.match_info["key"])
        start = parameters.integer("from", minimum=0, maximum=_EPOCH_MS_MAX)
        end = parameters.integer("to", minimum=0, maximum=_EPOCH_MS_MAX)
        if start is not None and end is not None and end < start:
            raise BadParameterError("to", f"to must not be before from, got from={start} and to={end}")
        page = await self._reads.of(request).windows(
            table,
            key,
            start=start,
            end=end,
            limit=self._limit(parameters, DEFAULT_PAGE),
            cursor=self._cursor(parameters),
            local_only=_forwarded(request),
        )
        return answer(request, *encode_page(page, table=table, key=key))

    async def top(self, request: web.Request) -> web.Response:
        """`GET /v1/tables/{table}/top?by=FIELD&order=&limit=&prefixes=A,B`: the newest values, ordered by one number."""
        parameters = Parameters(request, ("by", "order", "limit", "prefixes"))
        table = request.match_info["table"]
        by = parameters.text("by")
        if not by:
            raise BadParameterError("by", "by must name a numeric field of the table; /v1/tables lists them")
        order = parameters.choice("order", ("asc", "desc"), "desc")
        page = await self._reads.of(request).top(
            table,
            by=by,
            order="asc" if order == "asc" else "desc",
            limit=self._limit(parameters, DEFAULT_TOP),
            prefixes=("",) if parameters.text("prefixes") is None else _prefixes(request),
            local_only=_forwarded(request),
        )
        return answer(request, *encode_page(page, table=table, by=by, order=order))

    def _limit(self, parameters: Parameters, default: int) -> int:
        given = parameters.integer("limit", minimum=1, maximum=self._limit_max)
        return min(default, self._limit_max) if given is None else given

    def _cursor(self, parameters: Parameters) -> str | None:
        cursor = parameters.text("cursor")
        if cursor is not None and not 0 < len(cursor) <= _CURSOR_MAX_CHARS:
            raise BadParameterError("cursor", "cursor must be one that an earlier page of this route gave")
        return cursor
