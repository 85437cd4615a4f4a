"""Partials of a batch by key and pane: by arrays in microseconds, or by expressions, which know more but cost milliseconds.

Both give the same: one row per key and pane, with the state that the records of it amount to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from streamapp.columns.values import Values
from streamapp.importing import np, pl
from streamapp.state.arrays import column_of, in_order, keys_of, offsets_of, sequences_of, times_of
from streamapp.state.batch import Batch
from streamapp.windows.aggregate import OFFSET, SEQUENCE, TIME, Aggregate, State
from streamapp.windows.overrides import expressions_of, reductions_of
from streamapp.windows.reductions import Groups, NotByArraysError

if TYPE_CHECKING:
    from streamapp.columns.values import Array

Row: TypeAlias = tuple[int, int, State, int, int]
"""The number of a key, the start of a pane, a partial, its newest event time and its last offset (unique over origins)."""

_KEY = "__key"
_SMALL = 1 << 16  # numbers below it are sorted by their digits, which is faster
_COMBINED_MAX = 1 << 62


class Plan:
    """How an aggregate's partials are made of records of one source.

    Args:
        aggregate, source: whose.
    """

    def __init__(self, aggregate: Aggregate, source: int) -> None:
        self.aggregate = aggregate
        self.reductions = reductions_of(aggregate, source)
        self.inputs, self.required = aggregate.inputs(source), aggregate.required(source)
        self._source = source

    @cached_property
    def expressions(self) -> "Sequence[pl.Expr] | None":
        """The aggregate's expressions."""
        return expressions_of(self.aggregate, self._source)

    @cached_property
    def compact(self) -> Callable[[State], None] | None:
        """What brings a partial to its bounded form, where there is something to do."""
        # several aggregates side by side have one, which does nothing for most of them
        bounded = self.reductions is not None or type(self.aggregate).compact is Aggregate.compact
        return None if bounded else self.aggregate.compact

    @cached_property
    def name(self) -> str:
        """What two tables must have alike to share partials: kind of aggregate, and how its slots are made, as text."""
        kind = type(self.aggregate)
        made = map(repr, self.reductions) if self.reductions is not None else map(str, self.expressions or ())
        return f"{kind.__module__}.{kind.__qualname__}/{self._source}: {'; '.join(made)}"


def partials(
    plan: Plan, batch: Batch, first: int, pane_ms: int, kept: "Array | None", origins: int, *, expressions: bool
) -> list[Row] | None:
    """One row per key and pane, in no particular order; None where the records have to be taken one by one.

    Args:
        plan: what to make.
        batch: of these records.
        first: from this position on.
        pane_ms: the length of a pane; 0 where there are none, and each key has one row.
        kept: of the records from `first` on those that count; None for all.
        origins: how many origins the offsets have; where there are several, the batch's is part of their order.
        expressions: whether they may be used where arrays do not do.
    """
    try:
        if plan.reductions is not None:
            try:
                return _by_arrays(plan, batch, first, pane_ms, kept, origins)
            except NotByArraysError:
                pass
        return _by_expressions(plan, batch, first, pane_ms, kept, origins) if expressions else None
    except (NotByArraysError, TypeError, ValueError, AttributeError, OverflowError, pl.exceptions.PolarsError):
        return None  # values of mixed types, or that cannot be used so: one by one it shows which is wrong


def _unique_offsets(batch: Batch, origins: int) -> "Array":
    """Two origins may have the same offset; which of them comes first must not depend on which was read first."""
    offsets = offsets_of(batch)
    return offsets if origins == 1 else offsets * origins + batch.origin


def _by_arrays(
    plan: Plan, batch: Batch, first: int, pane_ms: int, kept: "Array | None", origins: int
) -> list[Row] | None:
    if any(column_of(batch, name).nulls.any() for name in plan.required):
        return None
    name = ("groups", pane_ms, first, origins, batch.origin)
    offsets = _unique_offsets(batch, origins)
    grouped: _Grouped | None = batch.columns.get(name) if kept is None else None
    if grouped is None:
        grouped = _grouped(batch, first, pane_ms, kept, offsets)
        if kept is None:
            batch.columns[name] = grouped
    if not len(grouped.order):
        return []
    own = {TIME: times_of(batch), SEQUENCE: sequences_of(batch), OFFSET: offsets}

    def column(name: str) -> Values:
        array = own.get(name)
        return column_of(batch, name) if array is None else Values(array, np.zeros(len(array), np.bool_))

    groups = Groups(column, grouped.order, grouped.begins, grouped.ordered)
    slots = [reduction.of(groups) for reduction in plan.reductions or ()]
    return list(zip(*grouped.heads, map(list, zip(*slots, strict=True)), *grouped.tails, strict=True))


@dataclass(slots=True)
class _Grouped:
    """How a batch falls into groups; all tables whose panes are the same share it.

    It is kept in the batch, so it must not hold the batch: the whole chunk would stay in memory until the collector comes,
    which in a worker is after hundreds of chunks.

    Attributes:
        order, begins, ordered: as `Groups` takes them.
        heads: per group its key's number and its pane.
        tails: per group the newest event time and the last offset.
    """

    order: "Array"
    begins: "Array"
    heads: Sequence[list[int]] = ()
    tails: Sequence[list[int]] = ()
    ordered: dict[str, tuple[Values, bool]] = field(default_factory=dict)


def _grouped(batch: Batch, first: int, pane_ms: int, kept: "Array | None", offsets: "Array") -> _Grouped:
    """The records from position `first` on by key and pane, those that are not kept left out."""
    times, sequences = times_of(batch), sequences_of(batch)
    size = len(times)
    places = None
    if kept is not None and not kept.all():
        places = np.flatnonzero(kept) + first
    elif first:
        places = np.arange(first, size)
    if not in_order(batch):
        places = np.arange(size) if places is None else places
        places = places[np.lexsort((offsets[places], sequences[places], times[places]))]
    texts, numbers = keys_of(batch)
    panes = times // pane_ms if pane_ms else None
    if places is not None:
        numbers, panes, size = numbers[places], None if panes is None else panes[places], len(places)
    if not size:
        return _Grouped(np.arange(0), np.arange(0))
    combined = numbers
    if panes is not None:
        least = int(panes.min())
        span = int(panes.max()) - least + 1
        if span * len(texts) > _COMBINED_MAX:
            raise NotByArraysError(_KEY)
        if span > 1:
            combined = numbers.astype(np.int64) * span + (panes - least)
    order = np.argsort(combined.astype(np.uint16) if int(combined.max()) < _SMALL else combined, kind="stable")
    combined = combined[order]
    begins = np.concatenate(((0,), np.flatnonzero(combined[1:] != combined[:-1]) + 1))
    places = order if places is None else places[order]
    at = order[begins]
    starts = [0] * len(at) if panes is None else (panes[at] * pane_ms).tolist()
    newest = times[places[np.append(begins[1:], size) - 1]].tolist()
    last = np.maximum.reduceat(offsets[places], begins).tolist()
    return _Grouped(places, begins, (numbers[at].tolist(), starts), (newest, last))


def _by_expressions(
    plan: Plan, batch: Batch, first: int, pane_ms: int, kept: "Array | None", origins: int
) -> list[Row] | None:
    if plan.expressions is None:
        return None
    columns = [_series(batch, name) for name in (_KEY, TIME, SEQUENCE, *plan.inputs)]
    if any(_series(batch, name).null_count() for name in plan.required):
        return None
    frame = pl.DataFrame([*columns, pl.Series(OFFSET, _unique_offsets(batch, origins))])
    grouping = [_KEY]
    if pane_ms:
        time = pl.col(TIME)
        frame = frame.with_columns((time - time % pane_ms).alias("__pane"))
        grouping.append("__pane")
    if first:
        frame = frame.slice(first)
    if kept is not None and not kept.all():
        frame = frame.filter(pl.Series(kept))
    if not in_order(batch):
        frame = frame.sort(TIME, SEQUENCE, OFFSET)
    lead = len(grouping)
    own = (pl.col(TIME).max().alias("__newest"), pl.col(OFFSET).max().alias("__last"))
    return [
        (row[0], row[1] if pane_ms else 0, list(row[lead:-2]), row[-2], row[-1])
        for row in frame.group_by(grouping).agg(*plan.expressions, *own).rows()
    ]


def _series(batch: Batch, name: str) -> "pl.Series":
    """One column of a batch, made once for all tables that share its decoding."""
    found: pl.Series | None = batch.columns.get(("series", name))
    if found is None:
        if name == _KEY:
            found = pl.Series(name, keys_of(batch)[1])
        elif name == TIME:
            found = pl.Series(name, times_of(batch))
        elif name == SEQUENCE:
            found = pl.Series(name, sequences_of(batch))
        else:
            # never of a list: polars makes floats of all numbers where the first is one, and numbers of booleans
            found = _series_of(name, column_of(batch, name))
        batch.columns["series", name] = found
    return found


def _series_of(name: str, column: Values) -> "pl.Series":
    """A column as polars has it."""
    nulls, texts = column.nulls, column.texts
    empty = nulls.any()
    if texts is not None:
        places = np.where(nulls, 0, column.values) if empty else column.values
        if not len(texts):
            return pl.Series(name, [None] * len(places), dtype=pl.String)
        series = pl.Series(name, texts, dtype=pl.String).gather(pl.Series(places)).alias(name)
    else:
        series = pl.Series(name, column.values)
    return series.scatter(np.flatnonzero(nulls), None) if empty else series
