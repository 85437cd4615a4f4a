"""A store that is brought up to date from its changelog.

The changelog holds the bytes that the store holds, so replaying copies them without looking inside: of each chunk of
records only the newest per key is kept, and a chunk becomes one atomic write together with the position behind it. A
crash between two chunks goes on from there.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamapp.state.entry import CHECKPOINT_KEY, EPOCH_BYTES, NO_EPOCH, highest_offsets, time_key_of
from streamapp.state.epochs import (
    DOUBTED_END,
    DOUBTED_PREFIX,
    EPOCH_KEY,
    EPOCH_SEEN_KEY,
    ChangelogRecord,
    epoch_of,
)
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, KEY_COUNT_KEY, StateStore, WriteSet

#: the key of the record that a rebuild leaves at the beginning of a changelog
REBUILD_KEY = b"r"
_encode_offsets = msgspec.msgpack.Encoder().encode
_decode_offsets = msgspec.msgpack.Decoder(list[int]).decode


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
        epoch: the highest that was seen.
        doubted: keys whose last record came from an owner that had been replaced.
    """

    def __init__(self, store: StateStore, *, windowed: bool, begin: int = 0) -> None:
        self._windowed = windowed
        raw = store.get(CHANGELOG_OFFSET_KEY)
        self.position = int(raw) + 1 if raw is not None else begin
        horizon = store.get(HORIZON_KEY)
        self._horizon = _decode_offsets(horizon) if horizon is not None else []
        self.records = 0
        self.epoch = store.get(EPOCH_SEEN_KEY) or NO_EPOCH
        self.doubted = {key[len(DOUBTED_PREFIX) :] for key, _ in store.scan(DOUBTED_PREFIX, DOUBTED_END)}

    def take(self, records: Iterable[ChangelogRecord], end: int) -> WriteSet:
        """What these records change, for one atomic write.

        Args:
            records: in order of offset; those below `position` were taken before and are left out by the caller. They are
                gone through again where they are of several owners, so an iterator will not do.
            end: the offset behind the last one; beyond its own plus one where compaction left a gap.
        """
        newest: dict[bytes | None, bytes | None] = {}
        count = 0
        for count, record in enumerate(records, 1):  # noqa: B007 - the last number is wanted
            newest[record.key] = record.value
        newest.pop(None, None)
        newest.pop(REBUILD_KEY, None)
        self.records += count
        self.position = max(self.position, end)
        changes = WriteSet()
        values: dict[bytes, bytes | None] = newest  # type: ignore[assignment] # None is taken out
        if not self._of_one_owner(values, records):
            values = self._believed(records, changes)
        changes.puts.append((EPOCH_SEEN_KEY, self.epoch))
        checkpoint = values.pop(CHECKPOINT_KEY, None)
        if None in values.values():
            gone = [key for key, value in values.items() if value is None]
            for key in gone:
                del values[key]
            changes.deletes += gone
            if self._windowed:
                changes.deletes += [time_key_of(key) for key in gone]
        changes.bulk = values  # type: ignore[assignment] # nothing in it is None any more
        if values:
            self._raise_horizon(highest_offsets(changes.bulk.values()))
            changes.puts.append((HORIZON_KEY, _encode_offsets(self._horizon)))
        if checkpoint is not None:
            changes.puts.append((CHECKPOINT_KEY, checkpoint))
        if self._windowed:
            changes.bulk |= dict.fromkeys(map(time_key_of, values), b"")
        if changes.bulk or changes.deletes:
            changes.deletes.append(KEY_COUNT_KEY)  # counted anew when all is there
        changes.puts.append((CHANGELOG_OFFSET_KEY, b"%d" % (self.position - 1)))
        return changes

    def _of_one_owner(self, newest: Mapping[bytes, bytes | None], records: Iterable[ChangelogRecord]) -> bool:
        """Whether all of this is of one epoch, not below those seen, so that its order tells what is true.

        What hides behind a newer record of the same key does not matter.
        """
        if self.doubted or EPOCH_KEY in newest:
            return False
        epochs = {value[-EPOCH_BYTES:] for value in newest.values() if value is not None}
        if CHECKPOINT_KEY in newest or None in newest.values():
            # these tell it in a header; a checkpoint's own bytes end with something else
            told = {record.key: record for record in records if record.value is None or record.key == CHECKPOINT_KEY}
            epochs = {
                value[-EPOCH_BYTES:] for key, value in newest.items() if value is not None and key != CHECKPOINT_KEY
            }
            epochs |= {epoch_of(told[key]) for key, value in newest.items() if value is None or key == CHECKPOINT_KEY}
        if len(epochs) > 1 or min(epochs, default=self.epoch) < self.epoch:
            return False
        self.epoch = max(epochs, default=self.epoch)
        return True

    def _believed(self, records: Iterable[ChangelogRecord], changes: WriteSet) -> dict[bytes, bytes | None]:
        """The newest of what owners wrote while they were owners; what came from others is noted as doubted."""
        newest: dict[bytes, bytes | None] = {}
        doubted = set(self.doubted)
        for record in records:
            key = record.key
            if key is None or key == REBUILD_KEY:
                continue
            epoch = epoch_of(record)
            if epoch >= self.epoch:
                self.epoch = epoch
                if key != EPOCH_KEY:
                    newest[key] = record.value
                    doubted.discard(key)
            elif key != EPOCH_KEY:
                doubted.add(key)
        changes.puts += [(DOUBTED_PREFIX + key, b"") for key in sorted(doubted - self.doubted)]
        changes.deletes += [DOUBTED_PREFIX + key for key in sorted(self.doubted - doubted)]
        self.doubted = doubted
        return newest

    def _raise_horizon(self, offsets: Sequence[int]) -> None:
        if len(self._horizon) != len(offsets):
            self._horizon = [-1] * len(offsets)
        self._horizon = [max(pair) for pair in zip(self._horizon, offsets, strict=True)]
