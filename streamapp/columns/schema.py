"""What the native decoder is told of a record type, and for which types it can be.

The decoder has to be as strict as the codec, so it is told of all fields, also of those that nobody wants as a column. A
type with anything that it does not know (patterns, nested types, unions, its own hooks) goes through the codec alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec.inspect
from msgspec.inspect import (
    BoolType,
    DataclassType,
    FloatType,
    IntType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    UnionType,
)

from streamapp.records.codec import Codec, PydanticCodec, StructCodec

FieldKind = Literal["f", "i", "t", "b", "c"]
_INT64_MAX = (1 << 63) - 1
_FIELDS_MAX = 64
_CHARS_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class FieldSchema:
    """One field: `f` float, `i` integer, `t` text, `b` boolean, `c` one of `choices`.

    Attributes:
        bounds: the further words of its line, by kind; see native/src/schema.rs.
        optional: a record without it is as one that holds null.
    """

    name: str
    kind: FieldKind
    nullable: bool
    optional: bool
    bounds: Sequence[str] = ()
    choices: Sequence[str] = ()


def fields_of(codec: Codec) -> Sequence[FieldSchema] | None:
    """The fields of a codec's records; None where only the codec itself can decode them."""
    if not isinstance(codec, StructCodec | PydanticCodec) or codec.struct is None:
        return None
    try:
        described = msgspec.inspect.type_info(codec.struct)
    except TypeError:
        return None
    if not isinstance(described, StructType | DataclassType) or hasattr(described.cls, "__post_init__"):
        return None
    if isinstance(described, StructType) and (
        described.tag_field is not None or described.array_like or described.forbid_unknown_fields
    ):
        return None
    found = []
    for field in described.fields:
        schema = _field(field)
        if schema is None:
            return None
        found.append(schema)
    # producers mostly write the fields as the model declares them, and the decoder is quickest then
    declared = list(getattr(codec.model, "model_fields", ()))
    found.sort(key=lambda field: declared.index(field.name) if field.name in declared else 0)
    return found if 0 < len(found) <= _FIELDS_MAX else None


def _field(field: msgspec.inspect.Field) -> FieldSchema | None:
    kind, nullable = field.type, False
    if isinstance(kind, UnionType):
        parts = [part for part in kind.types if not isinstance(part, NoneType)]
        nullable = len(parts) < len(kind.types)
        if len(parts) != 1:
            return None
        kind = parts[0]
    if field.encode_name != field.name:
        return None
    optional = not field.required and field.default is None
    if not field.required and not (optional and nullable):
        optional = False  # another default: a record without the field is left to the codec
    if isinstance(kind, FloatType) and kind.multiple_of is None:
        low = _bound(kind.gt, kind.ge, "-inf")
        high = _bound(kind.lt, kind.le, "inf")
        return FieldSchema(field.name, "f", nullable, optional, (*low, *high))
    if isinstance(kind, IntType) and kind.multiple_of is None:
        low = _bound(kind.gt, kind.ge, str(-_INT64_MAX))
        high = _bound(kind.lt, kind.le, str(_INT64_MAX))
        limits = (kind.gt, kind.ge, kind.lt, kind.le)
        if not all(limit is None or (type(limit) is int and abs(limit) <= _INT64_MAX) for limit in limits):
            return None
        return FieldSchema(field.name, "i", nullable, optional, (*low, *high))
    if isinstance(kind, StrType) and kind.pattern is None:
        least, most = kind.min_length or 0, kind.max_length if kind.max_length is not None else _CHARS_MAX
        return FieldSchema(field.name, "t", nullable, optional, (str(least), str(most)))
    if isinstance(kind, BoolType):
        return FieldSchema(field.name, "b", nullable, optional)
    if isinstance(kind, LiteralType) and all(isinstance(value, str) and value for value in kind.values):
        choices = tuple(str(value) for value in kind.values)
        return FieldSchema(field.name, "c", nullable, optional, [_hex(choice) for choice in choices], choices)
    return None


def _bound(strict: float | None, loose: float | None, otherwise: str) -> tuple[str, str]:
    if strict is not None:
        return repr(strict), "1"
    return (repr(loose) if loose is not None else otherwise), "0"


def describe(fields: Sequence[FieldSchema], wanted: Sequence[str], needs_key: bool) -> bytes:
    """The text that the native decoder reads: all fields, and which of them becomes which column."""
    lines = [f"{len(wanted)} {int(needs_key)}"]
    for field in fields:
        column = wanted.index(field.name) if field.name in wanted else -1
        words = [_hex(field.name), field.kind, str(int(field.nullable)), str(int(field.optional)), str(column)]
        lines.append(" ".join([*words, *field.bounds]))
    return "\n".join(lines).encode()


def _hex(text: str) -> str:
    return text.encode().hex()
