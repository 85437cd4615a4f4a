"""The JSON Schemas of what the routes answer, generated from the tables as they are declared."""

import re
from collections.abc import Sequence
from typing import Any

from streamapp.queries.model import FieldInfo, TableInfo
from streamapp.views.problems import TITLES

Schema = dict[str, Any]

EPOCH_MS: Schema = {"type": "integer", "description": "milliseconds since the Unix epoch, UTC"}
TEXT: Schema = {"type": "string"}
_CONFLATED: Schema = {
    "type": "integer",
    "minimum": 1,
    "description": "in event streams only: how many earlier changes this one stands for, where there are any",
}
_RESUMED: Schema = {
    "enum": ["unknown_id", "too_old", "too_many"],
    "description": "in snapshots to a client that sent `Last-Event-ID`: why it is not told only what has changed since",
}


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"oneOf": [schema, {"type": "null"}]}


def closed(properties: dict[str, Schema], optional: Sequence[str] = (), description: str = "") -> Schema:
    """An object with exactly these fields, all of them required but the optional ones."""
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def array_of(items: Schema) -> Schema:
    """An array of any length."""
    return {"type": "array", "items": items}


def page_of(items: Schema, **head: Schema) -> Schema:
    """A page with some fields before its items."""
    return closed(
        {
            **head,
            "items": array_of(items),
            "cursor": {"type": ["string", "null"], "description": "for the next page; opaque; null on the last one"},
            "missing_partitions": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "partitions that no worker answered for",
            },
        }
    )


def component_name(table: str) -> str:
    """A table's name as the name of a component may be spelled."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", table)


def _field(info: FieldInfo) -> Schema:
    schema: Schema = {"type": [info.type, "null"] if info.nullable else info.type}
    words = [word for word in (info.description, f"unit: {info.unit}" if info.unit else "") if word]
    return {**schema, "description": "; ".join(words)} if words else schema


def _reading(info: TableInfo) -> Schema:
    value = closed({field.name: _field(field) for field in info.fields}, description=info.description)
    return closed(
        {
            "table": {"type": "string", "const": info.name},
            "key": {"type": "string", "description": info.key_form},
            "window": {"type": "null"} if info.kind == "latest" else ref("Window"),
            "value": value,
            "freshness": ref("Freshness"),
            "conflated": _CONFLATED,
            "resumed": _RESUMED,
        },
        optional=("conflated", "resumed"),
    )


def reading_schemas(tables: Sequence[TableInfo]) -> dict[str, Schema]:
    """`Reading`, which is one of a schema per table."""
    schemas = {f"Reading.{component_name(info.name)}": _reading(info) for info in tables}
    if schemas:
        schemas["Reading"] = {
            "oneOf": [ref(name) for name in schemas],
            "discriminator": {
                "propertyName": "table",
                "mapping": {info.name: f"#/components/schemas/Reading.{component_name(info.name)}" for info in tables},
            },
        }
    else:
        schemas["Reading"] = closed(
            {
                "table": TEXT,
                "key": TEXT,
                "window": or_null(ref("Window")),
                "value": {"type": "object"},
                "freshness": ref("Freshness"),
                "conflated": _CONFLATED,
                "resumed": _RESUMED,
            },
            optional=("conflated", "resumed"),
        )
    return schemas


def fixed_schemas() -> dict[str, Schema]:
    """The schemas that do not depend on the tables."""
    integer: Schema = {"type": "integer"}
    count: Schema = {"type": "integer", "minimum": 0}
    milliseconds = or_null(integer)
    counts: Schema = {"type": "object", "additionalProperties": count}
    return {
        "Window": closed(
            {
                "start": {**EPOCH_MS, "description": "inclusive; milliseconds of event time"},
                "end": {**EPOCH_MS, "description": "exclusive; milliseconds of event time"},
                "final": {"type": "boolean", "description": "false while the window may still change"},
            }
        ),
        "Freshness": closed(
            {
                "as_of": {**EPOCH_MS, "description": "when the answer was read"},
                "watermark": {**or_null(integer), "description": "event time up to which the partition is complete"},
                "partition": count,
                "offset": {**or_null(integer), "description": "of the newest source record in the value's partition"},
                "lag": {**or_null(count), "description": "records of the partition not yet applied"},
                "restoring": {"type": "boolean"},
                "age_ms": {**or_null(integer), "description": "as_of minus the newest event's own time"},
                "staleness_ms": {**count, "description": "how far the view may be behind the world"},
                "feed": or_null(closed({"connected": {"type": "boolean"}, "gaps": count})),
                "stale": {"const": True, "description": "answered from a copy, as the owner is gone; else left out"},
            },
            optional=("stale",),
        ),
        "Field": closed(
            {
                "name": TEXT,
                "type": {"enum": ["number", "integer", "string", "boolean", "object", "array"]},
                "unit": or_null(TEXT),
                "nullable": {"type": "boolean"},
                "description": TEXT,
            }
        ),
        "Table": closed(
            {
                "name": TEXT,
                "kind": {"enum": ["tumbling", "hopping", "session", "latest"]},
                "description": TEXT,
                "window": or_null(
                    closed({f"{name}_ms": milliseconds for name in ("size", "step", "gap", "grace", "retention")})
                ),
                "fields": array_of(ref("Field")),
                "key_form": TEXT,
                "partitions": count,
                "keys": {
                    **or_null(count),
                    "description": "keys, of all partitions; null while some cannot be counted, or if only some may be read",
                },
            }
        ),
        "Problem": closed(
            {
                "type": TEXT,
                "title": TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": TEXT,
                "code": {"enum": sorted(TITLES), "description": "stable; what programs should look at"},
                "parameter": {**TEXT, "description": "the parameter that cannot be used"},
                "nearest": {**array_of(TEXT), "description": "existing keys that look alike"},
                "staleness_ms": count,
                "retry_after_s": integer,
            },
            optional=("parameter", "nearest", "staleness_ms", "retry_after_s"),
            description="RFC 9457",
        ),
        "FailedItem": closed({"table": TEXT, "key": TEXT, "error": ref("Problem")}),
        "Status": closed(
            {
                "as_of": EPOCH_MS,
                "worker": closed(
                    {
                        "ready": {"type": "boolean"},
                        "restoring": array_of(TEXT),
                        "assigned": {"type": "object", "additionalProperties": array_of(count)},
                        "lag": counts,
                        "records_applied": count,
                        "records_per_s": {"type": ["number", "null"]},
                        "detail": TEXT,
                        "hot_keys": {
                            **array_of(
                                closed(
                                    {
                                        "topic": TEXT,
                                        "partition": count,
                                        "key": TEXT,
                                        "share": {"type": "number", "minimum": 0, "maximum": 1},
                                    }
                                )
                            ),
                            "description": "keys that take much of their partition's records, by a sample",
                        },
                    }
                ),
                "feeds": array_of(
                    closed(
                        {
                            "venue": TEXT,
                            "connected": {"type": "boolean"},
                            "state": TEXT,
                            "detail": TEXT,
                            "last_heartbeat": or_null(EPOCH_MS),
                            "gaps": count,
                            "symbols": {**counts, "description": "gaps per symbol"},
                        }
                    )
                ),
            }
        ),
    }
