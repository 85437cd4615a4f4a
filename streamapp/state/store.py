"""What the state needs of a store, and a store in memory for tests and for drivers without a disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from sortedcontainers import SortedDict

CHANGELOG_OFFSET_KEY = b"m:changelog_offset"
HORIZON_KEY = b"m:horizon"
IDENTITY_KEY = b"m:identity"
KEY_COUNT_KEY = b"m:key_count"


@dataclass(slots=True)
class WriteSet:
    """Puts and deletes that become visible all at once, or not at all; deletes come last.

    Attributes:
        puts: pairs, in the order in which they are written.
        deletes: keys.
        bulk: further puts, of other keys than `puts`; no pair is built for each, so large sets burden no collector.
        marks: further keys, of which only that they are there is to be known: they are put with an empty value.
    """

    puts: list[tuple[bytes, bytes]] = field(default_factory=list)
    deletes: list[bytes] = field(default_factory=list)
    bulk: dict[bytes, bytes] = field(default_factory=dict)
    marks: list[bytes] = field(default_factory=list)

    @property
    def puts_count(self) -> int:
        """How many keys are put."""
        return len(self.puts) + len(self.bulk) + len(self.marks)


class StateStore(Protocol):
    """An ordered map of bytes to bytes that writes atomically."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        ...

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < end, in order of key, backwards where asked; as of the moment of the first step."""
        ...

    def write(self, changes: WriteSet) -> None:
        """Apply all changes, or none; raises StateError where the disk refuses."""
        ...

    def size_bytes(self) -> int:
        """Roughly how much the store takes up."""
        ...

    def close(self) -> None:
        """Release files and locks; the store cannot be used afterwards."""
        ...


class MemoryStore:
    """A store that forgets everything when it goes."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._items: SortedDict[bytes, bytes] = SortedDict(items)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        return self._items.get(key)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < end, in order of key; a snapshot of the moment of the first step."""
        found = self._items.irange(start, end, inclusive=(True, False), reverse=reverse)
        yield from [(key, self._items[key]) for key in found]

    def write(self, changes: WriteSet) -> None:
        """Apply all changes."""
        self._items.update(changes.bulk)
        self._items.update(changes.puts)
        self._items.update(dict.fromkeys(changes.marks, b""))
        for key in changes.deletes:
            self._items.pop(key, None)

    def size_bytes(self) -> int:
        """The sum of all keys and values."""
        return sum(len(key) + len(value) for key, value in self._items.items())

    def close(self) -> None:
        """Nothing to release."""
