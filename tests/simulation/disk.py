"""Simulated disks: each store takes a batch whole or not at all; a machine that fails may lose the last batches."""

from collections.abc import Iterator

from sortedcontainers import SortedDict

from streamapp.errors import StateError
from streamapp.state.store import WriteSet
from tests.simulation.cluster import Cluster
from tests.simulation.process import Process

_UNDO_MAX = 8
Undo = list[tuple[bytes, bytes | None]]


class Files:
    """What is on a disk of one store, with a way back over the last batches."""

    def __init__(self) -> None:
        self.items: SortedDict = SortedDict()
        self.undo: list[Undo] = []
        self.locked_by: Process | None = None

    def write(self, changes: WriteSet) -> None:
        items, undo = self.items, []
        for key, value in (*changes.puts, *changes.bulk.items(), *((mark, b"") for mark in changes.marks)):
            undo.append((key, items.get(key)))
            items[key] = value
        undo += [(key, items.pop(key)) for key in changes.deletes if key in items]
        self.undo.append(undo)
        if len(self.undo) > _UNDO_MAX:
            del self.undo[0]

    def lose_last(self, batches: int) -> None:
        """As if so many of the last batches had never been written."""
        for _ in range(min(batches, len(self.undo))):
            for key, value in reversed(self.undo.pop()):
                if value is None:
                    self.items.pop(key, None)
                else:
                    self.items[key] = value


class Disk:
    """The local state of one host."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.world = cluster, cluster.world
        self.files: dict[tuple[str, int], Files] = {}
        self.full = False

    def lose_all(self) -> None:
        self.files.clear()

    def lose_last(self) -> None:
        for files in self.files.values():
            files.lose_last(self.world.random.choice((0, 0, 1, 1, 2, 5)))


class SimulatedStores:
    """Opens stores for one process; in the place of `RocksFactory`."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self.directory = process.name

    def open(self, table: str, partition: int) -> "SimulatedStore":
        files = self._disk.files.setdefault((table, partition), Files())
        holder = files.locked_by
        if holder is not None and holder.alive and holder is not self._process:
            raise StateError(table, partition, "locked by another process")
        files.locked_by = self._process
        return SimulatedStore(self._disk, files, self._process, (table, partition))

    def remove(self, table: str, partition: int) -> None:
        self._disk.files.pop((table, partition), None)


class SimulatedStore:
    """A `StateStore` over a simulated disk."""

    def __init__(self, disk: Disk, files: Files, process: Process, place: tuple[str, int]) -> None:
        self._disk, self._files, self._process, self._place = disk, files, process, place
        self._closed = False

    def _open(self) -> SortedDict:
        if self._closed:
            raise StateError(*self._place, "the store is closed")
        return self._files.items

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._open().get(key)
        return found

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        items = self._open()
        keys = list(items.irange(start, end, inclusive=(True, False), reverse=reverse))
        pairs = [(key, items[key]) for key in keys]  # a snapshot, as the real one gives
        yield from pairs

    def write(self, changes: WriteSet) -> None:
        self._open()
        if self._disk.full:
            raise StateError(*self._place, "no space left on device")
        if not self._process.before_effect():
            return
        self._files.write(changes)
        self._disk.cluster.last_change = self._disk.world.now
        self._disk.world.note("write", self._process.name, self._place, changes.puts_count, len(changes.deletes))
        self._process.after_effect()

    def size_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._files.items.items())

    def close(self) -> None:
        self._closed = True
        if self._files.locked_by is self._process:
            self._files.locked_by = None
