"""How plain Faust agents see the records of typed topics: the declared model, validated, with text keys."""

from typing import Any

import msgspec
from faust import Schema
from faust.exceptions import KeyDecodeError, ValueDecodeError
from pydantic import BaseModel

from streamapp.errors import RecordError
from streamapp.records.codec import Codec, PydanticCodec, StructCodec

_encode = msgspec.json.Encoder().encode


def is_model(value_type: Any) -> bool:
    """Whether this module handles the type; Faust's own records and raw values go Faust's way."""
    return isinstance(value_type, type) and issubclass(value_type, (BaseModel, msgspec.Struct))


class ModelSchema(Schema):  # type: ignore[misc]
    """A Faust schema over pydantic models and msgspec structs."""

    def __init__(self, model: type[Any]) -> None:
        super().__init__(key_serializer="raw", value_serializer="raw")
        self.value_type = model
        # agents get the declared model itself, not the struct that tables decode with
        self._codec: Codec = PydanticCodec(model) if issubclass(model, BaseModel) else StructCodec(model, model)

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
            return self._codec.decode(message.value or b"")
        except RecordError as problem:
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
