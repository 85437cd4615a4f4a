"""Which keys and windows a partition has.

The store knows them, in order of key and in order of time. In memory is only what the store does not know yet: the
windows that began since the last completed flush, and the starts of windows that are not closed. So memory does not grow
with the number of keys, and a partition is ready as soon as its store is open.
"""

import heapq
from collections.abc import Iterable, Iterator

from streamapp.state.entry import (
    MAX_START,
    data_key,
    first_data_key,
    split_data_key,
    split_time_key,
    time_bound,
    time_key,
)
from streamapp.state.store import KEY_COUNT_KEY, StateStore, WriteSet

#: windows of one key that are stepped over before the rest of them is skipped
_STEPS_BEFORE_SKIP = 16
_DATA_END, _TIME_END = b"e", b"u"
_START_BYTES = 8
Windows = dict[int, dict[str, None]]  # start -> keys


class WindowIndex:
    """The keys and windows of one partition, over its store.

    Args:
        store: holds what was flushed.
        windowed: whether the store keeps the index in order of time.
        first_open: windows that begin before are closed. None: open windows are not kept here.

    Attributes:
        open: the starts of windows that are not closed.
        last_start: no window begins later.
    """

    def __init__(self, store: StateStore, *, windowed: bool, first_open: int | None) -> None:
        self._store = store
        self._windowed = windowed
        self._tracks_open = first_open is not None
        self._new: Windows = {}  # in no plan yet
        self._in_flight: Windows = {}  # in the plan that is being written
        self.open: set[int] = set() if first_open is None else set(self._stored_starts(first_open))
        self._last_stored = MAX_START
        if windowed:
            newest = next(store.scan(b"t", _TIME_END, reverse=True), None)
            self._last_stored = split_time_key(newest[0])[1] if newest is not None else -1
        self.last_start = self._last_stored
        counted = store.get(KEY_COUNT_KEY)
        self._count = int(counted) if counted is not None else None
        if self._count is None and next(store.scan(b"d", _DATA_END), None) is None:
            self._count = 0
        self._counting: int | None = None  # changes since a count began
        self._deleting: dict[str, set[int]] = {}  # key -> starts that the plan that is being written deletes

    # --- windows ---------------------------------------------------------------------------------------------------

    def may_be_stored(self, start: int) -> bool:
        """Whether a window of this start can be in the store; False saves a look for it."""
        return start <= self._last_stored

    def add(self, key: str, start: int, *, first: bool | None = None) -> None:
        """Note a window that the store does not know.

        Args:
            key: its key.
            start: where it begins.
            first: whether the key has no other window; None where that is not known, and has to be looked for.
        """
        if self._counts:
            if first is None or key in self._deleting:
                first = not self._remains(key)
            self._recount(int(first))
        self._new.setdefault(start, {})[key] = None
        self.last_start = max(self.last_start, start)
        if self._tracks_open:
            self.open.add(start)

    def discard(self, key: str, start: int) -> None:
        """Forget a window again that is in no plan yet."""
        keys = self._new.get(start)
        if keys is not None and key in keys:
            del keys[key]
            if not keys:
                del self._new[start]
                if start not in self._in_flight and next(self.keys_at(start), None) is None:
                    self.open.discard(start)
            if self._counts and not self._remains(key):
                self._recount(-1)

    def close(self, start: int) -> None:
        """All windows of this start are closed."""
        self.open.discard(start)
        self._to_plan(start)  # they have still to be written, but are open no more

    def keys_at(self, start: int, after: str | None = None) -> Iterator[str]:
        """The keys that have a window of this start, in order; only those behind `after`, where it is given."""
        fresh = {**self._new.get(start, {}), **self._in_flight.get(start, {})}
        begin = time_bound(start) if after is None else time_key(after, start) + b"\x00"
        stored = (split_time_key(raw)[0] for raw, _ in self._store.scan(begin, time_bound(start + 1)))
        return _merged(stored, [key for key in fresh if after is None or key > after])

    def _stored_starts(self, first: int) -> Iterator[int]:
        """Each start from `first` on that the store has windows of, once."""
        position = time_bound(first)
        while (found := next(self._store.scan(position, _TIME_END), None)) is not None:
            start = split_time_key(found[0])[1]
            yield start
            position = time_bound(start + 1)

    # --- flushing --------------------------------------------------------------------------------------------------

    def plan(self, changes: WriteSet, deleted: Iterable[tuple[str, int]]) -> None:
        """Put what the store does not know into a plan; `written` follows when the store has it.

        Args:
            changes: of the plan.
            deleted: the windows, keys and starts, that the plan deletes.
        """
        for start in list(self._new):
            self._to_plan(start)
        if self._windowed:
            changes.marks.extend(time_key(key, start) for start, keys in self._in_flight.items() for key in keys)
        for key, start in deleted:
            self._deleting.setdefault(key, set()).add(start)
        if self._counts:
            self._recount(-self._leaving())
        if self._count is not None:
            changes.puts.append((KEY_COUNT_KEY, b"%d" % self._count))

    def _leaving(self) -> int:
        """How many keys lose their last window with the plan that is being written."""
        return sum(not self._remains(key) for key in self._deleting)

    def _to_plan(self, start: int) -> None:
        keys = self._new.pop(start, None)
        if keys is not None:
            self._in_flight.setdefault(start, {}).update(keys)

    def written(self) -> None:
        """What was planned is in the store."""
        if self._windowed:
            self._last_stored = max(self._last_stored, *self._in_flight, -1)
        self._in_flight = {}
        self._deleting = {}

    # --- keys ------------------------------------------------------------------------------------------------------

    def has_key(self, key: str) -> bool:
        """Whether the key has a window, closed or not."""
        return self._is_fresh(key) or next(self._stored(key), None) is not None

    def _remains(self, key: str) -> bool:
        """Whether the key has a window that is not about to be deleted."""
        if self._is_fresh(key):
            return True
        going = self._deleting.get(key, ())
        return any(split_data_key(raw)[1] not in going for raw, _ in self._stored(key))

    def _is_fresh(self, key: str) -> bool:
        return any(key in keys for part in (self._new, self._in_flight) for keys in part.values())

    def _stored(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        return self._store.scan(data_key(key, 0), data_key(key, MAX_START))

    def keys(self, prefix: str = "", after: str | None = None) -> Iterator[str]:
        """Keys that begin with a prefix and come behind another one, in order, as of the moment of the first step."""
        low = prefix if after is None else max(prefix, after)
        for key in _merged(self._stored_keys(low), self._fresh(low)):
            if after is not None and key <= after:
                continue
            if not key.startswith(prefix):
                return
            yield key

    def _fresh(self, low: str = "") -> Iterable[str]:
        parts = (self._new, self._in_flight)
        return {key for part in parts for keys in part.values() for key in keys if key >= low}

    def _stored_keys(self, low: str, *, skip: bool = True) -> Iterator[str]:
        """Each key of the store from `low` on, once. Without `skip` of many windows it is a picture of one moment."""
        position: bytes | None = first_data_key(low)
        while position is not None:
            last, steps, again = b"", 0, None
            for raw, _ in self._store.scan(position, _DATA_END):
                if raw[:-_START_BYTES] == last:
                    steps += 1
                    if skip and steps >= _STEPS_BEFORE_SKIP:
                        again = data_key(split_data_key(raw)[0], MAX_START)
                        break
                    continue
                last, steps = raw[:-_START_BYTES], 0
                yield split_data_key(raw)[0]
            position = again

    # --- counting --------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many keys there are; where that is not known yet, they are counted now, which takes a while."""
        if self._count is None:
            self._count = sum(1 for _ in self.keys()) - self._leaving()
            self._counting = None
        return self._count

    @property
    def is_counted(self) -> bool:
        """Whether `count` answers at once."""
        return self._count is not None

    def counting(self, step_keys: int = 2_000) -> Iterator[None]:
        """Count the keys so many at a time, so that others can go on between the steps; at the end `is_counted` is true.

        The picture is taken at the first step; what is added and removed between the steps is counted apart.
        """
        self._counting = -self._leaving()
        found = 0
        for _ in _merged(self._stored_keys("", skip=False), self._fresh()):
            found += 1
            if found % step_keys == 0:
                yield
                if self._counting is None:
                    return  # somebody could not wait
        self._count, self._counting = found + self._counting, None

    @property
    def _counts(self) -> bool:
        return self._count is not None or self._counting is not None

    def _recount(self, change: int) -> None:
        if self._count is not None:
            self._count += change
        if self._counting is not None:
            self._counting += change


def _merged(stored: Iterable[str], fresh: Iterable[str]) -> Iterator[str]:
    """Both in order, each key once; those of the store come so already."""
    fresh = sorted(fresh)
    if not fresh:
        yield from stored
        return
    last: str | None = None
    for key in heapq.merge(stored, fresh):
        if key != last:
            last = key
            yield key
