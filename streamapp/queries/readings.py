"""What is read of a partition that lives here: whether it may be, a window's value, and how fresh it is."""

from collections.abc import Callable, Mapping
from typing import Any

from streamapp.engine.runtime import Engine
from streamapp.engine.tables import LivePartition
from streamapp.errors import RestoringError
from streamapp.queries.freshness import FreshnessBook
from streamapp.queries.model import Reading, WindowSpan
from streamapp.state.entry import Entry
from streamapp.state.partition import PartitionState
from streamapp.windows.overrides import reader_of

RESTORING_RETRY_S = 1


class Readings:
    """Reads the partitions of this worker.

    Args:
        engine: knows whether they are its own for now.
        freshness: of what it applies.
    """

    def __init__(self, engine: Engine, freshness: FreshnessBook) -> None:
        self._lease = engine.lease
        self._freshness = freshness

    def state(self, live: LivePartition) -> PartitionState:
        """The state of a partition, where it may be read now.

        Raises:
            RestoringError: it is being restored.
            LeaseExpiredError: for now nobody knows whose it is.
        """
        self.check_lease()
        if live.state is None:
            raise RestoringError(
                f"table {live.table.name}, partition {live.partition} is being restored",
                retry_after_s=RESTORING_RETRY_S,
            )
        return live.state

    def check_lease(self) -> None:
        """Raise LeaseExpiredError where for now nobody knows whose the partitions here are."""
        self._lease.check()

    def value(self, live: LivePartition, start: int, entry: Entry) -> Mapping[str, Any]:
        """The fields of one window's value."""
        state = live.state
        assert state is not None
        window = None if state.window is None else (start, state.end_of(start, entry))
        return state.aggregate.result(entry.state, window)

    def field(self, live: LivePartition, name: str) -> Callable[[int, Entry], Any]:
        """What reads one field of windows of this partition, and nothing else of them."""
        state = live.state
        assert state is not None
        read = reader_of(state.aggregate, name)
        if state.window is None:
            return lambda _start, entry: read(entry.state, None)
        end_of = state.end_of
        return lambda start, entry: read(entry.state, (start, end_of(start, entry)))

    def reading(self, live: LivePartition, key: str, start: int, entry: Entry) -> Reading:
        """One window's value with its freshness."""
        state = live.state
        assert state is not None
        span, window = None, None
        if state.window is not None:
            end = state.end_of(start, entry)
            span, window = (start, end), WindowSpan(start, end, state.is_final(start, entry))
        value = state.aggregate.result(entry.state, span)
        return Reading(live.table.name, key, window, value, self._freshness.of(live, key, entry))
