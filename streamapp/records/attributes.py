"""Which attributes records of a declared model have: a name that none of them has is found before the first one comes."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel


def fields_of(model: type[Any] | None) -> Sequence[str] | None:
    """The model's fields, in order; None where any others may come with a record, or nobody can tell."""
    if not isinstance(model, type):
        return None
    if issubclass(model, BaseModel):
        return None if model.model_config.get("extra") == "allow" else tuple(model.model_fields)
    if issubclass(model, msgspec.Struct):
        return model.__struct_fields__
    return tuple(field.name for field in dataclasses.fields(model)) if dataclasses.is_dataclass(model) else None


def missing(model: type[Any] | None, names: Iterable[str]) -> list[str]:
    """Those of the names that no record of the model has, neither as a field nor as a property."""
    fields = fields_of(model)
    return [] if fields is None else [name for name in names if name not in fields and not hasattr(model, name)]
