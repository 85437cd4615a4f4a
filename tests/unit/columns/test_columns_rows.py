"""Rows made of columns are, in the fields that they hold, the records."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from streamapp.columns.decoder import decoder_for
from streamapp.columns.library import load
from streamapp.columns.rows import row_type, rows
from streamapp.records.codec import codec_for
from tests.fakes.batches import batch_of
from tests.fakes.kafka_records import Raw


class Reading(BaseModel):
    model_config = ConfigDict(strict=True)
    device: str
    value: float
    count: int | None = None
    note: str | None = None
    state: Literal["on", "off"] = "on"
    ok: bool | None = None


class Loose(BaseModel):
    value: float


class Own(msgspec.Struct):
    value: float


@dataclass
class Plain:
    value: float


TEXTS = [
    orjson.dumps(content)
    for content in (
        {"device": "a", "value": 1, "count": 3, "note": "x", "state": "off", "ok": True},
        {"device": "b", "value": -0.5, "count": None, "note": None, "state": "on"},
        {"device": "a", "value": 1e300, "note": "\u00e9", "state": "on", "ok": False},
    )
]
FIELDS = list(Reading.model_fields)


def made(names: list[str], places: list[int]) -> list[Any]:
    codec = codec_for(Reading)
    decoder = decoder_for("required", codec, FIELDS, needs_key=True, max_value_bytes=10_000)
    assert decoder is not None
    found = decoder.decode([batch_of([Raw(offset, value=text) for offset, text in enumerate(TEXTS)])])
    assert found is not None
    whole = codec.decode_all(TEXTS).__getitem__
    got = rows(codec, found.columns, whole, names, np.array(places))
    assert got is not None
    return got


needs_native = pytest.mark.skipif(load("auto") is None, reason="the native library is not built: make native")


@needs_native
@pytest.mark.parametrize("names", [["value"], ["note", "device"], ["state", "ok", "count"], FIELDS], ids=repr)
def test_a_row_answers_for_every_field_as_the_record_does(names: list[str]):
    places = [2, 0, 1, 0]
    records = codec_for(Reading).decode_all(TEXTS)
    for row, place in zip(made(names, places), places, strict=True):
        for name in FIELDS:
            got, expected = getattr(row, name), getattr(records[place], name)
            assert (type(got), got) == (type(expected), expected)
        with pytest.raises(AttributeError):
            _ = row.nothing


@needs_native
def test_a_row_is_not_written_down_in_the_place_of_its_record():
    with pytest.raises(TypeError):
        msgspec.msgpack.encode(made(["value"], [0])[0])


@pytest.mark.parametrize("model", [Loose, Own, Plain, dict, bytes])
def test_records_of_the_users_own_type_are_never_replaced(model: type):
    assert row_type(codec_for(model), ("value",)) is None


@pytest.mark.parametrize("names", [("value", "value"), ("value", "nothing"), ("model_dump",)])
def test_there_are_no_rows_of_what_is_no_field(names: tuple[str, ...]):
    assert row_type(codec_for(Reading), names) is None
