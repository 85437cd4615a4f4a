"""Many new records, one by one but key by key: what they have in common is done once for all of them.

A *run* is the records of one key that come after each other in one pane, in order of offset. Windows are looked up once
per run, and the aggregate takes it in one go. Between keys nothing is shared, so their order does not matter.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from streamapp.columns.values import numbered
from streamapp.importing import np
from streamapp.state.arrays import keys_of, stream_times_of, times_of
from streamapp.state.batch import NARROW, Applied, Batch
from streamapp.state.lanes import merge_records, starts_of
from streamapp.state.moments import closed_moments, running_times
from streamapp.windows.overrides import add_all_of
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState

_FEW_KEYS = 1 << 16  # numbers below it are sorted by their digits, which is faster


def merge_runs(state: "PartitionState", batch: Batch, first: int, outcome: Applied) -> None:
    """Merge the records from position `first` on, as `merge_records` does; none of them may be a repeat.

    A record that one of its windows may be closed for goes the general way, in its place among those of its key.
    """
    window, origin, pane_ms = state.window, batch.origin, 0
    assert not isinstance(window, Session)
    times, moves = times_of(batch)[first:], stream_times_of(batch)[first:]
    stream_time = state.stream_times[origin]
    closed = moments = None
    if window is not None:
        pane_ms = window.pane_ms
        closed = closed_moments(times, moves, stream_time, window)
        if closed is not None:
            moments = running_times(moves, stream_time)
    keys, numbers = _numbered(batch, first)
    order = np.argsort(numbers, kind="stable")
    numbers, sorted_times = numbers[order], times[order]
    panes = sorted_times - sorted_times % pane_ms if pane_ms else np.zeros_like(sorted_times)
    cuts = (numbers[1:] != numbers[:-1]) | (panes[1:] != panes[:-1])
    suspects: Sequence[bool] = ()
    if closed is not None:
        closed = closed[order]
        cuts |= closed[1:] | closed[:-1]
        suspects = closed.tolist()
    begins = np.concatenate(([0], np.flatnonzero(cuts) + 1))
    ends = [*begins[1:].tolist(), len(times)]
    runs = _Runs(state, batch, order + first, sorted_times.tolist())
    late_before = len(state.late)
    first_panes = panes[begins].tolist()
    starts = starts_of(window, set(first_panes))
    for number, pane, begin, end in zip(numbers[begins].tolist(), first_panes, begins.tolist(), ends, strict=True):
        if moments is not None and suspects[begin]:
            position = runs.positions[begin]
            merge_records(state, batch, (position,), outcome, {position: int(moments[position - first])})
            continue
        failed: dict[int, Exception] = {}
        for start in starts[pane]:
            runs.merge(keys[number], start, begin, end, failed)
        outcome.merged += end - begin - len(failed)
        outcome.failed.extend(failed.items())
    state.stream_times[origin] = max(stream_time, int(moves.max()))
    # as if all of them had come one after the other
    outcome.failed.sort(key=lambda found: found[0])
    state.late[late_before:] = sorted(state.late[late_before:], key=lambda late: late.offset)


class _Runs:
    """The records of a batch in order of key, to be taken run by run.

    Attributes:
        positions: where in the batch each of them is.
    """

    def __init__(self, state: "PartitionState", batch: Batch, order: Any, times: list[int]) -> None:
        aggregate, origins = state.aggregate, state.origins
        self._state, self._add_all = state, add_all_of(aggregate)
        self._source, self._origin = batch.source, batch.origin
        self._times = times
        self.positions: list[int] = order.tolist()
        self._records = _records(batch, aggregate.inputs(batch.source) if aggregate.narrow else (), order)
        self._offsets = _picked(batch.offsets, self.positions)
        self._orders: list[Any] = []
        if aggregate.looks_at_order:
            # two origins may have the same offset; which of them comes first must not depend on which was read first
            unique = self._offsets if origins == 1 else [offset * origins + batch.origin for offset in self._offsets]
            self._orders = list(zip(times, _picked(batch.sequences, self.positions), unique, strict=True))

    def merge(self, key: str, start: int, begin: int, end: int, failed: dict[int, Exception]) -> None:
        """Merge one run into one window; what is refused is noted in `failed`, by position in the batch."""
        state, at, changed = self._state, begin, False
        records = iter(self._records[begin:end])
        orders = iter(self._orders[begin:end]) if self._orders else repeat(None)
        entry = state.entry(key, start)
        while True:
            taken, problem = self._add_all(entry.state, records, orders, self._source)
            if taken:
                entry.offsets[self._origin] = self._offsets[at + taken - 1]
                entry.newest = max(entry.newest, *self._times[at : at + taken])
                if not changed:
                    changed = True
                    state.touch(key, start, entry)
            if problem is None:
                return
            at += taken
            failed[self.positions[at]] = problem
            at += 1
            if entry.newest < 0:
                state.discard_empty(key, start, entry)
            if at == end:
                return
            entry = state.entry(key, start)


def _picked(values: Sequence[Any], positions: Sequence[int]) -> list[Any]:
    return list(map(list(values).__getitem__, positions))


def _records(batch: Batch, names: Sequence[str], order: Any) -> list[Any]:
    """The records in this order, with nothing but these fields where that is all that is read."""
    narrow = batch.columns.get(NARROW) if names else None
    found: list[Any] | None = None if narrow is None else narrow(names, order)
    return _picked(batch.records, order.tolist()) if found is None else found


def _numbered(batch: Batch, first: int) -> tuple[Sequence[str], Any]:
    """The keys, each once, and the number of each record's key, in the smallest type that holds them."""
    texts, numbers = keys_of(batch)
    numbers = numbers[first:]
    if len(set(texts)) < len(texts):  # some of them the codec has read, which knows no numbers
        texts, places = numbered(texts)
        numbers = places[numbers]
    return texts, numbers.astype(np.uint16) if len(texts) <= _FEW_KEYS else numbers
