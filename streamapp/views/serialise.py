"""A reading as the contract's JSON, and the part of it that an ETag stands for.

The classes of the read model have their fields in the contract's order, so they are written as they are.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from streamapp.errors import QueryError
from streamapp.queries.model import Page, Reading, TableInfo
from streamapp.views.problems import document

_FRESHNESS = b',"freshness":{'


def _plain(value: object) -> object:
    """What msgspec does not know by itself: mappings and sequences that are no dict or list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, Sequence)):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def dumps(value: object) -> bytes:
    """Compact JSON; a float that is not finite becomes null."""
    return _encode(value)


def encode_reading(reading: Reading) -> tuple[bytes, bytes]:
    """A reading's JSON, and the bytes that decide whether it has changed.

    The latter are all but the clock-driven parts of the freshness: table, key, window, value, source offset and the state
    of the feed. `as_of`, `age_ms`, `staleness_ms`, `lag` and `watermark` move without the value, and would defeat the ETag.
    """
    body = dumps(reading)
    freshness = reading.freshness
    feed = freshness.feed
    state = f"{freshness.offset},{feed.connected},{feed.gaps}" if feed else f"{freshness.offset}"
    if freshness.stale is True:
        state += ",stale"
    # the freshness comes last and holds no text of others, so its last occurrence is the field itself
    return body, body[: body.rfind(_FRESHNESS)] + state.encode()


def encode_items(items: Sequence[Any]) -> tuple[bytes, bytes]:
    """A JSON array of readings, strings and errors in their order, and what its ETag stands for."""
    bodies: list[bytes] = []
    tags: list[bytes] = []
    for item in items:
        body, tag = encode_reading(item) if isinstance(item, Reading) else (dumps(item),) * 2
        bodies.append(body)
        tags.append(tag)
    return b"[" + b",".join(bodies) + b"]", b"\n".join(tags)


def encode_page(page: Page, **head: object) -> tuple[bytes, bytes]:
    """A page: the fields of `head`, then `items`, `cursor` (null on the last page) and `missing_partitions`."""
    items, tag = encode_items(page.items)
    start = dumps(head)[:-1] + (b"," if head else b"")
    end = dumps({"cursor": page.cursor, "missing_partitions": list(page.missing_partitions)})[1:]
    return start + b'"items":' + items + b"," + end, start + tag + end


def failed_item(table: str, key: str, error: QueryError) -> dict[str, Any]:
    """What stands in the place of a key without a value, among several."""
    return {"table": table, "key": key, "error": document(error)}


def describe_table(info: TableInfo, keys: int | None) -> dict[str, Any]:
    """What `GET /v1/tables` says of one table. `window` is null for a table without windows, `keys` if not known."""
    window = None
    if info.kind != "latest":
        window = {
            "size_ms": info.size_ms,
            "step_ms": info.step_ms,
            "gap_ms": info.gap_ms,
            "grace_ms": info.grace_ms,
            "retention_ms": info.retention_ms,
        }
    return {
        "name": info.name,
        "kind": info.kind,
        "description": info.description,
        "window": window,
        "fields": list(info.fields),
        "key_form": info.key_form,
        "partitions": info.partitions,
        "keys": keys,
    }


def weak_etag(tag: bytes) -> str:
    """A weak entity tag: equal tags mean the same values, not the same bytes."""
    return f'W/"{blake2b(tag, digest_size=12).hexdigest()}"'
