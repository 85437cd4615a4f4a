"""One batch of records as a broker sends it: Kafka's message format 2, still compressed.

Layout: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.record.default_records import DefaultRecordBatch

_HEADER = struct.Struct(">qiibIhiqqqhii")
_DECOMPRESS = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_CODEC_MASK, _LOG_APPEND_TIME = 0x07, 0x08


class RecordBatch:
    """The records of one batch at or above an offset, in order of offset.

    Args:
        raw: the whole batch, header included.
        min_offset: where reading began: records below were read before, and are left out, and there is nothing between it
            and the batch.

    Attributes:
        count: how many records there are at most; those below `min_offset` are counted, too. None are left of a batch that
            was compacted away, or is passed over: it only tells that there is nothing up to `next_offset`.
        next_offset: where reading goes on after the batch.
    """

    __slots__ = (
        "_payload",
        "base_offset",
        "count",
        "first_timestamp",
        "flags",
        "max_timestamp",
        "min_offset",
        "next_offset",
        "raw",
    )

    def __init__(self, raw: bytes, min_offset: int) -> None:
        header = _HEADER.unpack_from(raw)
        self.raw = raw
        self.min_offset = min_offset
        self.base_offset: int = header[0]
        self.flags: int = header[5]
        self.next_offset: int = header[0] + header[6] + 1
        self.first_timestamp: int = header[7]
        self.max_timestamp: int = header[8]
        self.count: int = header[12]
        self._payload: bytes | None = None

    def pass_over(self) -> None:
        """Leave out all of its records: they are not meant for readers."""
        self.count = 0

    @property
    def log_append_time(self) -> bool:
        """Whether all records carry the time at which the broker appended the batch."""
        return bool(self.flags & _LOG_APPEND_TIME)

    @property
    def arrived_ms(self) -> int:
        """The time of its first record, as the topic keeps it: when it was appended, or when its producer made it."""
        return self.max_timestamp if self.log_append_time else self.first_timestamp

    def payload(self) -> bytes:
        """The records, decompressed; kept, as several decoders may want it.

        Raises:
            Exception: whatever the compression library raises where the bytes are not what the header says.
        """
        if self._payload is None:
            records = self.raw[_HEADER.size :]
            codec = self.flags & _CODEC_MASK
            self._payload = bytes(_DECOMPRESS[codec](records)) if codec else records
        return self._payload

    def records(self) -> Iterator[Any]:
        """One object per record, with `offset`, `timestamp`, `key`, `value` and `headers`.

        Raises:
            aiokafka.errors.CorruptRecordException: the batch is not well-formed.
        """
        for record in DefaultRecordBatch(self.raw) if self.count else ():
            if record.offset >= self.min_offset:
                yield record
