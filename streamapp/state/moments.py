"""Which records of a batch come when a window of theirs is closed, by arrays of their event times."""

from typing import Any

from streamapp.importing import np
from streamapp.windows.definitions import Hopping, Tumbling


def closed_moments(times: Any, moves: Any, stream_time: int, window: Tumbling | Hopping) -> Any:
    """Per record whether the oldest window that can hold it was closed at its moment; None where that is so for none.

    Args:
        times: event times in ms, in order of offset.
        moves: per record what moves stream time; mostly the same array.
        stream_time: before the first of them.
        window: the table's.
    """
    span = window.pane_ms + window.grace_ms
    # all of them are within the grace of the newest: mostly so, and found out at a glance
    if not len(times) or int(times.min()) // window.pane_ms * window.pane_ms + span > max(
        int(moves.max()), stream_time
    ):
        return None
    # the oldest window that can hold the pane; a little too old where the step does not divide the size
    closed = times - times % window.pane_ms + span <= running_times(moves, stream_time)
    return closed if closed.any() else None


def running_times(moves: Any, stream_time: int) -> Any:
    """Stream time at each record, that record included."""
    return np.maximum.accumulate(np.maximum(moves, stream_time))
