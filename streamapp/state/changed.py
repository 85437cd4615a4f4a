"""Which windows have changed since some offsets: every value says up to which offset it counts."""

from collections.abc import Iterator, Sequence

from streamapp.state.entry import (
    MAX_START,
    Entry,
    data_key,
    first_data_key,
    offsets_of,
    split_data_key,
    split_time_key,
    time_bound,
)
from streamapp.state.partition import PartitionState
from streamapp.windows.sessions import Session

_DATA_END, _TIME_END = b"e", b"u"
Place = tuple[str, int]


def first_changeable(state: PartitionState, watermark: int) -> int:
    """No window that begins earlier has changed since the watermark was this."""
    window = state.window
    if window is None or isinstance(window, Session) or watermark < 0:
        return 0  # a session that is open may have begun at any time
    return window.first_open_start(watermark)


def changed_of(state: PartitionState, key: str, offsets: Sequence[int], first: int) -> Iterator[Place]:
    """The windows of one key that count an offset beyond these and begin at `first` or later, in order of start."""
    for start, entry in state.windows(key, first, MAX_START):
        if _is_beyond(entry.offsets, offsets):
            yield key, start


def changed(state: PartitionState, prefix: str, offsets: Sequence[int], first: int) -> Iterator[Place | None]:
    """The same of all keys with a prefix, in no order; None for each window that was looked at in vain.

    Others may be let in between two steps; what changes meanwhile may be missing, so listen before the first step. A window
    may come that readers do not see: expired, or hidden by its aggregate.
    """
    looked: set[Place] = set()
    for key in [key for key in state.cache if key.startswith(prefix)]:
        for start, entry in list(state.cache.get(key, {}).items()):
            if start >= first:
                looked.add((key, start))
                yield (key, start) if _is_beyond(entry.offsets, offsets) else None
    for place, stored in _stored(state, prefix, first):
        if place not in looked:
            yield place if stored is not None and _is_beyond(stored, offsets) else None


def _stored(state: PartitionState, prefix: str, first: int) -> Iterator[tuple[Place, list[int] | None]]:
    if state.window is None:
        begin = first_data_key(prefix)
        for raw_key, raw in state.store.scan(begin, _DATA_END):
            place = split_data_key(raw_key)
            if not place[0].startswith(prefix):
                return
            yield place, offsets_of(raw)
        return
    # a window's own value is looked up only where the order of time says that it may have changed
    for raw_key, _ in state.store.scan(time_bound(first), _TIME_END):
        place = split_time_key(raw_key)
        if place[0].startswith(prefix):
            found = state.store.get(data_key(*place))
            yield place, offsets_of(found) if found is not None else None


def entry_at(state: PartitionState, key: str, start: int) -> Entry | None:
    """The window that readers see at this start; None where there is none (any more)."""
    entry = state.cache.get(key, {}).get(start)
    if entry is None:
        return next((found for _, found in state.windows(key, start, start + 1)), None)
    if state.is_expired(start, entry) or not state.aggregate.visible(entry.state):
        return None
    return entry


def _is_beyond(have: Sequence[int], offsets: Sequence[int]) -> bool:
    return any(reached > known for reached, known in zip(have, offsets, strict=True))
