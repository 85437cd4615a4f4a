"""A store that is brought up to date from its changelog.

The changelog holds the bytes that the store holds, so replaying copies them without looking inside: of each chunk of
records only the newest per key is kept, and a chunk becomes one atomic write together with the position behind it. A
crash between two chunks goes on from there.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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
#: keys that are not those of values
_SPECIAL = frozenset({CHECKPOINT_KEY, EPOCH_KEY})
_encode_offsets = msgspec.msgpack.Encoder().encode
_decode_offsets = msgspec.msgpack.Decoder(list[int]).decode
#: what `epoch_of` says of a value, at the pace of compiled code
_epoch_at_end: Callable[[Any], bytes] = operator.itemgetter(slice(-EPOCH_BYTES, None))


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
        deletions: dict[bytes | None, ChangelogRecord] = {}
        special: list[ChangelogRecord] = []
        count = 0
        for record in records:
            count += 1
            key, value = record.key, record.value
            newest[key] = value
            if key in _SPECIAL:
                special.append(record)
            elif value is None:
                deletions[key] = record
        newest.pop(None, None)
        newest.pop(REBUILD_KEY, None)
        self.records += count
        self.position = max(self.position, end)
        changes = WriteSet()
        values: dict[bytes, bytes | None] = newest  # type: ignore[assignment] # None is taken out
        checkpoint = values.pop(CHECKPOINT_KEY, None)
        if self._of_one_owner(values, deletions, special):
            values.pop(EPOCH_KEY, None)
        else:
            values = self._believed(records, changes)
            checkpoint = values.pop(CHECKPOINT_KEY, None)
        changes.puts.append((EPOCH_SEEN_KEY, self.epoch))
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

    def _of_one_owner(
        self,
        newest: Mapping[bytes, bytes | None],
        deletions: Mapping[bytes | None, ChangelogRecord],
        special: Sequence[ChangelogRecord],
    ) -> bool:
        """Whether all of this is of one epoch, not below those seen, so that its order tells what is true.

        What hides behind a newer record of the same key does not matter.

        Args:
            newest: the last value per key, without the checkpoint's; a claim ends with its epoch as every value does.
            deletions: the last one of each value that has any.
            special: checkpoints and claims, in their order.
        """
        if self.doubted or sum(record.key == EPOCH_KEY for record in special) > 1:
            return False
        values: Iterable[bytes | None] = newest.values()
        if deletions:
            values = [value for value in values if value is not None]
        epochs = set(map(_epoch_at_end, values))
        # deletions and checkpoints tell it in a header
        told = [record for key, record in deletions.items() if key is not None and newest.get(key, b"") is None]
        told += [record for record in special if record.key == CHECKPOINT_KEY]
        epochs |= set(map(epoch_of, told))
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
