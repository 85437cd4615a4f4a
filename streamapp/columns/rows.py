"""Records made of columns, for code that reads a few of their fields."""

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgspec

from streamapp.columns.schema import fields_of
from streamapp.columns.values import Values
from streamapp.records.codec import Codec, StructCodec

if TYPE_CHECKING:
    from streamapp.columns.values import Array

RowType = Callable[..., Any]


@functools.cache
def row_type(codec: Codec, names: tuple[str, ...]) -> RowType | None:
    """The type of rows that hold these fields of a codec's records; None where only the record itself will do.

    That is so where the record is an object of the user's own type, or where these are not all fields of it. A row answers
    for the record's other fields by decoding it.
    """
    fields = fields_of(codec)
    if not isinstance(codec, StructCodec) or codec.struct is codec.model or fields is None:
        return None
    others = {field.name: _of_whole(field.name) for field in fields if field.name not in names}
    if len(others) + len(set(names)) != len(fields) or len(set(names)) != len(names) or {_PLACE, _WHOLE} & set(others):
        return None
    # a function cannot be encoded, and so a row cannot be taken for the record that it is a part of
    return msgspec.defstruct(f"{codec.struct.__name__}Row", [*names, _WHOLE, _PLACE], namespace=others, gc=False)


_WHOLE, _PLACE = "whole_", "place_"


def _of_whole(name: str) -> property:
    return property(lambda row: getattr(row.whole_(row.place_), name))


def rows(
    codec: Codec,
    columns: Mapping[str, Values],
    whole: Callable[[int], Any],
    names: Sequence[str],
    places: "Array",
) -> list[Any] | None:
    """Rows of these fields, at these places of the columns and in this order; None where they cannot be had.

    Args:
        codec: of the records.
        columns: by field.
        whole: the record at a place.
        names: of the fields.
        places: int64.
    """
    kind = row_type(codec, tuple(names))
    if kind is None or not set(names) <= columns.keys():
        return None
    values = [columns[name].at(places) for name in names]
    return list(map(kind, *values, repeat(whole), places.tolist()))
