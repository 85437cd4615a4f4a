"""The state of one partition of one table: a cache of windows over a store, exact whatever is replayed.

The rules (each has a test):

- A record counts once. Records at or below the checkpoint's offset are skipped as a whole; between that and the horizon
  (the highest offset that a value restored from the changelog has seen) each value's own offset decides.
- Lateness is judged record by record, in order of offset, against the greatest event time that the record's own origin
  has shown so far, so a replay judges as the first run did, however the origins' records interleave.
- A window is closed when the watermark (the least of the origins' greatest times) reaches its end plus the grace; every
  origin has passed it then, so nothing changes it any more.
- Nothing reaches the store before the changelog has acknowledged it: `prepare_flush` makes a snapshot of bytes, the
  caller sends it, and `complete_flush` writes it. Merging goes on in between.

Everything here is synchronous and free of I/O but for the store, so that it can be driven by a test or a simulation.
"""

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

import msgspec

from streamapp.errors import DefinitionChangedError, StateError
from streamapp.state.batch import Applied, Batch, FinalWindow, FlushPlan, LateRecord
from streamapp.state.definition import TableDefinition
from streamapp.state.entry import (
    CHECKPOINT_KEY,
    MAX_START,
    NO_EPOCH,
    Checkpoint,
    Entry,
    data_key,
    split_data_key,
    split_time_key,
    time_bound,
    time_key,
)
from streamapp.state.lanes import merge_columns, merge_records
from streamapp.state.sessions import SessionLane
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, StateStore, WriteSet
from streamapp.windows.aggregate import Aggregate
from streamapp.windows.sessions import Session

#: from this many records on, the column lane is faster than the record lane (benchmarks/lanes.py)
COLUMN_LANE_MIN_RECORDS = 192
#: windows past retention that one flush deletes at most, so that a flush stays short
EXPIRE_MAX_PER_FLUSH = 5_000

ChangeListener = Callable[[str, int], None]
_offsets_encode = msgspec.msgpack.Encoder().encode
_offsets_decode = msgspec.msgpack.Decoder(list[int]).decode


class PartitionState:
    """One partition of a table: `apply` batches, `prepare_flush` / `complete_flush`, and read.

    Args:
        definition: the table.
        partition: its number, for messages.
        store: what was restored so far; owned by this object from now on.
        origins: how many origins the offsets have (sources, or partitions of a re-keyed table's source).
        cache_max_entries: clean entries beyond this leave memory after a flush.

    Raises:
        DefinitionChangedError: the stored checkpoint was written by another definition.
    """

    def __init__(
        self,
        definition: TableDefinition,
        partition: int,
        store: StateStore,
        *,
        origins: int = 1,
        cache_max_entries: int = 200_000,
    ) -> None:
        self.definition = definition
        self.partition = partition
        self.store = store
        self.origins = origins
        self.window = definition.window
        self.aggregate = definition.aggregate
        self.on_change: ChangeListener | None = None
        self.epoch = NO_EPOCH  # the owner's; part of every value
        self.late: list[LateRecord] = []
        self.cache: dict[str, dict[int, Entry]] = {}
        self.dirty: dict[tuple[str, int], Entry] = {}
        self.dirty_bytes = 0  # a rough figure: entries times their last encoded size
        self.hidden: set[tuple[str, int]] = set()  # covered sessions that the store still holds
        self.lane_keys: dict[int, str] = {}  # per source, by what partials can be shared with other tables
        self.open: dict[int, set[str]] = {}  # start -> keys of windows that are not closed
        self._cache_max_entries = cache_max_entries
        self._cached = 0
        self._new: set[tuple[str, int]] = set()
        self._keys: dict[str, None] = {}
        # where an aggregate can hide a key, those that readers see are kept apart
        self._shown: dict[str, None] | None = {} if type(self.aggregate).visible is not Aggregate.visible else None
        self._sorted_keys: list[str] | None = None
        self._tombstones: dict[tuple[str, int], None] = {}
        self._entry_bytes = 128
        self._applying = False
        self._finals_unconfirmed = False  # final records went out that no checkpoint knows of yet

        raw = store.get(CHECKPOINT_KEY)
        self.checkpoint = Checkpoint.decode(raw) if raw is not None else None
        if self.checkpoint is not None:
            self._check_definition(self.checkpoint)
            self.applied = list(self.checkpoint.offsets)
            self.stream_times = list(self.checkpoint.stream_times)
            self.closed = self.checkpoint.closed
        else:
            self.applied = [-1] * origins
            self.stream_times = [-1] * origins
            self.closed = -1
        horizon = store.get(HORIZON_KEY)
        self.horizon = _offsets_decode(horizon) if horizon is not None else [-1] * origins
        changelog = store.get(CHANGELOG_OFFSET_KEY)
        self.changelog_offset = int(changelog) if changelog is not None else -1
        self.sessions = SessionLane(self) if isinstance(self.window, Session) else None
        self._load_index()

    def _check_definition(self, checkpoint: Checkpoint) -> None:
        name = self.definition.name
        if checkpoint.fingerprint != self.definition.fingerprint or len(checkpoint.offsets) != self.origins:
            raise DefinitionChangedError(
                name,
                self.partition,
                f"table {name}: its stored state was built by another definition (window, aggregate, time, key or sources "
                f"changed). Either restore the old definition, or rebuild it: streamapp tables rebuild {name}",
            )

    # --- time ------------------------------------------------------------------------------------------------------

    @property
    def watermark(self) -> int:
        """Stream time: the greatest event time seen, the least of it over origins; -1 before every origin has been seen."""
        return min(self.stream_times)

    def end_of(self, start: int, entry: Entry) -> int:
        """Where a window ends (exclusive)."""
        window = self.window
        if window is None:
            return start
        if isinstance(window, Session):
            return entry.newest + window.gap_ms
        return window.end_of(start)

    def is_final(self, start: int, entry: Entry) -> bool:
        """Whether the watermark has passed the window's end and grace."""
        window = self.window
        return window is not None and self.end_of(start, entry) + window.grace_ms <= self.watermark

    def is_expired(self, start: int, entry: Entry) -> bool:
        """Whether retention is over, deleted yet or not."""
        window = self.window
        if window is None:
            return False
        if isinstance(window, Session):
            return window.expires_at_end(entry.newest + window.gap_ms) <= self.watermark
        return window.expires_at(start) <= self.watermark

    def advance_idle(self, origin: int) -> bool:
        """Close the open windows of an idle origin; True where that changed the watermark.

        The stream time moves to where every window that is open now is closed, but never past the other origins', and is
        part of the next checkpoint, so that a replay judges alike. Nothing happens while records are missing that restored
        values have counted: they would come back late.
        """
        if self.horizon[origin] > self.applied[origin]:
            return False
        others = [time for index, time in enumerate(self.stream_times) if index != origin]
        if others:
            target = max(others)
        else:
            window = self.window
            if window is None or isinstance(window, Session) or not self.open:
                target = self.sessions.last_close() if self.sessions is not None else -1
            else:
                target = window.closes_at(max(self.open))
        if target <= self.stream_times[origin]:
            return False
        self.stream_times[origin] = target
        return True

    # --- merging ---------------------------------------------------------------------------------------------------

    def apply(self, batch: Batch) -> Applied:
        """Merge a batch. Records at or below what is already applied are skipped; late ones are set aside in `late`."""
        origin = batch.origin
        self._applying = True
        outcome = Applied()
        first = bisect_right(batch.offsets, self.applied[origin]) if batch.offsets else 0
        outcome.repeated = first
        if first < len(batch.offsets):
            if self.sessions is not None:
                self.sessions.merge(batch, first, outcome)
            elif (
                len(batch.offsets) - first >= COLUMN_LANE_MIN_RECORDS
                and batch.offsets[first] > self.horizon[origin]
                and not self.aggregate.ordered
                and merge_columns(self, batch, first, outcome)
            ):
                pass
            else:
                merge_records(self, batch, range(first, len(batch.offsets)), outcome)
        if batch.end > self.applied[origin]:
            self.applied[origin] = batch.end
        self._applying = False
        return outcome

    def entry(self, key: str, start: int) -> Entry:
        """The entry of a window: from the cache, the store, or new."""
        windows = self.cache.get(key)
        if windows is None:
            windows = self.cache[key] = {}
        else:
            found = windows.get(start)
            if found is not None:
                return found
        raw = self.store.get(data_key(key, start)) if key in self._keys and (key, start) not in self.hidden else None
        if raw is not None:
            entry = Entry.decode(raw)
        else:
            entry = Entry([-1] * self.origins, -1, self.aggregate.initial())
            self.register(key, start)
        windows[start] = entry
        self._cached += 1
        return entry

    def register(self, key: str, start: int) -> None:
        """Note a window that the store does not know yet."""
        if key not in self._keys:
            self._keys[key] = None
            self._sorted_keys = None
        if self.window is not None:
            self._new.add((key, start))
            if self.sessions is None:
                self.open.setdefault(start, set()).add(key)

    def discard_empty(self, key: str, start: int, entry: Entry) -> None:
        """Forget a window again that no record has made it into."""
        if entry.newest >= 0:
            return
        self._new.discard((key, start))
        keys = self.open.get(start)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self.open[start]
        self._drop_cached(key, start)

    def cache_entry(self, key: str, start: int, entry: Entry) -> None:
        """Put an entry into the cache."""
        self.cache.setdefault(key, {})[start] = entry
        self._cached += 1

    def forget(self, key: str, start: int) -> None:
        """Drop a window that another one now covers: from the cache at once, from changelog and store by a tombstone."""
        if self.cache.get(key, {}).pop(start, None) is not None:
            self._cached -= 1
        self.dirty.pop((key, start), None)
        self._new.discard((key, start))
        self.hidden.add((key, start))
        self._tombstones[key, start] = None

    def revive(self, key: str, start: int) -> None:
        """A window that was to be forgotten exists again under the same start."""
        self.hidden.discard((key, start))
        self._tombstones.pop((key, start), None)

    def touch(self, key: str, start: int, entry: Entry) -> None:
        """Mark an entry as changed."""
        self.dirty[key, start] = entry
        if self._shown is not None and key not in self._shown and self.aggregate.visible(entry.state):
            self._shown[key] = None
            self._sorted_keys = None
        if self.on_change is not None:
            self.on_change(key, start)

    @property
    def pending_bytes(self) -> int:
        """Roughly how many bytes the next flush writes."""
        return len(self.dirty) * self._entry_bytes

    # --- flushing --------------------------------------------------------------------------------------------------

    def prepare_flush(self, cluster_id: str, topic_ids: Sequence[str], committed: Sequence[int]) -> FlushPlan | None:
        """A snapshot of all that is not durable yet; None where there is nothing.

        Call `complete_flush` once all of it is acknowledged, before the next `prepare_flush`. If sending fails, stop the
        worker: what was taken out here would be missing from the next plan.

        Raises:
            StateError: a batch broke half-way, so the values are ahead of the offset that would be written with them.
        """
        if self._applying:
            name = self.definition.name
            raise StateError(
                name,
                self.partition,
                f"table {name}, partition {self.partition}: a batch failed half-way; nothing of it is written, start the "
                "worker again to take it up from the last checkpoint",
            )
        watermark = self.watermark
        durable = self.checkpoint
        # only windows whose final records are out, by a watermark that is durable
        expired = self._expired(self.closed) if durable is not None else []
        if (
            durable is not None
            and not (self.dirty or self._tombstones or self.late or expired)
            and not self._finals_unconfirmed
            and not self._any_closed(watermark)
            and list(durable.offsets) == self.applied
            and list(durable.stream_times) == self.stream_times
            and list(durable.topic_ids) == list(topic_ids)
        ):
            return None
        if durable is None and not self.dirty and not self.late and all(offset < 0 for offset in self.applied):
            return None

        changes = WriteSet()
        values: list[tuple[bytes, bytes]] = []
        for (key, start), entry in self.dirty.items():
            values.append((data_key(key, start), entry.encode(self.epoch)))
        if values:
            self._entry_bytes = (sum(len(raw) for _, raw in values) // len(values)) + 48
        changes.puts.extend(values)
        changes.puts.extend((time_key(key, start), b"") for key, start in self._new)
        self.dirty, self._new = {}, set()

        tombstones: list[bytes] = []
        for key, start in [*self._tombstones, *expired]:
            raw_key = data_key(key, start)
            tombstones.append(raw_key)
            changes.deletes += (raw_key, time_key(key, start))
        self._tombstones = {}

        finals = self._take_closed(watermark)
        checkpoint = Checkpoint(
            offsets=tuple(self.applied),
            stream_times=tuple(self.stream_times),
            closed=self.closed,
            fingerprint=self.definition.fingerprint,
            cluster_id=cluster_id,
            topic_ids=tuple(topic_ids),
            committed=tuple(committed),
        )
        changes.puts.append((CHECKPOINT_KEY, checkpoint.encode()))
        late, self.late = self.late, []
        closed = max(self.closed, watermark)
        return FlushPlan(values, tombstones, finals, late, checkpoint, changes, closed, len(expired), list(expired))

    def complete_flush(self, plan: FlushPlan, changelog_offset: int) -> None:
        """Write an acknowledged plan to the store, in one atomic step, with the checkpoint's offset in the changelog."""
        self.write_flush(plan, changelog_offset)
        self.finish_flush(plan)

    def write_flush(self, plan: FlushPlan, changelog_offset: int) -> None:
        """The part of `complete_flush` that writes; it may run in a thread while batches are applied and reads answered."""
        self.changelog_offset = changelog_offset
        plan.changes.puts.append((CHANGELOG_OFFSET_KEY, str(changelog_offset).encode()))
        if any(reached <= applied for reached, applied in zip(self.horizon, plan.checkpoint.offsets, strict=True)):
            self.horizon = [
                -1 if reached <= applied else reached
                for reached, applied in zip(self.horizon, plan.checkpoint.offsets, strict=True)
            ]
            plan.changes.puts.append((HORIZON_KEY, _offsets_encode(self.horizon)))
        self.store.write(plan.changes)

    def finish_flush(self, plan: FlushPlan) -> None:
        """The part of `complete_flush` that changes what is in memory; on the thread that applies and reads."""
        self.checkpoint = plan.checkpoint
        self.closed = plan.closed
        self._finals_unconfirmed = bool(plan.finals)
        for raw_key in plan.tombstones:
            self.hidden.discard(split_data_key(raw_key))
        for key, start in plan.evictable:
            self._drop_cached(key, start)
        if self._cached > self._cache_max_entries:
            self._evict()

    def _any_closed(self, watermark: int) -> bool:
        window = self.window
        if self.sessions is not None:
            return self.sessions.any_closed(watermark)
        return window is not None and any(window.closes_at(start) <= watermark for start in self.open)  # type: ignore[union-attr]

    def _take_closed(self, watermark: int) -> list[FinalWindow]:
        window = self.window
        if window is None:
            return []
        finals: list[FinalWindow] = []
        if self.sessions is not None:
            closed = self.sessions.take_closed(watermark)
        else:
            assert not isinstance(window, Session)
            starts = sorted(start for start in self.open if window.closes_at(start) <= watermark)
            closed = [(key, start) for start in starts for key in sorted(self.open.pop(start))]
        for key, start in closed:
            entry = self.entry(key, start)
            end = self.end_of(start, entry)
            if self.aggregate.visible(entry.state):
                finals.append(FinalWindow(key, start, end, self.aggregate.result(entry.state, (start, end))))
        return finals

    def _expired(self, closed: int) -> list[tuple[str, int]]:
        """Windows past retention at this stream time, oldest first, a bounded number."""
        window = self.window
        if window is None or closed < 0:
            return []
        found: list[tuple[str, int]] = []
        # no session ends before it starts, so for sessions this bound only narrows the search
        first_kept = (
            closed - window.retention_ms + 1 if isinstance(window, Session) else window.first_kept_start(closed)
        )
        if first_kept <= 0:
            return []
        for raw, _ in self.store.scan(b"t", time_bound(first_kept)):
            key, start = split_time_key(raw)
            if isinstance(window, Session):
                value = self.store.get(data_key(key, start))
                if value is None or window.expires_at_end(Entry.decode(value).newest + window.gap_ms) > closed:
                    continue
            found.append((key, start))
            if len(found) >= EXPIRE_MAX_PER_FLUSH:
                break
        return found

    def _drop_cached(self, key: str, start: int) -> None:
        windows = self.cache.get(key)
        if windows is not None and windows.pop(start, None) is not None:
            self._cached -= 1
            if not windows:
                del self.cache[key]
        stored = self.store.scan(data_key(key, 0), data_key(key, MAX_START))
        if key not in self.cache and next(stored, None) is None:
            self._keys.pop(key, None)
            if self._shown is not None:
                self._shown.pop(key, None)
            self._sorted_keys = None

    def _evict(self) -> None:
        """Drop clean entries, those of closed windows first; all of them are in the store."""
        for keep_open in (True, False):
            for key in list(self.cache):
                windows = self.cache[key]
                for start in list(windows):
                    if (key, start) in self.dirty or (keep_open and key in self.open.get(start, ())):
                        continue
                    if self.sessions is not None and self.sessions.is_open(key, start):
                        continue
                    del windows[start]
                    self._cached -= 1
                if not windows:
                    del self.cache[key]
                if self._cached <= self._cache_max_entries // 2:
                    return

    # --- restoring -------------------------------------------------------------------------------------------------

    def _load_index(self) -> None:
        """Learn from the store which keys there are and which windows are still open."""
        window = self.window
        for key, _ in self._distinct_keys():
            self._keys[key] = None
        if self._shown is not None:
            self._shown.update(
                (key, None) for key in self._keys if next(self.windows(key, 0, MAX_START), None) is not None
            )
        if window is None:
            return
        if self.sessions is not None:
            self.sessions.load()
            return
        assert not isinstance(window, Session)
        first_open = window.first_open_start(self.closed) if self.closed >= 0 else 0
        for raw, _ in self.store.scan(time_bound(first_open), b"u"):
            key, start = split_time_key(raw)
            self.open.setdefault(start, set()).add(key)

    def _distinct_keys(self) -> Iterator[tuple[str, int]]:
        """Each key once, by skipping from key to key instead of reading every window."""
        position = b"d"
        while True:
            found = next(self.store.scan(position, b"e"), None)
            if found is None:
                return
            key, start = split_data_key(found[0])
            yield key, start
            position = data_key(key, MAX_START)

    # --- reading ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """All keys that readers see, sorted. The list is shared: do not change it."""
        if self._sorted_keys is None:
            self._sorted_keys = sorted(self._keys if self._shown is None else self._shown)
        return self._sorted_keys

    @property
    def key_count(self) -> int:
        """How many keys readers see."""
        return len(self._keys if self._shown is None else self._shown)

    @property
    def cached_entries(self) -> int:
        """How many entries are in memory."""
        return self._cached

    def has_key(self, key: str) -> bool:
        """Whether the key has at least one window."""
        return key in (self._keys if self._shown is None else self._shown)

    def windows(self, key: str, low: int, high: int, *, reverse: bool = False) -> Iterator[tuple[int, Entry]]:
        """The windows of a key with low <= start < high in order of start, expired ones left out.

        What is merged but not flushed is seen. The entries are live: do not change them, do not keep them.
        """
        low, high = max(low, 0), min(max(high, 0), MAX_START)
        cached = self.cache.get(key, {})
        fresh = sorted((start for start in cached if low <= start < high), reverse=reverse)
        stored = self._stored(key, low, high, cached, reverse)
        merged = heapq.merge(
            ((start, cached[start]) for start in fresh), stored, key=lambda pair: pair[0], reverse=reverse
        )
        for start, entry in merged:
            if not self.is_expired(start, entry) and self.aggregate.visible(entry.state):
                yield start, entry

    def _stored(
        self, key: str, low: int, high: int, cached: dict[int, Entry], reverse: bool
    ) -> Iterator[tuple[int, Entry]]:
        raw_low, raw_high = data_key(key, low), data_key(key, high)
        for raw_key, raw in self.store.scan(raw_low, raw_high, reverse=reverse):
            start = split_data_key(raw_key)[1]
            if start not in cached and (key, start) not in self.hidden:
                yield start, Entry.decode(raw)
