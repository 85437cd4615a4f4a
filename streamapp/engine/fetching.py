"""Fetched bytes as batches, undecoded: what aiokafka would make an object per record of goes to the lanes as it came.

aiokafka has no setting for it, so two of its private places are replaced, for consumers that are marked and for no other:
the records of a fetch keep their bytes, and iterating over a partition's fetch gives batches instead of records.
"""

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch

from streamapp.kafka.record_batch import RecordBatch

_HEAD = struct.Struct(">qi")  # base offset, length of what follows
_MAGIC_AT = 16
_stock_records = fetcher.MemoryRecords
_stock_unpack = fetcher.PartitionRecords._unpack_records


def hand_out_batches(consumer: Any) -> None:
    """Mark a consumer that is not started yet: its fetches give `RecordBatch` in place of records."""
    # the fetcher copies this attribute, and hands it to every PartitionRecords; it is called for no record of a batch
    consumer._key_deserializer = _marked


def _marked(key: bytes | None) -> bytes | None:
    return key


class _KeptRecords:
    """Stands in for aiokafka's `MemoryRecords`, and remembers the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._stock = _stock_records(data)
        self.has_next = self._stock.has_next
        self.next_batch = self._stock.next_batch
        self.size_in_bytes = self._stock.size_in_bytes


def _unpack(self: Any) -> Iterator[Any]:
    return _batches(self) if self._key_deserializer is _marked else _stock_unpack(self)


def _batches(fetched: Any) -> Iterator[RecordBatch]:
    """The batches of a partition's fetch, without a gap; what to pass over is decided as in the stock generator.

    What is passed over is handed out without its records, so that a lane can tell it from what a fetch has missed.
    """
    data = fetched._records.data
    at = 0
    while len(data) - at >= _HEAD.size:
        end = at + _HEAD.size + _HEAD.unpack_from(data, at)[1]
        if end > len(data):
            return  # the broker cut the last batch off; it comes whole with the next fetch
        raw = bytes(data[at:end])
        at = end
        if raw[_MAGIC_AT] < 2:
            raise CorruptRecordException(f"{fetched._tp}: expected message format 2 (Kafka 0.11), got {raw[_MAGIC_AT]}")
        header = DefaultRecordBatch(raw)
        if fetched._check_crcs and not header.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {fetched._tp}")
        batch = RecordBatch(raw, fetched.next_fetch_offset)
        fetched.next_fetch_offset = batch.next_offset
        if _is_passed_over(fetched, header):
            batch.pass_over()
        yield batch


def _is_passed_over(fetched: Any, header: Any) -> bool:
    """Control batches, and where only committed records are wanted, those of aborted transactions."""
    if fetched._isolation_level == fetcher.READ_COMMITTED and header.producer_id is not None:
        fetched._consume_aborted_up_to(header.base_offset)
        if header.is_control_batch and fetched._contains_abort_marker(header):
            fetched._aborted_producers.discard(header.producer_id)
        if header.is_transactional and header.producer_id in fetched._aborted_producers:
            return True
    return bool(header.is_control_batch)


fetcher.MemoryRecords = _KeptRecords
fetcher.PartitionRecords._unpack_records = _unpack
