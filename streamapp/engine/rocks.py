"""The store on disk: one RocksDB per partition of a table.

Written only after the changelog has acknowledged, so losing it loses nothing. Writes are not synced to the disk one by
one: after a crash of the process nothing is missing, after a crash of the machine the last writes may be, as a whole
batch each, and the changelog brings them back.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
)

from streamapp.errors import StateError
from streamapp.state.store import WriteSet

_MEBIBYTE = 1 << 20


class RocksFactory:
    """Opens stores that share one budget of memory, so that it does not grow with their number or their size.

    Args:
        directory: where the stores are, one folder per table and partition.
        block_cache_bytes: for all of them together: blocks, their indexes and filters, and, up to half of it, what was
            written and is not in a file yet.
    """

    def __init__(self, directory: Path, *, block_cache_bytes: int = 64 * _MEBIBYTE) -> None:
        self.directory = directory
        self._cache = Cache(block_cache_bytes)
        self._writes = WriteBufferManager.new_write_buffer_manager_with_cache(
            block_cache_bytes // 2, False, self._cache
        )

    def path(self, table: str, partition: int) -> Path:
        """The folder of one store."""
        return self.directory / table / str(partition)

    def open(self, table: str, partition: int) -> "RocksStore":
        """Open or create a store.

        Raises:
            StateError: the disk is full, the folder is locked by another process, or the files are damaged.
        """
        return RocksStore(table, partition, self.path(table, partition), self._options())

    def remove(self, table: str, partition: int) -> None:
        """Delete a closed store."""
        shutil.rmtree(self.path(table, partition), ignore_errors=True)

    def written(self, table: str) -> dict[int, int]:
        """The partitions of a table that there are files of, each with when they were last changed, in ms."""
        found: dict[int, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory / table) as folders:
            for folder in folders:
                if folder.name.isdecimal():
                    found[int(folder.name)] = folder.stat().st_mtime_ns // 1_000_000
        return found

    def _options(self) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(8 * _MEBIBYTE)
        options.set_max_write_buffer_number(3)
        options.set_write_buffer_manager(self._writes)
        options.set_max_background_jobs(2)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_keep_log_file_num(2)
        options.set_max_total_wal_size(32 * _MEBIBYTE)
        options.set_max_open_files(64)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_cache_index_and_filter_blocks(True)  # else they are outside of the budget, and grow with the store
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
        blocks.set_bloom_filter(10, False)  # most look-ups of a new window find nothing
        options.set_block_based_table_factory(blocks)
        return options


class _Cursor:
    """An iterator that can be taken away: as long as there is one, RocksDB does not let go of its folder.

    Whoever scans keeps no other reference to it between two steps.
    """

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self._ended: StateError | None = None

    def seek(self, key: bytes) -> None:
        self._iterator.seek(key)

    def seek_before(self, key: bytes) -> None:
        iterator = self._iterator
        iterator.seek_for_prev(key)
        if iterator.valid() and iterator.key() == key:
            iterator.prev()

    def take(self, *, reverse: bool) -> tuple[bytes, bytes] | None:
        if self._ended is not None:
            raise self._ended
        iterator = self._iterator
        if not iterator.valid():
            return None
        pair = iterator.key(), iterator.value()
        if reverse:
            iterator.prev()
        else:
            iterator.next()
        return pair

    def end(self, problem: StateError) -> None:
        self._ended, self._iterator = problem, None


class RocksStore:
    """A `StateStore` over RocksDB."""

    def __init__(self, table: str, partition: int, path: Path, options: Options) -> None:
        self._table, self._partition, self._path = table, partition, path
        self._cursors: set[_Cursor] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(str(path), options)
        except Exception as problem:  # rocksdict raises bare Exception
            raise StateError(
                table,
                partition,
                f"table {table}, partition {partition}: cannot open the local state at {path}: {problem}",
            ) from problem

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        found: bytes | None = self._db.get(key)
        return found

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < end, in order of key; a snapshot of the moment of the first step."""
        cursor = _Cursor(self._db.iter())
        self._cursors.add(cursor)
        try:
            if reverse:
                cursor.seek_before(end)
                while (pair := cursor.take(reverse=True)) is not None and pair[0] >= start:
                    yield pair
            else:
                cursor.seek(start)
                while (pair := cursor.take(reverse=False)) is not None and pair[0] < end:
                    yield pair
        finally:
            self._cursors.discard(cursor)

    def write(self, changes: WriteSet) -> None:
        """Apply all changes in one atomic batch."""
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in changes.bulk.items():
            put(key, value)
        for key in changes.marks:
            put(key, b"")
        for key, value in changes.puts:
            put(key, value)
        for key in changes.deletes:
            batch.delete(key)
        try:
            self._db.write(batch)
        except Exception as problem:  # rocksdict raises bare Exception
            raise StateError(
                self._table,
                self._partition,
                f"table {self._table}, partition {self._partition}: cannot write to {self._path}: {problem}; "
                "free some disk space, or move STREAMAPP_DATA_DIR, and start the worker again: nothing was committed",
            ) from problem

    def size_bytes(self) -> int:
        """Bytes in the sorted files and in memory, as RocksDB estimates them."""
        total = 0
        for name in ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"):
            total += int(self._db.property_int_value(name) or 0)
        return total

    def close(self) -> None:
        """Flush and release the folder's lock; whoever is in the middle of a scan gets a StateError at its next step."""
        for cursor in list(self._cursors):
            cursor.end(StateError(self._table, self._partition, f"the local state at {self._path} was closed"))
        self._db.close()
