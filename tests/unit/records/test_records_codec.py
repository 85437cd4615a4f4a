"""Codecs: what can be decoded can also be written down and sent."""

from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from streamapp.errors import RecordError
from streamapp.records.codec import Codec, codec_for


class Struct(msgspec.Struct):
    number: int
    text: str = ""


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    number: int
    text: str = ""


class Validated(BaseModel):
    number: int
    text: str = ""

    @field_validator("text")
    @classmethod
    def any_text(cls, value: str) -> str:
        return value


class Bounded(BaseModel):
    model_config = ConfigDict(strict=True)

    number: Annotated[int, Field(le=10**30)]
    text: str = ""


MODELS: list[Any] = [Struct, Strict, Validated, Bounded, dict]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", [10**19 * 2, -(2**63) - 1, 10**400])
def test_an_integer_that_nothing_can_hold_is_refused_with_its_record(model: Any, number: int):
    codec: Codec = codec_for(model)
    good, bad = b'{"number": 5}', b'{"number": %d}' % number
    with pytest.raises(RecordError):
        codec.decode(bad)
    decoded = codec.decode_all([good, bad, good])
    assert [isinstance(record, RecordError) for record in decoded] == [False, True, False]


@pytest.mark.parametrize("model", MODELS)
def test_many_digits_alone_are_no_fault(model: Any):
    codec: Codec = codec_for(model)
    for raw in (b'{"number": 5, "text": "12345678901234567890123"}', b'{"number": %d}' % (2**63 - 1)):
        codec.decode(raw)
        assert not any(isinstance(record, RecordError) for record in codec.decode_all([raw]))


def test_nested_integers_are_found():
    with pytest.raises(RecordError, match="64 bits"):
        codec_for(dict).decode(b'{"a": [{"b": 123456789012345678901234567890}]}')
    assert codec_for(dict).decode(b'{"a": 0.1234567890123456789012}') == {"a": 0.1234567890123456789012}
