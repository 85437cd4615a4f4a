"""Whatever the bytes: where the native decoder is sure, the codec says the same; and lanes come to the same by both ways."""

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from streamapp.clock import ManualClock
from streamapp.columns.decoder import decoder_for
from streamapp.columns.library import load
from streamapp.columns.schema import fields_of
from streamapp.engine.deadletters import DeadLetters
from streamapp.engine.lane import SourceLane
from streamapp.engine.tap import ByColumns, Decoded
from streamapp.errors import RecordError
from streamapp.metrics import Metrics
from streamapp.records.codec import codec_for
from streamapp.state.batch import DECODED
from tests.fakes.batches import batch_of
from tests.fakes.kafka_records import Raw

pytestmark = pytest.mark.skipif(load("auto") is None, reason="the native library is not built: make native")


class Event(BaseModel):
    model_config = ConfigDict(strict=True)
    event_time: int = Field(ge=0)
    price: float
    side: Literal["buy", "sell"] | None = None
    name: str = Field(default="", max_length=5)
    flag: bool | None = None
    sequence: int | None = None


class LaxEvent(BaseModel):
    event_time: float
    price: float
    name: str | None = None
    sequence: int | None = None


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["buy", "sell"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
plausible = st.fixed_dictionaries(
    {"event_time": st.integers(0, 2_000), "price": st.floats(allow_nan=False, allow_infinity=False)},
    optional={
        "side": st.sampled_from(["buy", "sell", None]),
        "name": st.text(max_size=6),
        "flag": st.sampled_from([True, False, None]),
        "sequence": st.none() | st.integers(-5, 1 << 60),
        "other": values,
    },
)
odd = st.dictionaries(st.sampled_from([*Event.model_fields, "other"]), values, max_size=7)
dumped = st.builds(
    lambda fields, ascii, separators: json.dumps(fields, ensure_ascii=ascii, separators=separators).encode(),
    st.one_of(plausible, plausible, odd),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:")]),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """JSON with some bytes replaced, dropped or put in."""
    text = bytearray(draw(dumped))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        text[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"}", b"{", b",", b"0", b"-", b".", b"e", b"\xff", b"\xc3", b" ", b"\x00", b"null"]
            )
        )
    return bytes(text)


texts = st.lists(st.one_of(dumped, damaged(), st.binary(max_size=12)), min_size=1, max_size=12)


def same(left: Any, right: Any) -> bool:
    return bool(left == right) and type(left) is type(right) and repr(left) == repr(right)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(texts, st.sampled_from([Event, LaxEvent]))
def test_what_the_decoder_is_sure_of_is_what_the_codec_says(found: list[bytes], model: type[BaseModel]) -> None:
    codec = codec_for(model)
    names = [field.name for field in fields_of(codec) or ()]
    decoder = decoder_for("required", codec, names, needs_key=True, max_value_bytes=1 << 20)
    assert decoder is not None
    columns = decoder.decode([batch_of([Raw(offset, value=text) for offset, text in enumerate(found)])])
    assert columns is not None
    unsure = set(columns.unsure)
    for row, (text, record) in enumerate(zip(found, codec.decode_all(found), strict=True)):
        if row in unsure:
            continue
        assert not isinstance(record, RecordError), text
        for name in names:
            column = columns.columns[name]
            value = None if column.nulls[row] else column.values[row].item()
            if value is not None and column.texts is not None:
                value = column.texts[value]
            assert same(value, getattr(record, name)), (text, name)


def test_plain_records_are_not_left_to_the_codec() -> None:
    codec = codec_for(Event)
    decoder = decoder_for("required", codec, ["price"], needs_key=True, max_value_bytes=1 << 20)
    assert decoder is not None
    plain = [
        json.dumps(
            {"event_time": n, "price": n / 7, "side": "buy", "name": "é", "flag": None, "sequence": n},
            ensure_ascii=False,
        )
        for n in range(1_000)
    ]
    columns = decoder.decode([batch_of([Raw(n, value=text.encode()) for n, text in enumerate(plain)])])
    assert columns is not None
    assert list(columns.unsure) == []


class Sink:
    needs_key = True

    def __init__(self, model: type, time_field: str | None, by_columns: bool) -> None:
        self.columns = ByColumns(("price",), 1) if by_columns else None
        self.codec = codec_for(model)
        self.time_field = time_field
        self.rows: list[tuple[Any, ...]] = []
        self.prepared = False

    async def accept(self, decoded: Decoded) -> list[tuple[int, RecordError]]:
        for row in range(len(decoded.offsets)):
            record = decoded.records[row]
            fields = [getattr(record, name) for name in self.codec.model.model_fields]  # type: ignore[union-attr]
            self.rows.append(
                (
                    decoded.offsets[row],
                    decoded.keys[row],
                    decoded.times[row],
                    decoded.sequences[row],
                    decoded.raw[row].offset,
                    repr(fields),
                )
            )
            for name in ("price", "sequence"):
                column = decoded.columns.get(DECODED, {}).get(name)
                if column is not None:
                    assert same(column.at([row])[0], getattr(record, name))
        return []

    def position(self) -> int | None:
        return None

    def prepare(self, decoded: Decoded) -> None:
        self.prepared = True


async def run(records: list[Raw], model: type, time_field: str | None, by_columns: bool) -> tuple[list[Any], list[Any]]:
    clock, metrics = ManualClock(1_000), Metrics()
    sink = Sink(model, time_field, by_columns)
    lane = SourceLane(
        "events",
        0,
        [sink],
        dead_letters=DeadLetters(metrics, clock, value_max_bytes=100),
        metrics=metrics,
        clock=clock,
        max_future_ms=500,
        max_record_bytes=200,
        queue_max_records=100,
        native="required",
    )
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    lane.start(lambda: None, failed.set_result)
    middle = len(records) // 2
    parts = [records[:-1][:middle], records[:-1][middle:], records[-1:]]
    lane.offer([batch_of(part) for part in parts if part])
    async with asyncio.timeout(20):
        while lane.applied < records[-1].offset and not failed.done():  # noqa: ASYNC110 - the lane announces nothing else
            await asyncio.sleep(0)
    assert not failed.done(), failed.result()
    await lane.stop()
    assert sink.prepared == by_columns
    return sorted(sink.rows), sorted(letter.value or b"" for letter in lane.rejected)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    texts,
    st.lists(st.sampled_from([b"a", b"b", "é".encode(), b"\xff", None, b""]), min_size=12, max_size=12),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([(Event, "event_time"), (LaxEvent, "event_time"), (Event, None)]),
)
def test_a_lane_comes_to_the_same_by_columns_and_by_records(
    found: list[bytes], keys: list[bytes | None], nulls: int, untimed: bool, kind: tuple[type, str | None]
) -> None:
    records = [
        Raw(3 * n, key=key, value=None if n < nulls else text, timestamp=1_000 + n)
        for n, (text, key) in enumerate(zip(found, keys, strict=False))
    ]

    if untimed:
        records[-1].timestamp = -1

    async def both() -> None:
        assert await run(records, *kind, by_columns=True) == await run(records, *kind, by_columns=False)

    asyncio.run(both())
