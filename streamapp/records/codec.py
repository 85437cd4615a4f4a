"""Fast decoding of the declared models.

A schema is declared once, as a pydantic model. Where its fields are plain (numbers, strings, literals, with bounds), the
same schema is derived as a msgspec struct, which decodes and validates about six times faster; a model with validators
of its own, or with nested types, is decoded by pydantic itself. Both are strict: `"5"` is not a number.
"""

import functools
import re
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias, Union, get_args, get_origin

import annotated_types
import msgspec
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from streamapp.errors import ConfigurationError, RecordError, without_frames

_PLAIN = (int, float, str, bool)
_INTEGER_MAX = (1 << 63) - 1
#: an integer beyond 64 bits has more digits than this; so have others, which are then looked at
_many_digits = re.compile(rb"\d{19}").search
_pack = msgspec.msgpack.Encoder().encode
RecordType: TypeAlias = type[Any]


class Codec(Protocol):
    """Turns bytes into objects with the model's attributes, and back."""

    model: RecordType | None

    def decode(self, raw: bytes) -> Any:
        """One record; RecordError with reason `undecodable` or `wrong_schema`."""
        ...

    def decode_all(self, raws: Sequence[bytes]) -> list[Any]:
        """Records in order; a RecordError stands in the place of one that cannot be decoded."""
        ...

    def __hash__(self) -> int:
        """Each codec is equal to itself alone, so that what was made for it can be found by it."""
        ...


@functools.cache
def codec_for(model: RecordType | None) -> Codec:
    """The fastest codec for a declared type; the same one for the same type, so that tables can share a decoding.

    Args:
        model: a pydantic model, a msgspec struct, a dataclass, `dict` for any JSON object, `bytes` or None for raw values.

    Raises:
        ConfigurationError: the type is none of these.
    """
    if model is None or model is bytes:
        return RawCodec()
    if isinstance(model, type) and issubclass(model, BaseModel):
        struct = _derive_struct(model)
        if struct is not None and model.model_config.get("strict") is True:
            return StructCodec(model, struct)
        return PydanticCodec(model, struct)
    if isinstance(model, type) and (
        issubclass(model, (msgspec.Struct, dict)) or hasattr(model, "__dataclass_fields__") or model in _PLAIN
    ):
        return StructCodec(model, model)
    raise ConfigurationError(
        f"value_type {model!r} cannot be decoded: expected a pydantic model, a msgspec struct, a dataclass, dict or bytes"
    )


class RawCodec:
    """Leaves the bytes as they are."""

    model: RecordType | None = None

    def decode(self, raw: bytes) -> bytes:
        """The bytes themselves."""
        return raw

    def decode_all(self, raws: Sequence[bytes]) -> list[Any]:
        """The bytes themselves, in order."""
        return list(raws)


class StructCodec:
    """Decodes with msgspec, as the type `struct`."""

    def __init__(self, model: RecordType, struct: RecordType) -> None:
        self.model: RecordType | None = model
        self.struct = struct
        self._bounded = struct is not model  # what is derived bounds its integers itself
        self._decode = msgspec.json.Decoder(struct).decode

    def decode(self, raw: bytes) -> Any:
        """One record; RecordError where it does not fit."""
        try:
            record = self._decode(raw)
        except msgspec.ValidationError as problem:
            raise RecordError("wrong_schema", str(problem)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise RecordError("undecodable", str(problem)) from None
        if not self._bounded and _many_digits(raw):
            _check_integers(record)
        return record

    def decode_all(self, raws: Sequence[bytes]) -> list[Any]:
        """Records in order, RecordError in the place of a bad one."""
        decode = self._decode
        try:
            records = [decode(raw) for raw in raws]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _one_by_one(self, raws)
        return records if self._bounded or not any(map(_many_digits, raws)) else _one_by_one(self, raws)


class PydanticCodec:
    """Decodes with pydantic, for models that need more than plain fields, or that are not strict.

    Attributes:
        struct: a struct whose every record the model takes with the same values, though it may take others as well (`"5"`
            for 5); None where there is none.
    """

    def __init__(self, model: type[BaseModel], struct: RecordType | None = None) -> None:
        self.model: RecordType | None = model
        self.struct = struct
        self._decode = model.__pydantic_validator__.validate_json

    def decode(self, raw: bytes) -> Any:
        """One record; RecordError where it does not fit."""
        try:
            record = self._decode(raw)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
            reason = "undecodable" if first["type"] == "json_invalid" else "wrong_schema"
            where = ".".join(str(part) for part in first["loc"])
            raise RecordError(reason, f"{first['msg']} - at `$.{where}`") from None
        if _many_digits(raw):
            _check_integers(record.model_dump(mode="json"))
        return record

    def decode_all(self, raws: Sequence[bytes]) -> list[Any]:
        """Records in order, RecordError in the place of a bad one."""
        return _one_by_one(self, raws)


def _check_integers(record: Any) -> None:
    """A larger integer could be merged, and then neither be written to the changelog nor sent: the worker would stop."""
    try:
        _pack(record)
    except OverflowError:
        raise RecordError("wrong_schema", "expected integers of at most 64 bits") from None


def _one_by_one(codec: Codec, raws: Sequence[bytes]) -> list[Any]:
    records: list[Any] = []
    for raw in raws:
        try:
            records.append(codec.decode(raw))
        except RecordError as problem:
            records.append(without_frames(problem))
    return records


def _derive_struct(model: type[BaseModel]) -> RecordType | None:
    """The same schema, read strictly, as a msgspec struct; None where pydantic has to do it."""
    decorators = model.__pydantic_decorators__
    if (
        decorators.field_validators
        or decorators.model_validators
        or decorators.validators
        or decorators.root_validators
    ):
        return None
    config = model.model_config
    if config.get("extra") not in (None, "ignore") or any(name.startswith("str_") for name in config):
        return None
    if model.__pydantic_post_init__ is not None:
        return None
    required: list[Any] = []
    optional: list[Any] = []
    for name, field in model.model_fields.items():
        kind = _plain_type(field)
        if kind is None or field.alias is not None or field.default_factory is not None:
            return None
        if field.is_required():
            required.append((name, kind))
        else:
            optional.append((name, kind, field.default))
    return msgspec.defstruct(model.__name__, required + optional, gc=False)


def _plain_type(field: FieldInfo) -> Any:
    annotation, metadata = field.annotation, list(field.metadata)
    parts = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = list(get_args(annotation))
    kinds: list[Any] = []
    for part in parts:
        bounds = list(metadata)
        if get_origin(part) is Annotated:
            part, *extra = get_args(part)
            bounds += [inner for one in extra for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]
        if part is type(None):
            kinds.append(None)
        elif get_origin(part) is Literal:
            kinds.append(part)
        elif part in _PLAIN:
            constraints = _constraints(bounds)
            if constraints is None:
                return None
            if part is int:
                # a larger number can neither be a column nor be written to the changelog
                for bound, limit in (("ge", -_INTEGER_MAX), ("le", _INTEGER_MAX)):
                    given = constraints.get(bound, constraints.get({"ge": "gt", "le": "lt"}[bound], limit))
                    if abs(given) >= _INTEGER_MAX:
                        constraints.pop({"ge": "gt", "le": "lt"}[bound], None)
                        constraints[bound] = limit
            kinds.append(Annotated[part, msgspec.Meta(**constraints)] if constraints else part)
        else:
            return None
    return kinds[0] if len(kinds) == 1 else typing.Union[tuple(kinds)]  # noqa: UP007 - built at run time


def _constraints(bounds: Sequence[Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for bound in bounds:
        if isinstance(bound, annotated_types.Gt):
            found["gt"] = bound.gt
        elif isinstance(bound, annotated_types.Ge):
            found["ge"] = bound.ge
        elif isinstance(bound, annotated_types.Lt):
            found["lt"] = bound.lt
        elif isinstance(bound, annotated_types.Le):
            found["le"] = bound.le
        elif isinstance(bound, annotated_types.MinLen):
            found["min_length"] = bound.min_length
        elif isinstance(bound, annotated_types.MaxLen):
            found["max_length"] = bound.max_length
        elif getattr(bound, "allow_inf_nan", None) is False or getattr(bound, "strict", None) is True:
            continue  # JSON as msgspec reads it has neither, and it is strict
        else:
            return None
    return found


def plain(record: Any) -> Any:
    """A decoded record as what JSON can hold: mappings, sequences, numbers, text."""
    if isinstance(record, BaseModel):
        return record.model_dump(mode="json")
    return msgspec.to_builtins(record)
