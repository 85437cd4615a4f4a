"""The two lanes by which a batch is merged into windows that are fixed in time, or into a table without windows.

The *record lane* takes one record after the other and can do everything. The *column lane* groups a whole batch by key
and pane and merges one partial per group; it is used where no record of the batch can be a repeat. A pane is the longest
span that lies wholly in or wholly out of every window.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from streamapp.importing import np
from streamapp.state.arrays import keys_of, stream_times_of, times_of
from streamapp.state.batch import Applied, Batch, LateRecord
from streamapp.state.grouping import Plan, Row, partials
from streamapp.state.moments import closed_moments, running_times
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.columns.values import Array
    from streamapp.state.partition import PartitionState

#: from so many records on grouping by arrays takes less time than the record lane: it takes a fifth of a millisecond for few
#: records, and every further one a fraction of what the record lane takes
ARRAYS_MIN_RECORDS = 80
#: from so many merges on (records times the windows that each counts in) grouping by expressions does: it takes some
#: milliseconds whatever it is given
EXPRESSIONS_MIN_MERGES = 512
_FEW_RECORDS = 64
#: the starts of a table without windows
NO_WINDOW = (0,)


def starts_of(window: Tumbling | Hopping | None, panes: Iterable[int]) -> Mapping[int, Sequence[int]]:
    """The starts of the windows that each pane lies in: asked once for all keys, which have the same few panes."""
    return {pane: NO_WINDOW if window is None else window.starts_for(pane) for pane in panes}


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
    moves = batch.stream_times
    if len(positions) > _FEW_RECORDS:
        # they may be made on demand; all at once costs less then
        offsets, keys, records, times, sequences = map(list, (offsets, keys, records, times, sequences))
    stream_times, horizon, origins = state.stream_times, state.horizon[origin], state.origins
    span = window.size_ms + window.grace_ms if window is not None else 0
    for position in positions:
        time, offset, key = times[position], offsets[position], keys[position]
        if watermarks is None:
            move = time if moves is None else moves[position]
            if move > stream_times[origin]:
                stream_times[origin] = move
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


def columns_min_records(plan: Plan, windows_each: int) -> int:
    """From how many records on the column lane takes less time than the record lane.

    Args:
        plan: how they are grouped.
        windows_each: in how many windows each of them counts.
    """
    return ARRAYS_MIN_RECORDS if plan.reductions is not None else -(-EXPRESSIONS_MIN_MERGES // windows_each)


def merge_columns(state: "PartitionState", batch: Batch, first: int, outcome: Applied) -> bool:
    """Merge the records from position `first` on by columns; False where that cannot be done with this batch.

    Records that one of their windows is closed for go through the record lane, with the watermark of their own moment.
    """
    aggregate, window, origin = state.aggregate, state.window, batch.origin
    assert not isinstance(window, Session)
    times, moves = times_of(batch)[first:], stream_times_of(batch)[first:]
    stream_time = state.stream_times[origin]
    closed = None if window is None else closed_moments(times, moves, stream_time, window)
    suspects: Sequence[int] = () if closed is None else np.flatnonzero(closed).tolist()
    kept = None if closed is None else ~closed
    found = _rows(state, batch, first, kept)
    if found is None:
        return False
    slice_ms, rows = found
    running = running_times(moves, stream_time) if suspects else None
    state.stream_times[origin] = max(stream_time, int(moves.max())) if len(moves) else stream_time

    texts = keys_of(batch)[0]
    merge, entry_of, touch, origins = aggregate.merge, state.entry, state.touch, state.origins
    failed: dict[int, Exception] = {}
    starts = starts_of(window, {row[1] for row in rows})
    for number, pane, partial, newest, last in rows:
        key = texts[number]
        offset = last if origins == 1 else last // origins
        for start in starts[pane]:
            entry = entry_of(key, start)
            try:
                merge(entry.state, partial)
            except Exception:  # what came before was of another type: one by one it shows which records are at fault
                state.discard_empty(key, start, entry)
                _merge_singly(state, batch, _positions(batch, first, kept, number, pane, slice_ms), start, failed)
                continue
            if offset > entry.offsets[origin]:
                entry.offsets[origin] = offset
            if newest > entry.newest:
                entry.newest = newest
            touch(key, start, entry)
    outcome.merged += len(times) - len(suspects) - len(failed)
    outcome.failed.extend(failed.items())
    if running is not None:
        judged = [0] * first + running.tolist()
        merge_records(state, batch, [first + position for position in suspects], outcome, judged)
    if failed:
        outcome.failed.sort(key=lambda one: one[0])
    return True


def _merge_singly(
    state: "PartitionState", batch: Batch, positions: Sequence[int], start: int, failed: dict[int, Exception]
) -> None:
    """Merge the records of a group into one of its windows, one by one; what is refused is noted in `failed`."""
    origin, origins = batch.origin, state.origins
    for position in positions:
        key, time, offset = batch.keys[position], batch.times[position], batch.offsets[position]
        order = (time, batch.sequences[position], offset if origins == 1 else offset * origins + origin)
        entry = state.entry(key, start)
        try:
            state.aggregate.add(entry.state, batch.records[position], order, batch.source)
        except Exception as problem:  # a user's code, or a value that this aggregate cannot use
            state.discard_empty(key, start, entry)
            failed[position] = problem
            continue
        entry.offsets[origin] = max(offset, entry.offsets[origin])
        entry.newest = max(time, entry.newest)
        state.touch(key, start, entry)


def _positions(batch: Batch, first: int, kept: "Array | None", number: int, pane: int, slice_ms: int) -> Sequence[int]:
    """Where in the batch the records of a group are."""
    chosen = keys_of(batch)[1][first:] == number
    if slice_ms:
        times = times_of(batch)[first:]
        chosen &= times - times % slice_ms == pane
    if kept is not None:
        chosen &= kept
    places: list[int] = (np.flatnonzero(chosen) + first).tolist()
    return places


def prepare_columns(state: "PartitionState", batch: Batch) -> None:
    """Group a batch ahead of `merge_columns`, which finds the groups in the batch; changes nothing else.

    May run in a thread beside the one that owns the state. It takes the batch as new and looks at the stream time as it is
    now; where either turns out otherwise, `merge_columns` groups again.
    """
    window, origin = state.window, batch.origin
    if isinstance(window, Session) or state.aggregate.ordered:
        return
    if window is not None:
        times, moves = times_of(batch), stream_times_of(batch)
        if closed_moments(times, moves, state.stream_times[origin], window) is not None:
            return
    _rows(state, batch, 0, None)


def _rows(state: "PartitionState", batch: Batch, first: int, kept: "Array | None") -> tuple[int, Sequence[Row]] | None:
    """One partial per key and pane, made or found in the batch, and how long these panes are; 0 where there are none."""
    window, origins, plan = state.window, state.origins, state.plan(batch.source)
    assert not isinstance(window, Session)
    pane_ms = window.pane_ms if window is not None else 0
    name = ("rows", plan.name, first, origins, batch.origin if origins > 1 else 0)
    shared = batch.columns.get(name) if kept is None else None
    if shared is not None and (shared[0] == pane_ms or (shared[0] and pane_ms % shared[0] == 0)):
        found: tuple[int, Sequence[Row]] = shared
        return found  # another table has grouped by slices that lie wholly in or wholly out of our windows, too
    merges = (len(batch.offsets) - first) * state.windows_each
    rows = partials(plan, batch, first, pane_ms, kept, origins, expressions=merges >= EXPRESSIONS_MIN_MERGES)
    if rows is None:
        return None
    compact = plan.compact
    if compact is not None:
        for _, _, partial, _, _ in rows:
            compact(partial)
    if kept is None:
        batch.columns[name] = (pane_ms, rows)
    return pane_ms, rows
