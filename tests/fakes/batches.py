"""Record batches as a broker would send them."""

from collections.abc import Sequence
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streamapp.kafka.record_batch import RecordBatch

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def batch_of(records: Sequence[Any], *, codec: str = "none", min_offset: int = 0) -> RecordBatch:
    """One batch of records with ascending offsets; gaps between them stay, as compaction leaves them."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 24)
    base = records[0].offset
    for record in records:
        headers = list(getattr(record, "headers", ()))
        builder.append(record.offset - base, record.timestamp, record.key, record.value, headers)
    raw = bytearray(builder.build())
    raw[:8] = base.to_bytes(8, "big")  # the broker assigns offsets; the checksum does not cover this field
    if all(record.timestamp < 0 for record in records):
        raw[27:43] = b"\xff" * 16  # first and greatest timestamp, which the builder does not leave out
    return RecordBatch(bytes(raw), min_offset)
