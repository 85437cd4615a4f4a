"""A batch as arrays, each made once for all tables that share the batch."""

from operator import attrgetter
from typing import TYPE_CHECKING

from streamapp.columns.lists import ArrayList
from streamapp.columns.values import Values, numbered, values_of
from streamapp.importing import np
from streamapp.state.batch import DECODED, KEY_NUMBERS, KEY_TEXTS, Batch
from streamapp.windows.reductions import NotByArraysError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamapp.columns.values import Array


def times_of(batch: Batch) -> "Array":
    """Event times in ms, int64 per record."""
    return _integers(batch, "times", batch.times)


def stream_times_of(batch: Batch) -> "Array":
    """What moves stream time, ms, int64 per record: the event times, or what the batch says of its origin."""
    return times_of(batch) if batch.stream_times is None else _integers(batch, "stream_times", batch.stream_times)


def offsets_of(batch: Batch) -> "Array":
    """Offsets, int64 per record."""
    return _integers(batch, "offsets", batch.offsets)


def sequences_of(batch: Batch) -> "Array":
    """Sequences, int64 per record.

    Raises:
        OverflowError: one of them is beyond 64 bits.
    """
    return _integers(batch, "sequences", batch.sequences)


def keys_of(batch: Batch) -> "tuple[Sequence[str], Array]":
    """The texts of the keys, and per record the place of its key among them; a text may be there twice."""
    if KEY_NUMBERS not in batch.columns:
        batch.columns[KEY_TEXTS], batch.columns[KEY_NUMBERS] = numbered(batch.keys)
    return batch.columns[KEY_TEXTS], batch.columns[KEY_NUMBERS]


def column_of(batch: Batch, name: str) -> Values:
    """An attribute of all records.

    Raises:
        NotByArraysError: their values are not of one type that an array holds.
        AttributeError: a record has no such attribute.
    """
    decoded = batch.columns.get(DECODED)
    if decoded is not None and name in decoded:
        known: Values = decoded[name]
        return known
    if ("values", name) not in batch.columns:
        batch.columns["values", name] = values_of(list(map(attrgetter(name), batch.records)))
    found: Values | None = batch.columns["values", name]
    if found is None:
        raise NotByArraysError(name)
    return found


def in_order(batch: Batch) -> bool:
    """Whether the batch is sorted by time and sequence as it is; offsets always are."""
    known: bool | None = batch.columns.get("in order")
    if known is None:
        steps = np.diff(times_of(batch))
        known = not len(steps) or bool(steps.min() >= 0)
        if known:
            ties = steps == 0
            if ties.any():
                sequences = sequences_of(batch)
                known = not (sequences[1:] < sequences[:-1])[ties].any()  # their difference may be beyond 64 bits
        batch.columns["in order"] = known
    return known


def _integers(batch: Batch, name: str, values: "Sequence[int]") -> "Array":
    if isinstance(values, ArrayList):
        return values.array
    found: Array | None = batch.columns.get(("array", name))
    if found is None:
        found = batch.columns["array", name] = np.array(values, dtype=np.int64)
    return found
