"""A table with a step that says what it reads comes to the same by columns as by records."""

import gc
import weakref
from typing import Any, Literal

import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from streamapp.columns.library import load
from streamapp.engine.columnar import column_group
from streamapp.engine.judging import Judge
from streamapp.engine.tables import LivePartition, RunningTable, TableTap
from streamapp.metrics import Metrics
from streamapp.records.codec import codec_for
from streamapp.state.definition import Source, TableDefinition
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.definitions import Tumbling
from streamapp.windows.fold import Fold
from streamapp.windows.sessions import Session
from tests.fakes.batches import batch_of
from tests.fakes.kafka_records import Raw


class Tick(BaseModel):
    model_config = ConfigDict(strict=True)
    price: float
    side: Literal["buy", "sell"] | None = None
    event_time: int
    note: str = ""


def step(state: list[Any], tick: Any) -> list[Any]:
    if tick.price == 13.0:
        raise ValueError("unlucky")
    return [*state, tick.price, tick.side][-12:]


def peeking(state: list[Any], tick: Any) -> list[Any]:
    """Reads what it has not named."""
    return [*state, tick.price, tick.note, tick.event_time][-12:]


def raws() -> list[Raw]:
    """Times that wander back behind windows that are closed; escapes, which the decoder leaves to the codec; bad ones."""
    found = []
    for offset in range(400):
        time = offset - (60 if offset % 17 == 0 else offset % 5)
        content = {"price": float(offset % 29), "side": [None, "buy", "sell"][offset % 3], "event_time": max(0, time)}
        content["note"] = '"' if offset % 11 == 0 else f"n{offset % 3}"
        value = b"{" if offset % 97 == 5 else orjson.dumps(content)
        found.append(Raw(offset, key=b"k%d" % (offset % 4), value=value, timestamp=1_000_000))
    return found


def table(fold: Fold, window: Any) -> RunningTable:
    source = Source("ticks", codec_for(Tick), time_field="event_time")
    return RunningTable(TableDefinition(name="t", sources=(source,), aggregate=fold, window=window), "app")


def tap(fold: Fold, window: Any = None) -> TableTap:
    store, running = MemoryStore(), table(fold, window)
    return TableTap(LivePartition(running, 0, store, PartitionState(running.definition, 0, store)), 0, Metrics())


async def merged(fold: Fold, window: Any) -> tuple[PartitionState, list[Any], list[Any]]:
    one = tap(fold, window)
    judge = Judge(max_future_ms=1 << 40, max_record_bytes=10_000)
    group = column_group([one], one.codec, one.time_field, needs_key=True, judge=judge, native="required")
    assert group is not None
    found = group.decode([batch_of(raws())])
    assert found is not None
    refused = await one.accept(found[0])
    assert one.live.state is not None
    return one.live.state, [(at, str(problem)) for at, problem in refused], [raw.offset for raw, _ in found[1]]


@pytest.mark.skipif(load("auto") is None, reason="the native library is not built: make native")
@pytest.mark.parametrize("window", [None, Tumbling(20, 10, 100_000)], ids=repr)
@pytest.mark.parametrize(("function", "reads"), [(step, ("price", "side")), (peeking, ("price",))])
async def test_a_step_that_names_what_it_reads_comes_to_the_same(function: Any, reads: tuple[str, ...], window: Any):
    narrow, narrow_refused, narrow_rejected = await merged(Fold([], function, reads=reads), window)
    whole, whole_refused, whole_rejected = await merged(Fold([], function), window)
    assert narrow_refused == whole_refused
    assert (narrow_rejected, bool(window is None or narrow.late)) == (whole_rejected, True)
    assert narrow.late == whole.late, "late records are whole ones"
    for key, windows in whole.cache.items():
        assert {start: entry.encode() for start, entry in windows.items()} == {
            start: entry.encode() for start, entry in narrow.cache[key].items()
        }


@pytest.mark.skipif(load("auto") is None, reason="the native library is not built: make native")
async def test_a_chunk_with_records_that_are_refused_goes_with_the_last_that_holds_it():
    one = tap(Fold([], step))
    judge = Judge(max_future_ms=1 << 40, max_record_bytes=10_000)
    group = column_group([one], one.codec, one.time_field, needs_key=True, judge=judge, native="required")
    assert group is not None
    gc.disable()  # a worker's collector comes after hundreds of chunks
    try:
        found = group.decode([batch_of(raws())])
        assert found is not None
        chunk, refused = found
        alive = weakref.ref(chunk.records)
        assert len(refused) > 0 < len(await one.accept(chunk))
        del found, chunk, refused
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("fold", "window", "inputs"),
    [
        (Fold([], step, reads=("price", "side")), None, ("price", "side")),
        (Fold([], step), None, None),
        (Fold([], step, reads=("price", "nothing")), None, None),
        (Fold([], step, lambda one, other: one, reads=("price",)), Session(10, 0, 1_000), None),
    ],
)
def test_columns_are_asked_for_only_where_rows_can_be_made_of_them(fold: Fold, window: Any, inputs: Any):
    assert (None if (columns := tap(fold, window).columns) is None else columns.fields) == inputs
