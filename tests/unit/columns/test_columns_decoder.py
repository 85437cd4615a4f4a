"""The native decoder is right where it is sure, and not sure of anything else."""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field

from streamapp.columns.decoder import NO_KEY, ColumnDecoder, Columns, decoder_for
from streamapp.columns.library import load
from streamapp.columns.schema import fields_of
from streamapp.errors import ConfigurationError
from streamapp.records.codec import codec_for
from streamapp.records.models import Trade
from tests.fakes.batches import CODECS, batch_of
from tests.fakes.kafka_records import Raw

pytestmark = pytest.mark.skipif(load("auto") is None, reason="the native library is not built: make native")


class Reading(BaseModel):
    model_config = ConfigDict(strict=True)
    device: Annotated[str, Field(min_length=2, max_length=4)]
    value: Annotated[float, Field(gt=0, le=100)]
    count: Annotated[int, Field(ge=-5)] = 0
    state: Literal["on", "off"] | None = None
    ok: bool | None = None


def decoder(model: type = Reading, *names: str, needs_key: bool = True) -> ColumnDecoder:
    fields = [field.name for field in fields_of(codec_for(model)) or ()]
    made = decoder_for("required", codec_for(model), list(names) or fields, needs_key=needs_key, max_value_bytes=10_000)
    assert made is not None
    return made


def decode(texts: list[bytes], model: type = Reading) -> Columns:
    found = decoder(model).decode([batch_of([Raw(offset, value=text) for offset, text in enumerate(texts)])])
    assert found is not None
    return found


def column(found: Columns, name: str) -> list[Any]:
    values = found.columns[name]
    return [
        None if empty else value if values.texts is None else values.texts[value]
        for value, empty in zip(values.values.tolist(), values.nulls, strict=True)
    ]


FULL = {"device": "ab", "value": 1.5, "count": 3, "state": "on", "ok": True}

SURE = [
    orjson.dumps(FULL),
    b' {\n"value" : 100 ,\t"device":"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", "count" : -5 } ',
    b'{"x":{"y":[1,{"z":null}],"w":"\xf0\x9f\x98\x80"},"ok":false,"count":0,"device":"abcd","value":5e-324,"state":null}',
]
UNSURE = [
    b'{"device":"a\\u0062","value":1,"count":1}',
    b'{"device":"ab","value":1}' + b" " * 10_000,
    b'{"device":"ab","value":1,"count":1234567890123456789}',
    b'{"device":"ab","value":1,"extra":' + b"[" * 40 + b"]" * 40 + b"}",
]
WRONG = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"device":"ab","value":1',
    b'{"device":"ab","value":1,}',
    b'{"device":"ab","value":1}x',
    b'{"device":"a","value":1}',
    b'{"device":"abcde","value":1}',
    b'{"device":"ab","value":0}',
    b'{"device":"ab","value":100.00000000000001}',
    b'{"device":"ab","value":"1"}',
    b'{"device":"ab","value":1e400}',
    b'{"device":"ab","value":01}',
    b'{"device":"ab","value":1.}',
    b'{"device":"ab","value":.5}',
    b'{"device":"ab","value":+5}',
    b'{"device":"ab","value":NaN}',
    b'{"device":"ab","value":null}',
    b'{"device":null,"value":1}',
    b'{"device":"ab","value":1,"count":-6}',
    b'{"device":"ab","value":1,"count":1.5}',
    b'{"device":"ab","value":1,"count":null}',
    b'{"device":"ab","value":1,"state":"ON"}',
    b'{"device":"ab","value":1,"state":""}',
    b'{"device":"ab","value":1,"ok":1}',
    b'{"device":"ab","value":1,"ok":tru}',
    b'{"device":"\xff\xff","value":1}',
    b'{"device":"a\x01","value":1}',
    b"{'device':'ab','value':1}",
    b'{"device":"ab" "value":1}',
    b'{"device":"ab","value":1,"more":[1,]}',
    b'{"device":"ab","value":1,"more":{"a":}}',
]


def test_what_it_is_sure_of_equals_the_codec() -> None:
    found = decode(SURE)
    records = codec_for(Reading).decode_all(SURE)
    assert list(found.unsure) == []
    for name in ("device", "value", "state", "ok"):
        assert column(found, name) == [getattr(record, name) for record in records]
    assert column(found, "count") == [3, -5, 0]


@pytest.mark.parametrize("text", UNSURE + WRONG, ids=lambda text: repr(text[:60]))
def test_it_is_not_sure_of_anything_odd(text: bytes) -> None:
    assert list(decode([SURE[0], text, SURE[0]]).unsure) == [1]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:60]))
def test_the_wrong_ones_are_wrong_for_the_codec_too(text: bytes) -> None:
    # else this list would not show what strictness has to mean
    assert type(codec_for(Reading).decode_all([text])[0]).__name__ == "RecordError"


def test_a_missing_field_with_a_default_is_left_to_the_codec() -> None:
    assert list(decode([b'{"device":"ab","value":1}']).unsure) == [0]


def test_a_missing_nullable_field_is_null() -> None:
    found = decode([b'{"device":"ab","value":1,"count":1}'])
    assert list(found.unsure) == []
    assert column(found, "state") == column(found, "ok") == [None]


@pytest.mark.parametrize("codec", CODECS)
def test_rows_carry_offset_time_key_and_value(codec: str) -> None:
    records = [
        Raw(offset, key=key, value=SURE[0], timestamp=1_000 + offset)
        for offset, key in ((7, b"b"), (9, b"a"), (10, b"b"), (14, "é".encode()))
    ]
    found = decoder().decode([batch_of(records[:2], codec=codec), batch_of(records[2:], codec=codec)])
    assert found is not None
    assert found.offsets.tolist() == [7, 9, 10, 14]
    assert found.timestamps.tolist() == [1_007, 1_009, 1_010, 1_014]
    assert [found.key_texts[number] for number in found.keys] == ["b", "a", "b", "é"]
    assert len(found.key_texts) == 3
    assert [found.value(row) for row in range(4)] == [SURE[0]] * 4


def test_records_below_the_wanted_offset_are_passed_over() -> None:
    batch = batch_of([Raw(offset, value=SURE[0]) for offset in range(5, 10)], min_offset=8)
    found = decoder().decode([batch])
    assert found is not None
    assert found.offsets.tolist() == [8, 9] == [record.offset for record in batch.records()]


def test_a_record_without_a_readable_key_is_unsure_only_where_keys_matter() -> None:
    records = [Raw(0, key=None, value=SURE[0]), Raw(1, key=b"\xff", value=SURE[0]), Raw(2, key=b"k", value=None)]
    strict, loose = decoder().decode([batch_of(records)]), decoder(needs_key=False).decode([batch_of(records)])
    assert strict is not None
    assert loose is not None
    assert list(strict.unsure) == [0, 1, 2]
    assert list(loose.unsure) == [2]
    assert loose.keys.tolist()[:2] == [NO_KEY, NO_KEY]
    assert strict.value(2) is None


def test_a_batch_that_is_not_well_formed_gives_nothing() -> None:
    whole = batch_of([Raw(offset, value=SURE[0]) for offset in range(3)])
    payload = whole.payload()
    for cut in (payload[:-1], payload + b"\0", b"\xff" * 12, payload[1:]):
        whole._payload = cut
        assert decoder().decode([whole]) is None


def test_headers_do_not_matter_here() -> None:
    records = [Raw(0, value=SURE[0], headers=(("a", b"1"), ("b", b""))), Raw(1, value=SURE[0])]
    found = decoder().decode([batch_of(records)])
    assert found is not None
    assert found.offsets.tolist() == [0, 1]


def test_texts_are_numbered_anew_for_every_chunk() -> None:
    made = decoder()
    for texts in (["aa", "bb", "aa"], ["bb", "cc", "bb"]):
        found = made.decode(
            [batch_of([Raw(n, value=orjson.dumps({**FULL, "device": text})) for n, text in enumerate(texts)])]
        )
        assert found is not None
        assert column(found, "device") == texts
        assert len(found.columns["device"].texts or ()) == 2


def test_many_keys_get_numbers_of_their_own() -> None:
    records = [Raw(n, key=f"key-{n % 7_000}".encode(), value=SURE[0]) for n in range(20_000)]
    found = decoder().decode([batch_of(records)])
    assert found is not None
    assert len(found.key_texts) == 7_000
    assert [found.key_texts[number] for number in found.keys.tolist()] == [f"key-{n % 7_000}" for n in range(20_000)]


def test_only_wanted_fields_become_columns_and_all_are_checked() -> None:
    made = decoder(Reading, "value")
    texts = [SURE[0], b'{"device":"toolong","value":1,"count":1}']
    found = made.decode([batch_of([Raw(n, value=text) for n, text in enumerate(texts)])])
    assert found is not None
    assert list(found.columns) == ["value"]
    assert list(found.unsure) == [1]


def test_a_lax_model_is_decoded_where_the_strict_reading_holds() -> None:
    class Lax(BaseModel):
        value: float
        name: str | None = None

    found = decode([b'{"value": 2}', b'{"value": "2"}'], Lax)
    assert list(found.unsure) == [1]
    assert found.columns["value"].values[0] == 2.0


def test_types_that_it_does_not_know_are_left_to_the_codec() -> None:
    class Nested(msgspec.Struct):
        inner: list[int]

    class Renamed(msgspec.Struct, rename="camel"):
        some_name: int

    class Tagged(msgspec.Struct, tag="t"):
        a: int

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        a: int

    class Either(msgspec.Struct):
        a: int | str

    class Hooked(msgspec.Struct):
        a: int

        def __post_init__(self) -> None:
            self.a += 1

    class Stripped(BaseModel):
        model_config = ConfigDict(str_strip_whitespace=True)
        a: str

    class Finished(BaseModel):
        a: int

        def model_post_init(self, context: Any) -> None: ...

    for model in (Nested, Renamed, Tagged, Strict, Either, Hooked, Stripped, Finished, dict, None):
        assert fields_of(codec_for(model)) is None, model


def test_the_models_of_the_built_in_topics_are_known() -> None:
    assert [field.name for field in fields_of(codec_for(Trade)) or ()] == list(Trade.model_fields)


def test_required_without_the_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("streamapp.columns.library._PATH", tmp_path / "absent.so")
    load.cache_clear()
    try:
        assert load("auto") is None
        with pytest.raises(ConfigurationError, match="make native"):
            load("required")
    finally:
        load.cache_clear()


def test_a_library_that_decodes_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamapp.columns import decoder as module

    module._tried.cache_clear()
    monkeypatch.setattr(module, "_TRIAL", (*module._TRIAL[:-1], (b"", True)))
    try:
        with pytest.raises(ConfigurationError, match="STREAMAPP_NATIVE=off"):
            decoder()
    finally:
        module._tried.cache_clear()


def test_integers_and_floats_are_exact() -> None:
    values = [0.1, 1e-7, 123456.789012, 9007199254740993.0, 1.7976931348623157e308, 2.2250738585072014e-308]

    class Number(msgspec.Struct):
        x: float
        n: int

    texts = [orjson.dumps({"x": value, "n": number}) for number, value in enumerate(values)]
    found = decode([*texts, b'{"x":3,"n":-999999999999999999}'], Number)
    assert list(found.unsure) == []
    assert found.columns["x"].values.tolist() == [*values, 3.0]
    assert found.columns["n"].values.dtype == np.int64
    assert found.columns["n"].values.tolist() == [*range(len(values)), -999_999_999_999_999_999]
