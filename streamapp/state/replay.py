"""A store that is brought up to date from its changelog.

The changelog holds the bytes that the store holds, so replaying copies them without looking inside: of each chunk of
records only the newest per key is kept, and a chunk becomes one atomic write together with the position behind it. A
crash between two chunks goes on from there.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from streamapp.state.entry import CHECKPOINT_KEY, highest_offsets, time_key_of
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, StateStore, WriteSet

#: the key of the record that a rebuild leaves at the beginning of a changelog
REBUILD_KEY = b"r"
_encode_offsets = msgspec.msgpack.Encoder().encode
_decode_offsets = msgspec.msgpack.Decoder(list[int]).decode


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
        """Who wrote it."""
        ...


class Replay:
    """Turns the records of one changelog partition, in their order, into changes of its store.

    Nothing else may write to the store meanwhile, and the changes must be written in the order in which they came.

    Args:
        store: where it stands is read from it.
        windowed: whether the store keeps the index in order of time.
        begin: the changelog's first offset, where the store has seen nothing of it.

    Attributes:
        position: the next offset to take.
        records: how many were taken.
    """

    def __init__(self, store: StateStore, *, windowed: bool, begin: int = 0) -> None:
        self._windowed = windowed
        raw = store.get(CHANGELOG_OFFSET_KEY)
        self.position = int(raw) + 1 if raw is not None else begin
        horizon = store.get(HORIZON_KEY)
        self._horizon = _decode_offsets(horizon) if horizon is not None else []
        self.records = 0

    def take(self, records: Iterable[ChangelogRecord], end: int) -> WriteSet:
        """What these records change, for one atomic write.

        Args:
            records: in order of offset; those below `position` were taken before and are left out by the caller.
            end: the offset behind the last one; beyond its own plus one where compaction left a gap.
        """
        newest: dict[bytes | None, bytes | None] = {}
        count = 0
        for count, record in enumerate(records, 1):  # noqa: B007 - the last number is wanted
            newest[record.key] = record.value
        self.records += count
        self.position = max(self.position, end)
        newest.pop(None, None)
        newest.pop(REBUILD_KEY, None)
        checkpoint = newest.pop(CHECKPOINT_KEY, None)
        changes = WriteSet()
        values: dict[bytes, bytes] = newest  # type: ignore[assignment] # what could be None is taken out here
        if None in newest.values():
            changes.deletes = [key for key, value in newest.items() if value is None]  # type: ignore[misc]
            for key in changes.deletes:
                del newest[key]
            if self._windowed:
                changes.deletes += [time_key_of(key) for key in changes.deletes]
        if values:
            self._raise_horizon(highest_offsets(values.values()))
            changes.puts.append((HORIZON_KEY, _encode_offsets(self._horizon)))
        if checkpoint is not None:
            changes.puts.append((CHECKPOINT_KEY, checkpoint))
        changes.bulk = values
        if self._windowed:
            changes.bulk |= dict.fromkeys(map(time_key_of, values), b"")
        changes.puts.append((CHANGELOG_OFFSET_KEY, b"%d" % (self.position - 1)))
        return changes

    def _raise_horizon(self, offsets: Sequence[int]) -> None:
        if len(self._horizon) != len(offsets):
            self._horizon = [-1] * len(offsets)
        self._horizon = [max(pair) for pair in zip(self._horizon, offsets, strict=True)]
