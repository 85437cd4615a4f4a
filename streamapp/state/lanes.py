"""The two lanes by which a batch is merged into windows that are fixed in time, or into a table without windows.

The *record lane* takes one record after the other and can do everything. The *column lane* groups a whole batch by key
and pane with polars and merges one partial per group; it is used where no record of the batch can be a repeat. A pane is
the longest span that lies wholly in or wholly out of every window.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from streamapp.state.batch import Applied, Batch, LateRecord
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState

_OWN = ("__key", "__time", "__sequence", "__offset")
_OWN_RESULTS = (pl.col("__time").max().alias("__newest"), pl.col("__offset").max().alias("__last"))
_NO_WINDOW = (0,)


def merge_records(
    state: "PartitionState",
    batch: Batch,
    positions: Sequence[int],
    outcome: Applied,
    watermarks: Sequence[int] | None = None,
) -> None:
    """Merge the records at these positions, one by one, in order of offset.

    Args:
        state: where to.
        batch: the whole batch.
        positions: indexes into it, ascending.
        outcome: counts are added here.
        watermarks: per record of the batch the stream time that judges it, where the caller has worked it out already;
            else stream time is advanced record by record.
    """
    window = state.window
    assert not isinstance(window, Session)
    aggregate, source, origin = state.aggregate, batch.source, batch.origin
    add, entry_of, touch = aggregate.add, state.entry, state.touch
    offsets, keys, records, times, sequences = batch.offsets, batch.keys, batch.records, batch.times, batch.sequences
    stream_times, horizon = state.stream_times, state.horizon[origin]
    span = window.size_ms + window.grace_ms if window is not None else 0
    for position in positions:
        time, offset, key = times[position], offsets[position], keys[position]
        if watermarks is None:
            if time > stream_times[origin]:
                stream_times[origin] = time
            watermark = stream_times[origin]
        else:
            watermark = watermarks[position]
        missed: list[int] | None = None
        failure: Exception | None = None
        merged = False
        order = (time, sequences[position], offset)
        for start in _NO_WINDOW if window is None else window.starts_for(time):
            if window is not None and start + span <= watermark:
                missed = [start] if missed is None else [*missed, start]
                continue
            entry = entry_of(key, start)
            if offset <= horizon and entry.offsets[origin] >= offset:
                continue  # replayed, and this value had it already
            try:
                add(entry.state, records[position], order, source)
            except Exception as problem:  # a user's code, or a value that this aggregate cannot use
                failure = problem
                state.discard_empty(key, start, entry)
                continue
            # the column lane may have taken later records of this batch before
            if offset > entry.offsets[origin]:
                entry.offsets[origin] = offset
            if time > entry.newest:
                entry.newest = time
            touch(key, start, entry)
            merged = True
        if failure is not None:
            outcome.failed.append((position, failure))
        elif missed is not None:
            outcome.late += 1
            state.late.append(
                LateRecord(key, source, origin, offset, time, watermark, tuple(missed), records[position])
            )
        elif merged:
            outcome.merged += 1
        else:
            outcome.repeated += 1


def merge_columns(state: "PartitionState", batch: Batch, first: int, outcome: Applied) -> bool:
    """Merge the records from position `first` on by columns; False where that cannot be done with this batch.

    Records that one of their windows is closed for go through the record lane, with the watermark of their own moment.
    """
    aggregate, window, source, origin = state.aggregate, state.window, batch.source, batch.origin
    assert not isinstance(window, Session)
    expressions = aggregate.expressions(source)
    if expressions is None:
        return False
    try:
        columns = [_column(batch, name) for name in (*_OWN, *aggregate.inputs(source))]
    except (TypeError, ValueError, AttributeError, OverflowError, pl.exceptions.PolarsError):
        return False  # values of mixed types: record by record it shows which one is wrong
    if any(_column(batch, name).null_count() for name in aggregate.required(source)):
        return False
    times = _times(batch)[first:]
    running = np.maximum.accumulate(np.maximum(times, state.stream_times[origin]))
    suspects: Sequence[int] = ()
    pane_ms = 0
    closed = None
    if window is not None:
        pane_ms = window.pane_ms
        # the oldest window that can hold the pane; a little too old where the step does not divide the size
        closed = times - times % pane_ms + (pane_ms + window.grace_ms) <= running
        if closed.any():
            suspects = np.nonzero(closed)[0].tolist()
    lane_key = ("rows", _same_rows(state, source, expressions), first)
    shared = batch.columns.get(lane_key) if not suspects else None
    if shared is not None and pane_ms and pane_ms % shared[0] == 0:
        rows = shared[1]  # another table has grouped by slices that lie wholly in or wholly out of our windows, too
    else:
        try:
            rows = _group(batch, columns, expressions, first, pane_ms, None if closed is None else ~closed)
        except pl.exceptions.PolarsError:
            return False  # values that these expressions cannot use: record by record it shows which
        for _, _, partial, _, _ in rows:
            aggregate.compact(partial)
        if not suspects and pane_ms:
            batch.columns[lane_key] = (pane_ms, rows)
    state.stream_times[origin] = int(running[-1])

    merge, entry_of, touch = aggregate.merge, state.entry, state.touch
    for key, pane, partial, newest, last in rows:
        for start in _NO_WINDOW if window is None else window.starts_for(pane):
            entry = entry_of(key, start)
            merge(entry.state, partial)
            if last > entry.offsets[origin]:
                entry.offsets[origin] = last
            if newest > entry.newest:
                entry.newest = newest
            touch(key, start, entry)
    outcome.merged += len(times) - len(suspects)
    if suspects:
        judged = [0] * first + running.tolist()
        merge_records(state, batch, [first + position for position in suspects], outcome, judged)
    return True


def _same_rows(state: "PartitionState", source: int, expressions: Sequence[pl.Expr]) -> str:
    """What two tables must have alike to share their partials: kind of aggregate and expressions, as text."""
    found = state.lane_keys.get(source)
    if found is None:
        kind = type(state.aggregate)
        found = f"{kind.__module__}.{kind.__qualname__}/{source}: {'; '.join(map(str, expressions))}"
        state.lane_keys[source] = found
    return found


def _group(
    batch: Batch,
    columns: Sequence[pl.Series],
    expressions: Sequence[pl.Expr],
    first: int,
    pane_ms: int,
    kept: Any,
) -> list[tuple[str, int, list[Any], int, int]]:
    """One partial per key and pane: (key, pane, slots, newest event time, last offset)."""
    frame = pl.DataFrame(columns)
    grouping = ["__key"]
    if pane_ms:
        time = pl.col("__time")
        frame = frame.with_columns((time - time % pane_ms).alias("__pane"))
        grouping.append("__pane")
    if first:
        frame = frame.slice(first)
    if kept is not None and not kept.all():
        frame = frame.filter(pl.Series(kept))
    if not _in_order(batch):
        frame = frame.sort("__time", "__sequence", "__offset")
    lead = len(grouping)
    return [
        (row[0], row[1] if pane_ms else 0, list(row[lead:-2]), row[-2], row[-1])
        for row in frame.group_by(grouping).agg(*expressions, *_OWN_RESULTS).rows()
    ]


def _column(batch: Batch, name: str) -> pl.Series:
    """One column of a batch, made once for all tables that share its decoding."""
    found: pl.Series | None = batch.columns.get(name)
    if found is None:
        if name == "__key":
            found = pl.Series(name, batch.keys, dtype=pl.String)
        elif name == "__time":
            found = pl.Series(name, _times(batch))
        elif name == "__sequence":
            found = pl.Series(name, batch.sequences, dtype=pl.Int64)
        elif name == "__offset":
            found = pl.Series(name, batch.offsets, dtype=pl.Int64)
        else:
            get = attrgetter(name)
            found = pl.Series(name, [get(record) for record in batch.records], strict=True)
        batch.columns[name] = found
    return found


def _times(batch: Batch) -> Any:
    times = batch.columns.get("times as array")
    if times is None:
        times = batch.columns["times as array"] = np.array(batch.times, dtype=np.int64)
    return times


def _in_order(batch: Batch) -> bool:
    """Whether the batch is sorted by time and sequence as it is; offsets always are."""
    known: bool | None = batch.columns.get("in order")
    if known is None:
        steps = np.diff(_times(batch))
        ties = steps == 0
        known = not (steps < 0).any()
        if known and ties.any():
            known = not (np.diff(np.array(batch.sequences, dtype=np.int64))[ties] < 0).any()
        batch.columns["in order"] = known
    return known
