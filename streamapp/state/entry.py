"""One window's state, and how it, its key and the checkpoint are written down.

The changelog and the store hold the same bytes, so restoring copies them without looking inside.

Keys::

    d <key> 00 <start, 8 bytes>    a value           (start is 0 for tables without windows)
    t <start, 8 bytes> <key>       the same windows in order of time; in the store only, derived
    c                              the checkpoint

Starts are big-endian, so that a range of one key is in order of time. A zero byte inside a key is written as 00 FF, which
UTF-8 never holds; as starts begin with 00 themselves, no key's range then reaches into another key's.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

DATA, TIME, CHECKPOINT_KEY = b"d", b"t", b"c"
_START = struct.Struct(">Q")
_pack_start, _unpack_start = _START.pack, _START.unpack
_encode = msgspec.msgpack.Encoder().encode
_TAIL = _START.size + 1
#: beyond every start, and still within the range of its key
MAX_START = (1 << 56) - 1


#: an epoch is written as so many bytes
EPOCH_BYTES = 4
NO_EPOCH = bytes(EPOCH_BYTES)


class Entry:
    """The state of one (key, window).

    Attributes:
        offsets: per origin, the highest offset whose record is merged in; -1 where none is. An origin is a source topic,
            or, for a re-keyed table, a partition of the source.
        newest: the greatest event time merged in, milliseconds.
        state: the aggregate's slots.

    Most windows are written and then left alone, and as objects they take eight times what they take as bytes. So an entry
    may be packed: it holds the bytes in the place of its attributes, until somebody asks for one of them.
    """

    __slots__ = ("_packed", "newest", "offsets", "state")

    def __init__(self, offsets: list[int], newest: int, state: list[object]) -> None:
        self.offsets = offsets
        self.newest = newest
        self.state = state

    def encode(self, epoch: bytes = NO_EPOCH) -> bytes:
        """The bytes for changelog and store; the owner's epoch is the end of them."""
        return _encode((self.offsets, self.newest, self.state, epoch))

    def pack(self, raw: bytes) -> None:
        """Hold nothing but these bytes, which `encode` has made of it as it is now."""
        self._packed = raw
        del self.offsets, self.newest, self.state

    @property
    def is_packed(self) -> bool:
        """Whether it holds its bytes only."""
        return hasattr(self, "_packed")

    if not TYPE_CHECKING:  # else every misspelt name would be of type Any

        def __getattr__(self, name):
            # called only where there is no such attribute: what is not packed does not pay for it
            if name not in ("newest", "offsets", "state"):
                raise AttributeError(f"an entry has no {name}")
            self.offsets, self.newest, self.state, _ = _decode_entry(self._packed)
            del self._packed
            return getattr(self, name)

    @classmethod
    def decode(cls, raw: bytes) -> "Entry":
        """The reverse of `encode`; whose it is plays no part in what it says."""
        offsets, newest, state, _ = _decode_entry(raw)
        return cls(offsets, newest, state)


_decode_entry = msgspec.msgpack.Decoder(tuple[list[int], int, list[object], msgspec.Raw]).decode
_decode_offsets = msgspec.msgpack.Decoder(tuple[list[int], msgspec.Raw, msgspec.Raw, msgspec.Raw]).decode


def offsets_of(raw: bytes) -> list[int]:
    """The offsets of an encoded entry; nothing else of it is decoded."""
    return _decode_offsets(raw)[0]


#: from this byte on MessagePack writes small negative numbers, which would compare as the greatest
_NEGATIVE = 0xE0


def highest_offsets(values: Collection[bytes]) -> list[int]:
    """Per origin, the highest offset of all these encoded entries; at least one is given.

    With one origin nothing but the greatest is decoded: an entry begins with its offset, written in as few bytes as it
    needs behind a byte that grows with their number, so that bytes compare as the offsets do.
    """
    greatest = max(values)
    highest = _decode_offsets(greatest)[0]
    if len(highest) == 1 and greatest[2] < _NEGATIVE:
        return highest
    for raw in values:
        highest = list(map(max, highest, _decode_offsets(raw)[0]))
    return highest


def data_key(key: str, start: int) -> bytes:
    """The key of a value."""
    return b"d" + _escaped(key) + b"\x00" + _pack_start(start)


def _escaped(key: str) -> bytes:
    return key.encode() if "\x00" not in key else key.encode().replace(b"\x00", b"\x00\xff")


def _unescaped(raw: bytes) -> str:
    return raw.replace(b"\x00\xff", b"\x00").decode()


def split_data_key(raw: bytes) -> tuple[str, int]:
    """The reverse of `data_key`."""
    return _unescaped(raw[1:-_TAIL]), _unpack_start(raw[-_TAIL + 1 :])[0]


def first_data_key(key: str) -> bytes:
    """The smallest key of all values of this key and of those behind it."""
    return b"d" + _escaped(key)


def time_key(key: str, start: int) -> bytes:
    """The key of the index in order of time."""
    return b"t" + _pack_start(start) + _escaped(key)


def time_key_of(raw_data_key: bytes) -> bytes:
    """The index key that belongs to a value's key."""
    return b"t" + raw_data_key[-_TAIL + 1 :] + raw_data_key[1:-_TAIL]


def split_time_key(raw: bytes) -> tuple[str, int]:
    """The reverse of `time_key`."""
    return _unescaped(raw[1 + _START.size :]), _unpack_start(raw[1 : 1 + _START.size])[0]


def time_bound(start: int) -> bytes:
    """The smallest index key of all windows that begin at `start` or later."""
    return b"t" + _pack_start(max(start, 0))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a partition of a table has durably counted, written after the values that it speaks of.

    Attributes:
        offsets: per origin, the last offset whose record is in the values (or late, or a dead letter); -1: none.
        stream_times: per origin, the greatest event time seen; -1: none.
        closed: the final records of all windows that close at or before this stream time are out; -1: none. Those of
            windows that closed since follow this checkpoint, and are sent again where nothing tells that they are out.
        fingerprint: the table's definition.
        cluster_id: the Kafka cluster that the offsets belong to.
        topic_ids: per source topic, its id.
        committed: per source topic, the consumer group's position when this was written; -1: unknown.
        epoch: of the owner that wrote it.
        idle: the origins that hold no window open, as they said themselves.
        spoken: per origin, the offset up to which, exclusive, it has said whether it is silent; empty where none speaks.
    """

    offsets: Sequence[int]
    stream_times: Sequence[int]
    closed: int
    fingerprint: str
    cluster_id: str
    topic_ids: Sequence[str]
    committed: Sequence[int]
    epoch: int = 0
    idle: Sequence[int] = ()
    spoken: Sequence[int] = ()

    def encode(self) -> bytes:
        """The bytes for changelog and store."""
        return _encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> "Checkpoint":
        """The reverse of `encode`."""
        return _decode_checkpoint(raw)


_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode
