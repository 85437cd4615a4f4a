"""The state of one partition of one table: a cache of windows over a store, exact whatever is replayed.

The rules (each has a test):

- A record counts once. Records at or below the checkpoint's offset are skipped as a whole; between that and the horizon
  (the highest offset that a value restored from the changelog has seen) each value's own offset decides.
- Lateness is judged record by record, in order of offset, against the greatest event time that the record's own origin has
  shown so far: here, or, where the batch tells it, in every partition. So a replay judges as the first run did, however the
  origins' records interleave.
- A window is closed when the watermark (the least of the origins' greatest times) reaches its end plus the grace; every
  origin has passed it then, so nothing changes it any more.
- Nothing reaches the store before the changelog has acknowledged it: `prepare_flush` makes a snapshot of bytes, the
  caller sends it, and `complete_flush` writes it. Merging goes on in between.

Everything here is synchronous and free of I/O but for the store, so that it can be driven by a test or a simulation.
"""

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from streamapp.errors import DefinitionChangedError
from streamapp.state.batch import Applied, Batch, FlushPlan, LateRecord
from streamapp.state.cache import CacheBudget, EntryCache
from streamapp.state.definition import TableDefinition
from streamapp.state.entry import CHECKPOINT_KEY, MAX_START, NO_EPOCH, Checkpoint, Entry, data_key, split_data_key
from streamapp.state.flushing import Flushing
from streamapp.state.grouping import Plan
from streamapp.state.index import WindowIndex
from streamapp.state.lanes import columns_min_records, merge_columns, merge_records
from streamapp.state.runs import merge_runs
from streamapp.state.sessions import SessionLane
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, StateStore
from streamapp.windows.sessions import Session

#: from this many records on, taking them key by key is faster
_RUNS_MIN_RECORDS = 65
#: of more keys it is not looked one by one which of them readers see, only to say how many they are
_COUNT_VISIBLE_MAX_KEYS = 2_000

ChangeListener = Callable[[str, int], None]
_offsets_decode = msgspec.msgpack.Decoder(list[int]).decode


class PartitionState:
    """One partition of a table: `apply` batches, `prepare_flush` / `complete_flush`, and read.

    Args:
        definition: the table.
        partition: its number, for messages.
        store: what was restored so far; owned by this object from now on.
        origins: how many origins the offsets have (sources, or partitions of a re-keyed table's source).
        cache_max_entries: clean entries beyond this leave memory after a flush.
        cache_budget: the same for several partitions together; in its place.

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
        cache_budget: CacheBudget | None = None,
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
        self.entries = EntryCache(cache_budget or CacheBudget(cache_max_entries))
        self.cache = self.entries.windows
        self.dirty: dict[tuple[str, int], Entry] = {}
        self.hidden: set[tuple[str, int]] = set()  # covered sessions that the store still holds
        self.tombstones: dict[tuple[str, int], None] = {}
        self.idle: set[int] = set()  # origins that have said to be silent
        self._plans: dict[int, Plan] = {}
        self.applying = False
        self._selective = self.aggregate.selective
        self._flushing = Flushing(self)

        raw = store.get(CHECKPOINT_KEY)
        self.checkpoint = Checkpoint.decode(raw) if raw is not None else None
        if self.checkpoint is not None:
            self._check_definition(self.checkpoint)
            self.applied = list(self.checkpoint.offsets)
            self.stream_times = list(self.checkpoint.stream_times)
            self.idle.update(self.checkpoint.idle)
            self.spoken = list(self.checkpoint.spoken) or [0] * origins
            self.closed = self.checkpoint.closed
        else:
            self.applied = [-1] * origins
            self.stream_times = [-1] * origins
            self.spoken = [0] * origins
            self.closed = -1
        horizon = store.get(HORIZON_KEY)
        self.horizon = _offsets_decode(horizon) if horizon is not None else [-1] * origins
        changelog = store.get(CHANGELOG_OFFSET_KEY)
        self.changelog_offset = int(changelog) if changelog is not None else -1
        self.windows_each = definition.windows_each
        self.sessions: SessionLane | None = None
        first_open: int | None = None
        if isinstance(self.window, Session):
            self.sessions = SessionLane(self)
        elif self.window is not None:
            first_open = self.window.first_open_start(self.closed) if self.closed >= 0 else 0
        self.index = WindowIndex(store, windowed=self.window is not None, first_open=first_open)
        if self.sessions is not None:
            self.sessions.load()

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

    def advance(self, origin: int, stream_time: int) -> None:
        """Note how far an origin has come; it never goes back."""
        if stream_time > self.stream_times[origin]:
            self.stream_times[origin] = stream_time

    def note_silence(self, origin: int, end: int, *, silent: bool) -> None:
        """Note whether an origin is silent, as it says of itself; its next record ends that.

        Args:
            origin: which of them.
            end: the offset up to which, exclusive, it speaks. What says less than is known already is passed over.
            silent: whether nothing has come behind that for long enough.
        """
        if end < self.spoken[origin] or end <= self.applied[origin]:
            return
        self.spoken[origin] = end
        if silent:
            self.idle.add(origin)
        else:
            self.idle.discard(origin)

    def advance_idle(self, *origins: int) -> bool:
        """Let idle origins hold no window open; True where that changed a stream time.

        Their stream times move to the greatest of all origins, or, where all of them are idle, to where every window that
        is open now is closed. It is part of the next checkpoint, so that a replay judges alike. An origin of which records
        are missing that restored values have counted is left alone: they would come back late.
        """
        idle = {origin for origin in origins if self.horizon[origin] <= self.applied[origin]}
        target = max(self.stream_times)
        if len(idle) == self.origins:
            target = max(target, self._last_close())
        moved = [max(time, target) if origin in idle else time for origin, time in enumerate(self.stream_times)]
        changed = moved != self.stream_times
        self.stream_times[:] = moved
        return changed

    def _last_close(self) -> int:
        """The stream time at which all windows that are open now are closed; -1 where none is."""
        window = self.window
        if self.sessions is not None:
            return self.sessions.last_close()
        if window is None or isinstance(window, Session) or not self.open:
            return -1
        return window.closes_at(max(self.open))

    # --- merging ---------------------------------------------------------------------------------------------------

    def apply(self, batch: Batch) -> Applied:
        """Merge a batch. Records at or below what is already applied are skipped; late ones are set aside in `late`."""
        origin = batch.origin
        self.applying = True
        outcome = Applied()
        first = bisect_right(batch.offsets, self.applied[origin]) if batch.offsets else 0
        outcome.repeated = first
        if first < len(batch.offsets):
            if self.sessions is not None:
                self.sessions.merge(batch, first, outcome)
            else:
                self._merge(batch, first, outcome)
        if batch.end > self.applied[origin]:
            self.applied[origin] = batch.end
        self.applying = False
        return outcome

    def plan(self, source: int) -> Plan:
        """How partials are made of records of a source."""
        found = self._plans.get(source)
        if found is None:
            found = self._plans[source] = Plan(self.aggregate, source)
        return found

    def _merge(self, batch: Batch, first: int, outcome: Applied) -> None:
        """Merge the records from a position on, by whichever lane is fastest for so many."""
        count = len(batch.offsets) - first
        if batch.offsets[first] > self.horizon[batch.origin]:  # none of them can be a repeat
            if (
                not self.aggregate.ordered
                and count >= columns_min_records(self.plan(batch.source), self.windows_each)
                and merge_columns(self, batch, first, outcome)
            ):
                return
            if count >= _RUNS_MIN_RECORDS:
                merge_runs(self, batch, first, outcome)
                return
        merge_records(self, batch, range(first, len(batch.offsets)), outcome)

    def entry(self, key: str, start: int) -> Entry:
        """The entry of a window: from the cache, the store, or new."""
        windows = self.cache.get(key)
        if windows is not None:
            found = windows.get(start)
            if found is not None:
                return found
        entry = self._load(key, start)
        if entry is None:
            entry = Entry([-1] * self.origins, -1, self.aggregate.initial())
            self.register(key, start)
        self.entries.put(key, start, entry)
        return entry

    def peek(self, key: str, start: int) -> Entry | None:
        """The entry of a window, without keeping it in memory; None where there is none."""
        found = self.cache.get(key, {}).get(start)
        return found if found is not None else self._load(key, start)

    def _load(self, key: str, start: int) -> Entry | None:
        if not self.index.may_be_stored(start) or (key, start) in self.hidden:
            return None
        raw = self.store.get(data_key(key, start))
        return Entry.decode(raw) if raw is not None else None

    def register(self, key: str, start: int) -> None:
        """Note a window that the store does not know yet."""
        # a key without windows has no second entry; one that has an entry in memory is known
        first = True if self.window is None else (False if self.cache.get(key) else None)
        self.index.add(key, start, first=first)

    def discard_empty(self, key: str, start: int, entry: Entry) -> None:
        """Forget a window again that no record has made it into."""
        if entry.newest < 0:
            self.drop_cached(key, start)
            self.index.discard(key, start)

    def cache_entry(self, key: str, start: int, entry: Entry) -> None:
        """Put an entry into the cache."""
        self.entries.put(key, start, entry)

    def drop_cached(self, key: str, start: int) -> None:
        """Take an entry out of the cache."""
        self.entries.drop(key, start)

    def forget(self, key: str, start: int) -> None:
        """Drop a window that another one now covers: from the cache at once, from changelog and store by a tombstone."""
        self.entries.drop(key, start)
        self.dirty.pop((key, start), None)
        self.index.discard(key, start)
        self.hidden.add((key, start))
        self.tombstones[key, start] = None

    def revive(self, key: str, start: int) -> None:
        """A window that was to be forgotten exists again under the same start."""
        self.hidden.discard((key, start))
        self.tombstones.pop((key, start), None)

    def touch(self, key: str, start: int, entry: Entry) -> None:
        """Mark an entry as changed."""
        self.dirty[key, start] = entry
        if self.on_change is not None:
            self.on_change(key, start)

    @property
    def pending_bytes(self) -> int:
        """Roughly how many bytes wait for a flush, those of one under way included.

        A window that has changed again since the flush under way took it is one window all the same.
        """
        return min(len(self.dirty) + self._flushing.in_flight, self.entries.count) * self._flushing.entry_bytes

    @property
    def entry_bytes(self) -> int:
        """Roughly how many bytes a window has of `pending_bytes`."""
        return self._flushing.entry_bytes

    @property
    def changes(self) -> int:
        """How many changed windows flushes have taken and will take, since the start."""
        return self._flushing.taken + len(self.dirty)

    @property
    def open(self) -> set[int]:
        """The starts of the windows that are not closed; none for sessions, which are kept one by one."""
        return self.index.open

    # --- flushing --------------------------------------------------------------------------------------------------

    def prepare_flush(self, cluster_id: str, topic_ids: Sequence[str], committed: Sequence[int]) -> FlushPlan | None:
        """A snapshot of all that is not durable yet; None where there is nothing.

        Call `complete_flush` once all of it is acknowledged, before the next `prepare_flush`. If sending fails, stop the
        worker: what was taken out here would be missing from the next plan.

        Raises:
            StateError: a batch broke half-way, so the values are ahead of the offset that would be written with them.
        """
        return self._flushing.plan(cluster_id, topic_ids, committed)

    def complete_flush(self, plan: FlushPlan, changelog_offset: int) -> None:
        """Write an acknowledged plan to the store, in one atomic step, with the checkpoint's offset in the changelog."""
        self.write_flush(plan, changelog_offset)
        self.finish_flush(plan)

    def write_flush(self, plan: FlushPlan, changelog_offset: int) -> None:
        """The part of `complete_flush` that writes; it may run in a thread while batches are applied and reads answered."""
        self._flushing.write(plan, changelog_offset)

    def finish_flush(self, plan: FlushPlan) -> None:
        """The part of `complete_flush` that changes what is in memory; on the thread that applies and reads."""
        self._flushing.finish(plan)

    @property
    def finals_unconfirmed(self) -> bool:
        """Whether final records went out that no checkpoint tells of yet."""
        return self._flushing.unconfirmed

    @property
    def behind(self) -> bool:
        """Whether the last flush left closed windows to the next one, which should follow at once."""
        return self._flushing.behind

    def evict(self) -> None:
        """Drop clean entries beyond the budget, those of closed windows first; all of them are in the store."""
        sessions, open_starts, dirty = self.sessions, self.open, self.dirty

        def is_needed(key: str, start: int) -> bool:
            return (key, start) in dirty or (sessions is not None and sessions.is_open(key, start))

        self.entries.evict(is_needed, lambda key, start: start in open_starts)

    # --- reading ------------------------------------------------------------------------------------------------------

    def keys(self, prefix: str = "", after: str | None = None, limit: int | None = None) -> list[str]:
        """Keys that readers see, sorted; where asked, those with a prefix, those behind another key, and only so many."""
        return list(islice(self.iter_keys(prefix, after), limit))

    def iter_keys(self, prefix: str = "", after: str | None = None) -> Iterator[str]:
        """The same, one by one, without holding them all; as of the moment of the first step."""
        found = self.index.keys(prefix, after)
        return filter(self.has_key, found) if self._selective else found

    @property
    def key_count(self) -> int:
        """How many keys readers see; where that is not known, they are counted now."""
        return sum(1 for _ in self.iter_keys()) if self._selective else self.index.count

    @property
    def known_key_count(self) -> int | None:
        """The same where it is answered at once, else None: before keys have been counted, or where many may be hidden."""
        if not self.index.is_counted or (self._selective and self.index.count > _COUNT_VISIBLE_MAX_KEYS):
            return None
        return self.key_count

    @property
    def cached_entries(self) -> int:
        """How many entries are in memory."""
        return self.entries.count

    def has_key(self, key: str) -> bool:
        """Whether readers see at least one window of the key."""
        if self._selective:
            return next(self.windows(key, 0, MAX_START), None) is not None
        return bool(self.cache.get(key)) or self.index.has_key(key)

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
