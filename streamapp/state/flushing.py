"""What one checkpoint of a partition writes: taken out of the state as bytes, and put back as knowledge once it is written.

A flush is bounded: at most so many closed windows bring their final records, and so many are deleted past retention. What
is left is in the next one, which follows at once (`PartitionState.behind`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from streamapp.errors import StateError
from streamapp.state.batch import FinalWindow, FlushPlan
from streamapp.state.entry import (
    CHECKPOINT_KEY,
    Checkpoint,
    Entry,
    data_key,
    split_data_key,
    split_time_key,
    time_bound,
    time_key,
)
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, WriteSet
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState

#: windows past retention that one flush deletes at most, so that a flush stays short
EXPIRE_MAX_PER_FLUSH = 5_000
#: final records that one flush sends at most, so that what it holds in memory is bounded
FINALS_MAX_PER_FLUSH = 20_000
_encode_offsets = msgspec.msgpack.Encoder().encode


class Flushing:
    """Plans and completes the flushes of one partition, one at a time.

    Attributes:
        entry_bytes: what an entry of the last plan took up, on average.
        in_flight: how many entries the plan that is being written holds; they cannot leave memory meanwhile.
        taken: how many entries all plans so far held.
        behind: whether closed windows were left for the next flush.
        unconfirmed: whether final records went out that no checkpoint knows of yet.
    """

    def __init__(self, state: "PartitionState") -> None:
        self._state = state
        self.entry_bytes = 128
        self.in_flight = 0
        self.taken = 0
        self.behind = False
        self.unconfirmed = False
        self._reached: tuple[int, str] | None = None  # start and key up to which the oldest closed windows are out

    def plan(self, cluster_id: str, topic_ids: Sequence[str], committed: Sequence[int]) -> FlushPlan | None:
        """See `PartitionState.prepare_flush`."""
        state = self._state
        self._check_whole()
        durable = min(state.checkpoint.stream_times) if state.checkpoint is not None else -1
        if not self._any_closed(durable):
            # all final records are out; after a crash between them and the next checkpoint nothing else would tell
            state.closed = max(state.closed, durable)
        # only windows whose final records are out, by a watermark that is durable
        expired = self._expired(state.closed) if state.checkpoint is not None else []
        if not self._worth(expired, topic_ids):
            return None
        changes = WriteSet()
        epoch, dirty = state.epoch, state.dirty
        values = {data_key(key, start): entry.encode(epoch) for (key, start), entry in dirty.items()}
        if values:
            self.entry_bytes = sum(map(len, values.values())) // len(values) + 48
        changes.bulk = values
        state.dirty = {}
        self.in_flight = len(values)
        self.taken += len(values)
        deleted = [*state.tombstones, *expired]
        state.tombstones = {}
        tombstones = [data_key(key, start) for key, start in deleted]
        changes.deletes += tombstones
        changes.deletes += [time_key(key, start) for key, start in deleted]
        finals, closed = self._take_closed(state.watermark)
        for entry, raw in zip(dirty.values(), values.values(), strict=True):
            entry.pack(raw)  # not before final records have been made of those that are closed now
        state.index.plan(changes, deleted)
        checkpoint = Checkpoint(
            offsets=tuple(state.applied),
            stream_times=tuple(state.stream_times),
            closed=state.closed,
            fingerprint=state.definition.fingerprint,
            cluster_id=cluster_id,
            topic_ids=tuple(topic_ids),
            committed=tuple(committed),
            idle=tuple(sorted(state.idle)),
            spoken=tuple(state.spoken) if any(state.spoken) else (),
        )
        changes.puts.append((CHECKPOINT_KEY, checkpoint.encode()))
        late, state.late = state.late, []
        return FlushPlan(values, tombstones, finals, late, checkpoint, changes, closed, len(expired), expired)

    def _check_whole(self) -> None:
        if self._state.applying:
            name, partition = self._state.definition.name, self._state.partition
            raise StateError(
                name,
                partition,
                f"table {name}, partition {partition}: a batch failed half-way; nothing of it is written, start the "
                "worker again to take it up from the last checkpoint",
            )

    def _worth(self, expired: Sequence[tuple[str, int]], topic_ids: Sequence[str]) -> bool:
        """Whether there is anything that the last checkpoint does not know."""
        state, durable = self._state, self._state.checkpoint
        if durable is None:
            # stream times alone may be worth it: of a re-keyed table they come where no record does
            return bool(state.dirty or state.late or state.idle) or max(*state.applied, *state.stream_times) >= 0
        return (
            bool(state.dirty or state.tombstones or state.late or expired)
            or self.unconfirmed
            or self._any_closed(state.watermark)
            or list(durable.offsets) != state.applied
            or list(durable.stream_times) != state.stream_times
            or set(durable.idle) != state.idle
            or list(durable.topic_ids) != list(topic_ids)
        )

    def write(self, plan: FlushPlan, changelog_offset: int) -> None:
        """See `PartitionState.write_flush`."""
        state, offsets = self._state, plan.checkpoint.offsets
        state.changelog_offset = changelog_offset
        plan.changes.puts.append((CHANGELOG_OFFSET_KEY, b"%d" % changelog_offset))
        if any(reached <= applied for reached, applied in zip(state.horizon, offsets, strict=True)):
            state.horizon = [
                -1 if reached <= applied else reached for reached, applied in zip(state.horizon, offsets, strict=True)
            ]
            plan.changes.puts.append((HORIZON_KEY, _encode_offsets(state.horizon)))
        state.store.write(plan.changes)

    def finish(self, plan: FlushPlan) -> None:
        """See `PartitionState.finish_flush`."""
        state = self._state
        state.checkpoint = plan.checkpoint
        state.closed = plan.closed
        self.in_flight = 0
        state.index.written()
        self.unconfirmed = bool(plan.finals)
        for raw_key in plan.tombstones:
            state.hidden.discard(split_data_key(raw_key))
        for key, start in plan.evictable:
            state.drop_cached(key, start)
        state.evict()

    # --- closing and deleting ------------------------------------------------------------------------------------------

    def _any_closed(self, watermark: int) -> bool:
        state, window = self._state, self._state.window
        if state.sessions is not None:
            return state.sessions.any_closed(watermark)
        return window is not None and any(window.closes_at(start) <= watermark for start in state.open)  # type: ignore[union-attr]

    def _take_closed(self, watermark: int) -> tuple[list[FinalWindow], int]:
        """The windows whose final records this flush sends, in order of start and key.

        Returns:
            They, and the stream time up to which all final records are out then.
        """
        state, window = self._state, self._state.window
        reached = max(state.closed, watermark)
        finals: list[FinalWindow] = []
        if window is None:
            return finals, reached
        if isinstance(window, Session):
            assert state.sessions is not None
            for key, start in state.sessions.take_closed(watermark):
                self._finish_window(finals, key, start)
            return finals, reached
        self.behind = False
        for start in sorted(start for start in state.open if window.closes_at(start) <= watermark):
            after = self._reached[1] if self._reached is not None and self._reached[0] == start else None
            for key in state.index.keys_at(start, after):
                if len(finals) >= FINALS_MAX_PER_FLUSH:
                    self.behind = True
                    return finals, max(state.closed, window.closes_at(start) - 1)
                self._finish_window(finals, key, start)
                self._reached = start, key
            state.index.close(start)
            self._reached = None
        return finals, reached

    def _finish_window(self, finals: list[FinalWindow], key: str, start: int) -> None:
        state = self._state
        entry = state.peek(key, start)
        if entry is None:
            return
        end = state.end_of(start, entry)
        if state.aggregate.visible(entry.state):
            finals.append(FinalWindow(key, start, end, state.aggregate.result(entry.state, (start, end))))

    def _expired(self, closed: int) -> list[tuple[str, int]]:
        """Windows past retention at this stream time, oldest first, a bounded number."""
        state, window = self._state, self._state.window
        if window is None or closed < 0:
            return []
        found: list[tuple[str, int]] = []
        # no session ends before it starts, so for sessions this bound only narrows the search
        first_kept = (
            closed - window.retention_ms + 1 if isinstance(window, Session) else window.first_kept_start(closed)
        )
        if first_kept <= 0:
            return []
        for raw, _ in state.store.scan(b"t", time_bound(first_kept)):
            key, start = split_time_key(raw)
            if isinstance(window, Session):
                value = state.store.get(data_key(key, start))
                if value is None or window.expires_at_end(Entry.decode(value).newest + window.gap_ms) > closed:
                    continue
            found.append((key, start))
            if len(found) >= EXPIRE_MAX_PER_FLUSH:
                break
        return found
