"""How plain Faust agents see the records of typed topics: the declared model, validated, with text keys."""

from typing import TYPE_CHECKING, Any

import msgspec
from faust import Schema
from faust.exceptions import KeyDecodeError, ValueDecodeError
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

_encode = msgspec.json.Encoder().encode


def is_model(value_type: Any) -> bool:
    """Whether this module handles the type; Faust's own records and raw values go Faust's way."""
    return isinstance(value_type, type) and issubclass(value_type, (BaseModel, msgspec.Struct))


class ModelSchema(Schema):  # type: ignore[misc]
    """A Faust schema over pydantic models and msgspec structs."""

    def __init__(self, model: type[Any]) -> None:
        super().__init__(key_serializer="raw", value_serializer="raw")
        self.value_type = model
        self._loads: Callable[[bytes], Any]
        if issubclass(model, BaseModel):
            self._loads = model.__pydantic_validator__.validate_json
        else:
            self._loads = msgspec.json.Decoder(model).decode

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The key as text."""
        if message.key is None:
            return None
        try:
            return message.key.decode()
        except UnicodeDecodeError as problem:
            raise KeyDecodeError(f"expected UTF-8, got {message.key[:64]!r}") from problem

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The value as the declared model."""
        try:
            return self._loads(message.value)
        except (ValidationError, msgspec.DecodeError, TypeError, ValueError) as problem:
            raise ValueDecodeError(str(problem)) from problem

    def dumps_key(self, app: Any, key: Any, *, serializer: Any = None, headers: Any) -> Any:
        """Text keys as UTF-8."""
        return (key.encode() if isinstance(key, str) else key), headers

    def dumps_value(self, app: Any, value: Any, *, serializer: Any = None, headers: Any) -> Any:
        """Models as JSON."""
        if isinstance(value, BaseModel):
            return value.model_dump_json().encode(), headers
        if value is None or isinstance(value, bytes):
            return value, headers
        return _encode(value), headers
