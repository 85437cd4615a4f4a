"""Epochs: which owner of a partition wrote a changelog record, and whether it still was the owner.

Whoever takes a partition over claims the next epoch by a record of its own before it writes anything else, and everything
that it writes carries that epoch. A record with a lower epoch behind a higher one comes from an owner that did not know yet
that it was replaced: nobody believes it. Compaction does, and would keep it in the place of what it overwrote; so the
owner says again what is true of that key.

A value ends with its epoch, which costs next to nothing to write and to read, and the same bytes lie in the changelog and in
the store. Checkpoints, of which there are few, and deletions, which have no value, carry it in a header.
"""

import struct
from collections.abc import Sequence
from typing import Protocol

from streamapp.state.entry import CHECKPOINT_KEY, EPOCH_BYTES, NO_EPOCH

#: the key of a claim, in the changelog only
EPOCH_KEY = b"e"
#: on checkpoints and deletions: whose they are
EPOCH_HEADER = "epoch"
#: in the store: the highest epoch seen, and keys whose last record in the changelog is not to be believed
EPOCH_SEEN_KEY = b"m:epoch"
DOUBTED_PREFIX = b"m:doubted:"
DOUBTED_END = b"m:doubted;"

_NUMBER = struct.Struct(">I")


class ChangelogRecord(Protocol):
    """One record of a changelog; the parsers of Kafka's clients give objects of this form."""

    @property
    def offset(self) -> int:
        """Its place in the changelog."""
        ...

    @property
    def key(self) -> bytes | None:
        """What it is about."""
        ...

    @property
    def value(self) -> bytes | None:
        """The new value; None deletes."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Who wrote it, where the value does not tell."""
        ...


def epoch_bytes(number: int) -> bytes:
    """An epoch as it is written; such bytes compare as the numbers do."""
    return _NUMBER.pack(number)


def epoch_number(raw: bytes) -> int:
    """The reverse of `epoch_bytes`."""
    number: int = _NUMBER.unpack(raw)[0]
    return number


def next_epoch(raw: bytes) -> bytes:
    """The epoch that a new owner claims where this is the highest one seen."""
    return _NUMBER.pack(epoch_number(raw) + 1)


def claim_value(epoch: bytes, owner: str) -> bytes:
    """The value of a claim; the owner's name is for people."""
    return owner.encode() + epoch


def epoch_of(record: ChangelogRecord) -> bytes:
    """Whose record it is."""
    value = record.value
    if value is None or record.key == CHECKPOINT_KEY:
        return next((raw for name, raw in record.headers if name == EPOCH_HEADER and raw is not None), NO_EPOCH)
    return value[-EPOCH_BYTES:]


def restamped(key: bytes, value: bytes, epoch: bytes) -> bytes:
    """The same value in the name of another epoch; a checkpoint's own bytes do not hold one."""
    return value if key == CHECKPOINT_KEY else value[:-EPOCH_BYTES] + epoch
