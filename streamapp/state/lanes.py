"""The two lanes by which a batch is merged into windows that are fixed in time, or into a table without windows.

The *record lane* takes one record after the other and can do everything. The *column lane* groups a whole batch by key
and pane with polars and merges one partial per group; it is used where no record of the batch can be a repeat. A pane is
the longest span that lies wholly in or wholly out of every window.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from streamapp.importing import np, pl
from streamapp.state.batch import KEY_TEXTS, Applied, Batch, LateRecord
from streamapp.state.moments import closed_moments, running_times, times_of
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState

_OWN = ("__key", "__time", "__sequence", "__offset")
_FEW_RECORDS = 64
#: the starts of a table without windows
NO_WINDOW = (0,)


def merge_records(
    state: "PartitionState",
    batch: Batch,
    positions: Sequence[int],
    outcome: Applied,
    watermarks: Sequence[int] | Mapping[int, int] | None = None,
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
    if len(positions) > _FEW_RECORDS:
        # they may be made on demand; all at once costs less then
        offsets, keys, records, times, sequences = map(list, (offsets, keys, records, times, sequences))
    stream_times, horizon, origins = state.stream_times, state.horizon[origin], state.origins
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
        # two origins may have the same offset; which of them comes first must not depend on which was read first
        order = (time, sequences[position], offset if origins == 1 else offset * origins + origin)
        for start in NO_WINDOW if window is None else window.starts_for(time):
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
    aggregate, window, origin = state.aggregate, state.window, batch.origin
    assert not isinstance(window, Session)
    times = times_of(batch)[first:]
    stream_time = state.stream_times[origin]
    closed = None if window is None else closed_moments(times, stream_time, window)
    suspects: Sequence[int] = () if closed is None else np.flatnonzero(closed).tolist()
    rows = _rows(state, batch, first, None if closed is None else ~closed)
    if rows is None:
        return False
    running = running_times(times, stream_time) if suspects else None
    state.stream_times[origin] = max(stream_time, int(times.max())) if len(times) else stream_time

    texts: Sequence[str] | None = batch.columns.get(KEY_TEXTS)
    merge, entry_of, touch = aggregate.merge, state.entry, state.touch
    for group, pane, partial, newest, last in rows:
        key = group if texts is None else texts[group]
        for start in NO_WINDOW if window is None else window.starts_for(pane):
            entry = entry_of(key, start)
            merge(entry.state, partial)
            if last > entry.offsets[origin]:
                entry.offsets[origin] = last
            if newest > entry.newest:
                entry.newest = newest
            touch(key, start, entry)
    outcome.merged += len(times) - len(suspects)
    if running is not None:
        judged = [0] * first + running.tolist()
        merge_records(state, batch, [first + position for position in suspects], outcome, judged)
    return True


def prepare_columns(state: "PartitionState", batch: Batch) -> None:
    """Group a batch ahead of `merge_columns`, which finds the groups in the batch; changes nothing else.

    May run in a thread beside the one that owns the state. It takes the batch as new and looks at the stream time as it is
    now; where either turns out otherwise, `merge_columns` groups again.
    """
    window, origin = state.window, batch.origin
    if isinstance(window, Session) or state.aggregate.ordered:
        return
    if window is not None and closed_moments(times_of(batch), state.stream_times[origin], window) is not None:
        return
    _rows(state, batch, 0, None)


def _rows(
    state: "PartitionState", batch: Batch, first: int, kept: Any
) -> list[tuple[Any, int, list[Any], int, int]] | None:
    """One partial per key and pane, made or found in the batch: (key, pane, slots, newest event time, last offset)."""
    aggregate, window, source, origins = state.aggregate, state.window, batch.source, state.origins
    assert not isinstance(window, Session)
    expressions = aggregate.expressions(source)
    if expressions is None:
        return None
    pane_ms = window.pane_ms if window is not None else 0
    name = ("rows", _same_rows(state, source, expressions), first, origins, batch.origin if origins > 1 else 0)
    shared = batch.columns.get(name) if kept is None else None
    if shared is not None and (shared[0] == pane_ms or (shared[0] and pane_ms % shared[0] == 0)):
        rows: list[tuple[Any, int, list[Any], int, int]] = shared[1]
        return rows  # another table has grouped by slices that lie wholly in or wholly out of our windows, too
    try:
        columns = [_column(batch, name) for name in (*_OWN, *aggregate.inputs(source))]
        if any(_column(batch, name).null_count() for name in aggregate.required(source)):
            return None
        if origins > 1:  # as in `merge_records`
            columns[_OWN.index("__offset")] = _column(batch, "__offset") * origins + batch.origin
        rows = _group(batch, columns, expressions, first, pane_ms, kept)
    except (TypeError, ValueError, AttributeError, OverflowError, pl.exceptions.PolarsError):
        return None  # values of mixed types, or that these expressions cannot use: one by one it shows which is wrong
    for _, _, partial, _, _ in rows:
        aggregate.compact(partial)
    if origins > 1:
        rows = [(key, pane, partial, newest, last // origins) for key, pane, partial, newest, last in rows]
    if kept is None:
        batch.columns[name] = (pane_ms, rows)
    return rows


def _same_rows(state: "PartitionState", source: int, expressions: "Sequence[pl.Expr]") -> str:
    """What two tables must have alike to share their partials: kind of aggregate and expressions, as text."""
    found = state.lane_keys.get(source)
    if found is None:
        kind = type(state.aggregate)
        found = f"{kind.__module__}.{kind.__qualname__}/{source}: {'; '.join(map(str, expressions))}"
        state.lane_keys[source] = found
    return found


def _group(
    batch: Batch,
    columns: "Sequence[pl.Series]",
    expressions: "Sequence[pl.Expr]",
    first: int,
    pane_ms: int,
    kept: Any,
) -> list[tuple[Any, int, list[Any], int, int]]:
    """Group by key and pane; keys as they are in the column."""
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
    own = (pl.col("__time").max().alias("__newest"), pl.col("__offset").max().alias("__last"))
    return [
        (row[0], row[1] if pane_ms else 0, list(row[lead:-2]), row[-2], row[-1])
        for row in frame.group_by(grouping).agg(*expressions, *own).rows()
    ]


def _column(batch: Batch, name: str) -> "pl.Series":
    """One column of a batch, made once for all tables that share its decoding."""
    found: pl.Series | None = batch.columns.get(name)
    if found is None:
        if name == "__key":
            found = pl.Series(name, batch.keys, dtype=pl.String)
        elif name == "__time":
            found = pl.Series(name, times_of(batch))
        elif name == "__sequence":
            found = pl.Series(name, batch.sequences, dtype=pl.Int64)
        elif name == "__offset":
            found = pl.Series(name, batch.offsets, dtype=pl.Int64)
        else:
            get = attrgetter(name)
            found = pl.Series(name, [get(record) for record in batch.records], strict=True)
        batch.columns[name] = found
    return found


def _in_order(batch: Batch) -> bool:
    """Whether the batch is sorted by time and sequence as it is; offsets always are."""
    known: bool | None = batch.columns.get("in order")
    if known is None:
        steps = np.diff(times_of(batch))
        ties = steps == 0
        known = not (steps < 0).any()
        if known and ties.any():
            known = not (np.diff(_column(batch, "__sequence").to_numpy())[ties] < 0).any()
        batch.columns["in order"] = known
    return known
