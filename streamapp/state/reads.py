"""Which window a read means, by the contract's rules."""

from collections.abc import Iterator

from streamapp.state.entry import Entry
from streamapp.state.partition import PartitionState
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session

FOREVER = (1 << 63) - 1
Found = tuple[int, Entry]


def current(state: PartitionState, key: str) -> Found | None:
    """The window that a read without `at` means.

    Tumbling and session: the newest. Hopping: the one that ended last by the watermark, else the newest. Without
    windows: the one value.
    """
    window = state.window
    if isinstance(window, Hopping):
        ended = state.watermark - window.size_ms
        if ended >= 0:
            found = next(state.windows(key, 0, ended + 1, reverse=True), None)
            if found is not None:
                return found
    found = _newest_open(state, key)
    return found if found is not None else next(state.windows(key, 0, FOREVER, reverse=True), None)


def _newest_open(state: PartitionState, key: str) -> Found | None:
    """The newest window without a look at the store: where it is in memory, and nothing in the store can be newer."""
    cached = state.cache.get(key)
    if not cached:
        return None
    newest = max(cached)
    entry = cached[newest]
    if isinstance(state.window, Session) or not state.aggregate.visible(entry.state):
        return None
    if state.window is not None:
        # all open windows are known by their start, and what is newer than an open one is open itself
        if newest not in state.open:
            return None
        if newest < state.index.last_start and any(
            start > newest and state.peek(key, start) is not None for start in state.open
        ):
            return None
    return newest, entry


def at(state: PartitionState, key: str, time_ms: int) -> Found | None:
    """Of the windows that hold this instant, the one that began first; None where there is none."""
    window = state.window
    if window is None:
        return current(state, key)
    if isinstance(window, Session):
        # a session begun within the gap of one that was closed already overlaps its end; ends are in order of start
        earliest: Found | None = None
        for start, entry in state.windows(key, 0, time_ms + 1, reverse=True):
            if time_ms >= entry.newest + window.gap_ms:
                break
            earliest = start, entry
        return earliest
    assert isinstance(window, (Tumbling, Hopping))
    return next(state.windows(key, time_ms - window.size_ms + 1, time_ms + 1), None)


def between(state: PartitionState, key: str, low: int, high: int) -> Iterator[Found]:
    """The windows with low <= start < high, in order of start."""
    return state.windows(key, low, high)
