"""Chunks of undecoded batches into what the taps take, by columns.

Everything here runs in a thread beside the event loop and touches only what it is given. A row that the decoder is not
sure of, or whose event time looks wrong, is judged like any single record; the others go through untouched by Python.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from streamapp.columns.decoder import ColumnDecoder, Columns, decoder_for
from streamapp.columns.library import Mode
from streamapp.columns.lists import ArrayList, OnDemand, TextList
from streamapp.columns.rows import rows
from streamapp.columns.schema import fields_of
from streamapp.engine.deadletters import KafkaRecord
from streamapp.engine.judging import Judge
from streamapp.engine.tap import Decoded, Tap
from streamapp.errors import RecordError, without_frames
from streamapp.importing import np
from streamapp.kafka.record_batch import RecordBatch
from streamapp.records.codec import Codec
from streamapp.state.batch import DECODED, KEY_NUMBERS, KEY_TEXTS, NARROW
from streamapp.state.definition import MAX_TIME_MS

if TYPE_CHECKING:
    from streamapp.columns.values import Array


class ColumnGroup:
    """Decodes chunks for the taps of a lane that share codec and event time.

    Args:
        taps: what takes the chunks.
        decoder: of the fields that the taps aggregate, the time and the sequence, as far as there are any.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        decoder: ColumnDecoder,
        codec: Codec,
        time_field: str | None,
        *,
        needs_key: bool,
        judge: Judge,
    ) -> None:
        self.taps = taps
        self._decoder = decoder
        self._codec = codec
        self._time_field = time_field
        self.needs_key = needs_key
        self._judge = judge

    def decode(self, batches: Sequence[RecordBatch]) -> tuple[Decoded, list[tuple[KafkaRecord, RecordError]]] | None:
        """The usable records of the batches, and what is wrong with the others; None where records must be taken singly."""
        found = self._decoder.decode(batches)
        if found is None:
            return None
        times, odd = self._times(found)
        rejected: list[tuple[KafkaRecord, RecordError]] = []
        raws: Sequence[KafkaRecord] = OnDemand(len(found), lambda: _parsed(batches))
        if len(odd):
            keep = np.ones(len(found), np.bool_)
            try:
                for row in odd.tolist():
                    problem = self._settle(found, times, row, raws[row])
                    if problem is not None:
                        keep[row] = False
                        rejected.append((raws[row], problem))
            except (OverflowError, ValueError, TypeError):
                return None  # a value that no column holds
            if rejected:
                raws = [raw for raw, kept in zip(raws, keep.tolist(), strict=True) if kept]
                times = times[keep]
                _filter(found, keep)
        decoded = self._assemble(found, times, raws, batches[-1].next_offset - 1)
        for tap in self.taps:
            tap.prepare(decoded)
        return decoded, rejected

    def _times(self, found: Columns) -> "tuple[Array, Array]":
        """Event times in ms, and the rows that have to be judged one by one."""
        stamps = found.timestamps
        if self._time_field is None:
            times = stamps.copy()
            good = np.ones(len(found), np.bool_)
        else:
            column = found.columns[self._time_field]
            if column.values.dtype == np.float64:
                with np.errstate(all="ignore"):
                    scaled = np.rint(column.values * 1000)
                    good = (scaled >= 0) & (scaled < MAX_TIME_MS)
                    times = np.where(good, scaled, 0).astype(np.int64)
            else:
                times = column.values.copy()
                good = (times >= 0) & (times < MAX_TIME_MS)
            good &= ~column.nulls
        good &= (stamps >= 0) & (times <= stamps + self._judge.max_future_ms)
        if len(found.unsure):
            good[found.unsure] = False
        return times, np.flatnonzero(~good)

    def _settle(self, found: Columns, times: "Array", row: int, raw: KafkaRecord) -> RecordError | None:
        """Fill a row from its record as the codec decodes it; the problem where it cannot be used."""
        try:
            record = self._codec.decode(self._judge.value(raw))
            key, time = self._judge.place(raw, record, self._time_field, self.needs_key)
        except RecordError as problem:
            return without_frames(problem)
        times[row] = time
        if self.needs_key:
            found.keys[row] = len(found.key_texts)
            found.key_texts.append(key)
        for name, column in found.columns.items():
            value = getattr(record, name)
            column.nulls[row] = value is None
            if value is None:
                continue
            if column.texts is not None:
                column.values[row] = len(column.texts)
                column.texts.append(value)
            else:
                column.values[row] = value
        return None

    def _assemble(self, found: Columns, times: "Array", raws: Sequence[KafkaRecord], end: int) -> Decoded:
        count = len(found)
        sequence = found.columns.get("sequence")
        if sequence is not None and sequence.values.dtype == np.int64:
            sequences = np.where(sequence.nulls, -1, sequence.values)
        else:
            sequences = np.full(count, -1, np.int64)
        decode = self._codec.decode

        def one(row: int) -> Any:
            return decode(found.value(row) or b"")

        def everything() -> Sequence[Any]:
            return self._codec.decode_all(found.values())

        records = OnDemand(count, everything, one)
        columns: dict[Any, Any] = {
            KEY_NUMBERS: found.keys,
            KEY_TEXTS: found.key_texts,
            DECODED: found.columns,
            NARROW: partial(rows, self._codec, found.columns, records.__getitem__),
        }
        keys: Sequence[str] = TextList(found.keys, found.key_texts) if self.needs_key else [""] * count
        return Decoded(
            raws,
            ArrayList(found.offsets),
            keys,
            records,
            ArrayList(times),
            ArrayList(sequences),
            end,
            columns,
        )


def column_group(
    taps: Sequence[Tap], codec: Codec, time_field: str | None, *, needs_key: bool, judge: Judge, native: Mode
) -> ColumnGroup | None:
    """The group for these taps; None where no column can be had.

    Taps that take records gain as well: offsets, keys, times and values need no object per record on the way.
    """
    fields = {field.name: field for field in fields_of(codec) or ()}
    if not fields or (time_field is not None and (time_field not in fields or fields[time_field].kind not in "if")):
        return None
    wanted = dict.fromkeys(name for tap in taps if tap.columns is not None for name in tap.columns.fields)
    if time_field is not None:
        wanted[time_field] = None
    if "sequence" in fields and fields["sequence"].kind == "i":
        wanted["sequence"] = None
    decoder = decoder_for(native, codec, list(wanted), needs_key=needs_key, max_value_bytes=judge.max_record_bytes)
    if decoder is None:
        return None
    return ColumnGroup(taps, decoder, codec, time_field, needs_key=needs_key, judge=judge)


def _parsed(batches: Sequence[RecordBatch]) -> list[Any]:
    return list(chain.from_iterable(batch.records() for batch in batches))


def _filter(found: Columns, keep: "Array") -> None:
    found.offsets, found.timestamps, found.keys = found.offsets[keep], found.timestamps[keep], found.keys[keep]
    found.batch_of, found.value_at = found.batch_of[keep], found.value_at[keep]
    found.value_length = found.value_length[keep]
    for column in found.columns.values():
        column.values, column.nulls = column.values[keep], column.nulls[keep]
