"""The values of tables as MCP resources: `table://{table}/{key}`."""

import json
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import mcp_types as types

from streamapp.errors import BadParameterError, QueryError, UnknownKeyError
from streamapp.mcp_server.backend import Backend
from streamapp.operations.answers import CurrentValues, Item
from streamapp.operations.untrusted import exact_key, is_askable, shown_key
from streamapp.queries.access import Caller

SCHEME = "table://"
TEMPLATE = "table://{table}/{key}"
MIME_TYPE = "application/json"
PAGE = 50
_URI_MAX_CHARS = 4_000


def uri_of(table: str, key: str) -> str:
    """The URI of one value."""
    return f"{SCHEME}{quote(table, safe='')}/{quote(key, safe=':')}"


def place_of(uri: str) -> tuple[str, str]:
    """Table and key of a URI.

    Raises:
        BadParameterError: it is none of a table's value.
    """
    if uri.startswith(SCHEME) and len(uri) <= _URI_MAX_CHARS:
        table, slash, key = uri.removeprefix(SCHEME).partition("/")
        table, key = unquote(table), unquote(key)
        if slash and table and key and len(key) <= 1_024 and key.isprintable():
            return table, key
    raise BadParameterError("uri", f"expected {TEMPLATE}, such as table://latest/coinbase:BTC-USD")


def _modified(item: Item, as_of: int) -> str:
    newest_ms = as_of - (item.freshness.age_ms or 0)
    return datetime.fromtimestamp(newest_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def listed(backend: Backend, cursor: str | None, caller: Caller) -> tuple[list[types.Resource], str | None]:
    """A page of resources in order of tables and keys, and the cursor of the next."""
    tables = list(await backend.tables(caller))
    table, _, inner = (cursor or "").partition("/")
    if not tables:
        return [], None
    if cursor is None:
        table = tables[0]
    elif table not in tables:
        raise BadParameterError("cursor", "the cursor is none of this list's")
    page = await backend.keys(table, PAGE, inner or None, caller)
    found = await _resources(backend, table, list(page.keys), caller) if page.keys else []
    if page.cursor is not None:
        return found, f"{table}/{page.cursor}"
    following = tables.index(table) + 1
    return found, f"{tables[following]}/" if following < len(tables) else None


async def _resources(backend: Backend, table: str, keys: list[str], caller: Caller) -> list[types.Resource]:
    """Those of the keys that can be read by a URI; without the time of the last change where it is not known now."""
    listed = [key for key in keys if is_askable(key) and key.isprintable()]
    if not listed:
        return []
    modified: dict[str, str] = {}
    unknown: set[str] = set()
    try:
        answer = await backend.call("get_current", {"table": table, "keys": [exact_key(key) for key in listed]}, caller)
        assert isinstance(answer, CurrentValues)
        modified = {item.key: _modified(item, answer.freshness.as_of) for item in answer.items}
        unknown = {one.key for one in answer.missing if one.code == UnknownKeyError.code}
    except UnknownKeyError:
        return []  # all of them are gone since their names were read
    except QueryError as error:
        if error.status not in (503, 504):
            raise
    return [
        types.Resource(
            uri=uri_of(table, key),
            name=f"{table} {shown_key(key)}",
            mime_type=MIME_TYPE,
            annotations=types.Annotations(last_modified=modified[shown_key(key)])
            if shown_key(key) in modified
            else None,
        )
        for key in listed
        if shown_key(key) not in unknown
    ]


TEMPLATES = (
    types.ResourceTemplate(
        uri_template=TEMPLATE,
        name="value",
        title="Newest value of a key",
        description="The newest value of a key of a table, with how fresh it is. list_tables and find_keys name both.",
        mime_type=MIME_TYPE,
    ),
)


async def content(backend: Backend, uri: str, caller: Caller) -> types.ReadResourceResult:
    """The newest value behind a URI, with its freshness; QueryError where there is none."""
    table, key = place_of(uri)
    answer = await backend.call("get_current", {"table": table, "keys": [exact_key(key)]}, caller)
    assert isinstance(answer, CurrentValues)
    item = answer.items[0]
    modified = _modified(item, answer.freshness.as_of)
    text = json.dumps(
        {"table": table, **item.model_dump(mode="json"), "freshness": answer.freshness.model_dump(mode="json")},
        separators=(",", ":"),
    )
    return types.ReadResourceResult(
        contents=[types.TextResourceContents(uri=uri, mime_type=MIME_TYPE, text=text, _meta={"lastModified": modified})]
    )


def is_missing(error: QueryError) -> bool:
    """Whether an error says that the resource is not there."""
    return error.status in (400, 404)
