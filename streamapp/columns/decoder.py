"""Batches of records into columns of numpy arrays, by the native library.

A decoder belongs to one lane: one thread at a time. Rows that the library is not sure of are named, and hold nothing: the
caller asks the codec about them.
"""

import ctypes
import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streamapp.columns.library import BatchView, Column, Mode, Rows, load
from streamapp.columns.schema import FieldSchema, describe, fields_of
from streamapp.columns.values import Values
from streamapp.errors import ConfigurationError
from streamapp.importing import np
from streamapp.kafka.record_batch import RecordBatch
from streamapp.records.codec import Codec

if TYPE_CHECKING:
    from streamapp.columns.values import Array

NO_KEY = NO_VALUE = (1 << 32) - 1
_VALUE_TYPES = {"f": "float64", "i": "int64", "t": "uint32", "b": "bool", "c": "uint32"}


@dataclass(slots=True)
class Columns:
    """The decoded rows of a chunk, in order of offset.

    Attributes:
        offsets, timestamps: int64 per row; timestamps are Kafka's, in ms.
        keys: uint32 per row, the place in `key_texts`, or `NO_KEY`.
        columns: by field name.
        unsure: places of rows that the library would not decode; their columns hold nothing.
        batch_of, value_at, value_length: where each row's value is in the batches' payloads.
    """

    offsets: "Array"
    timestamps: "Array"
    keys: "Array"
    key_texts: list[str]
    columns: dict[str, Values]
    unsure: Sequence[int]
    batches: Sequence[RecordBatch]
    batch_of: "Array"
    value_at: "Array"
    value_length: "Array"

    def __len__(self) -> int:
        return len(self.offsets)

    def value(self, row: int) -> bytes | None:
        """The value of a row as it was sent."""
        length = int(self.value_length[row])
        if length == NO_VALUE:
            return None
        at = int(self.value_at[row])
        return self.batches[int(self.batch_of[row])].payload()[at : at + length]

    def values(self) -> list[bytes]:
        """The values of all rows; a null one is empty."""
        ends = np.where(self.value_length == NO_VALUE, self.value_at, self.value_at + self.value_length)
        found: list[bytes] = []
        for place, batch in enumerate(self.batches):
            payload = batch.payload()
            begin, end = np.searchsorted(self.batch_of, (place, place + 1)).tolist()
            spans = zip(self.value_at[begin:end].tolist(), ends[begin:end].tolist(), strict=True)
            found += [payload[first:last] for first, last in spans]
        return found


class ColumnDecoder:
    """Decodes chunks of one schema.

    Args:
        library: from `load`.
        fields: all fields of the records.
        wanted: those that become columns.
        needs_key: whether a record without a readable key is left to the codec.
        max_value_bytes: a longer value is left to the caller as unsure.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        fields: Sequence[FieldSchema],
        wanted: Sequence[str],
        *,
        needs_key: bool,
        max_value_bytes: int,
    ) -> None:
        by_name = {field.name: field for field in fields}
        self._library = library
        self._wanted = [by_name[name] for name in wanted]
        self._max_value_bytes = max_value_bytes
        text = describe(fields, wanted, needs_key)
        self._handle = library.streamapp_decoder_new(text, len(text))
        if not self._handle:
            raise RuntimeError(f"the native library does not understand this schema: {text.decode()}")
        weakref.finalize(self, library.streamapp_decoder_free, self._handle)

    def decode(self, batches: Sequence[RecordBatch]) -> Columns | None:
        """Decode a chunk; None where a batch is not well-formed, which the careful way will tell of."""
        capacity = sum(batch.count for batch in batches)
        offsets = np.empty(capacity, np.int64)
        timestamps = np.empty(capacity, np.int64)
        keys = np.empty(capacity, np.uint32)
        value_at = np.empty(capacity, np.uint32)
        value_length = np.empty(capacity, np.uint32)
        doubtful = np.empty(capacity, np.uint8)
        memory: list[tuple[Array, Array]] = [
            (np.empty(capacity, _VALUE_TYPES[field.kind]), np.empty(capacity, np.bool_)) for field in self._wanted
        ]
        columns = (Column * max(len(memory), 1))(
            *(Column(values.ctypes.data, nulls.ctypes.data) for values, nulls in memory)
        )
        rows = Rows(
            capacity,
            offsets.ctypes.data,
            timestamps.ctypes.data,
            keys.ctypes.data,
            value_at.ctypes.data,
            value_length.ctypes.data,
            doubtful.ctypes.data,
            columns,
        )
        batch_of = np.empty(capacity, np.uint32)
        unsure = ctypes.c_size_t(0)
        self._library.streamapp_decoder_clear(self._handle)
        filled = 0
        for place, batch in enumerate(batches):
            payload = batch.payload()
            view = BatchView(
                payload,
                len(payload),
                batch.count,
                batch.base_offset,
                batch.first_timestamp,
                batch.max_timestamp,
                batch.min_offset,
                self._max_value_bytes,
                batch.log_append_time,
            )
            found = self._library.streamapp_decode(
                self._handle, ctypes.byref(view), ctypes.byref(rows), filled, ctypes.byref(unsure)
            )
            if found < 0:
                return None
            batch_of[filled : filled + found] = place
            filled += found
        return Columns(
            offsets[:filled],
            timestamps[:filled],
            keys[:filled],
            self._texts(-1),
            {
                field.name: Values(values[:filled], nulls[:filled], self._texts_of(index, field))
                for index, (field, (values, nulls)) in enumerate(zip(self._wanted, memory, strict=True))
            },
            np.flatnonzero(doubtful[:filled]).tolist() if unsure.value else (),
            batches,
            batch_of[:filled],
            value_at[:filled],
            value_length[:filled],
        )

    def _texts_of(self, column: int, field: FieldSchema) -> list[str] | None:
        if field.kind == "c":
            return list(field.choices)
        return self._texts(column) if field.kind == "t" else None

    def _texts(self, column: int) -> list[str]:
        data, length, ends = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_void_p()
        count = self._library.streamapp_texts(
            self._handle, column, ctypes.byref(data), ctypes.byref(length), ctypes.byref(ends)
        )
        if not count:
            return []
        text = ctypes.string_at(data.value or 0, length.value)
        stops = np.frombuffer(ctypes.string_at(ends.value or 0, 4 * count), np.uint32).tolist()
        return [text[begin:end].decode() for begin, end in zip([0, *stops], stops, strict=False)]


#: texts of a record with one number `a` and one text `b`, and whether the library has to be sure of them
_TRIAL = (
    (b'{"a":1.5,"b":"x"}', True),
    (b' { "b" : "\xc3\xa9" , "a" : -0.25e1 , "c" : {} } ', True),
    (b'{"c":[{},[],null,true],"a":12345678.25,"b":""}', True),
    (b"{}", False),
    (b'{"a":1.5,"b":"x"', False),
    (b'{"a":1.5,"b":"x"}}', False),
    (b'{"a":01,"b":"x"}', False),
    (b'{"a":"1","b":"x"}', False),
    (b'{"a":1,"a":1,"b":"x"}', False),
    (b'{"a":1,"b":"\xff"}', False),
    (b'{"a":1e999,"b":"x"}', False),
    (b"", False),
)


@functools.cache
def _tried(library: ctypes.CDLL) -> bool:
    """Whether a handful of texts decode as they must: compilers have been seen to break exactly such loops."""
    fields = [
        FieldSchema("a", "f", False, False, ("-inf", "0", "inf", "0")),
        FieldSchema("b", "t", False, False, ("0", "9")),
    ]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset, (text, _) in enumerate(_TRIAL):
        builder.append(offset, 0, b"key", text, [])
    batch = RecordBatch(bytes(builder.build()), 0)
    found = ColumnDecoder(library, fields, ["a", "b"], needs_key=True, max_value_bytes=1_000).decode([batch])
    if found is None or list(found.unsure) != [place for place, (_, sure) in enumerate(_TRIAL) if not sure]:
        return False
    column, texts = found.columns["a"].values[:3].tolist(), found.columns["b"]
    named = [(texts.texts or [""])[number] for number in texts.values[:3].tolist()]
    return column == [1.5, -2.5, 12345678.25] and named == ["x", "\u00e9", ""] and found.key_texts == ["key"]


def decoder_for(
    mode: Mode, codec: Codec, wanted: Sequence[str], *, needs_key: bool, max_value_bytes: int
) -> ColumnDecoder | None:
    """A decoder of these fields of a codec's records; None where the library or the schema does not allow it."""
    library = load(mode)
    fields = fields_of(codec) if library is not None else None
    if library is None or fields is None or not set(wanted) <= {field.name for field in fields}:
        return None
    if not _tried(library):
        raise ConfigurationError(
            "the native library decodes wrongly on this machine: the compiler that built it may be at fault; build it with "
            "another one (`make native`), or set STREAMAPP_NATIVE=off"
        )
    return ColumnDecoder(library, fields, wanted, needs_key=needs_key, max_value_bytes=max_value_bytes)
