"""Who follows what of this worker's tables, and how a change in a partition reaches them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from streamapp.engine.runtime import Engine
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.queries.changes import ChangeHub
from streamapp.queries.following import Followed
from streamapp.queries.model import Predicate
from streamapp.queries.positions import mark_of
from streamapp.queries.readings import Readings
from streamapp.queries.turn_memo import Positions, TurnMemo
from streamapp.state.changed import entry_at

#: that many records waiting are a backlog
_BACKLOG_RECORDS = 2_000


class Subscribers:
    """The subscribers of the partitions that live here.

    Args:
        engine: its tables are watched, also when a partition has been restored.
        readings: what they are told.
    """

    def __init__(self, engine: Engine, readings: Readings) -> None:
        self._engine = engine
        self._readings = readings
        self._settings = engine.settings
        self._hub = ChangeHub(
            subscribers_max=engine.settings.sse_subscribers_max,
            pending_max=engine.settings.sse_queue_max,
            on_conflated=engine.metrics.conflated.inc,
            crowded=self._crowded,
        )
        self._positions = Positions()
        self._memos: dict[str, TurnMemo] = {}
        self._followed: set[Followed] = set()
        engine.on_restored = self._watch

    @contextmanager
    def follow(
        self, running: RunningTable, key: str | None, prefix: str, condition: Predicate | None
    ) -> Iterator[Followed]:
        """Subscribe to what lives here of a table; begin with `Followed.begin`.

        Raises:
            RateLimitedError: as many subscribers as this worker serves.
            RestoringError, LeaseExpiredError: it cannot be read now.
        """

        def value_of(known: str, start: int) -> Mapping[str, Any] | None:
            live = running.live.get(running.partition_of(known))
            if live is None or live.state is None:
                return None
            entry = entry_at(live.state, known, start)
            return None if entry is None else self._readings.value(live, start, entry)

        one = self._hub.subscribe(running.name, key, prefix=prefix, condition=condition, value_of=value_of)
        followed: Followed | None = None
        memo = self._memo(running)
        try:
            self.watch(running)
            followed = Followed(
                memo,
                running,
                self._hub,
                one,
                resume_max=self._settings.sse_resume_max,
                resume_max_ms=self._settings.sse_resume_max_ms,
            )
            self._followed.add(followed)
            yield followed
        finally:
            if followed is not None:
                self._followed.discard(followed)
            self._hub.unsubscribe(one)
            self.watch(running)
            memo.begin(None)  # it would keep partitions alive that go away while nobody follows

    def look(self) -> None:
        """Tell quiet subscribers where partitions have moved; call about once a second."""
        for followed in tuple(self._followed):
            followed.look()

    def watch(self, running: RunningTable) -> None:
        """Have every partition of a table tell of its changes where somebody listens."""
        for live in running.live.values():
            if live.state is not None:
                self._watch(live)

    def _watch(self, live: LivePartition) -> None:
        assert live.state is not None
        # a call per change costs the lanes something, so only where somebody listens
        wanted = self._hub.listened_to(live.table.name)
        live.state.on_change = self._hub.listener(live.table.name) if wanted else None

    def _crowded(self) -> bool:
        """Whether the lanes have a backlog, and not only what has just arrived."""
        return sum(lane.queued for lane in self._engine.lanes.values()) > _BACKLOG_RECORDS

    def _memo(self, running: RunningTable) -> TurnMemo:
        mark = self._mark(running)
        memo = self._memos.get(running.name)
        if memo is None or memo.mark != mark:
            memo = self._memos[running.name] = TurnMemo(self._readings, self._positions, mark)
        return memo

    def _mark(self, running: RunningTable) -> bytes:
        """What an id says of its table: whatever makes its offsets mean something else makes another mark."""
        definition = running.definition
        return mark_of(
            (
                self._engine.cluster_id,
                running.app_id,
                running.name,
                running.changelog_id,
                *running.topic_ids,
                definition.fingerprint,
                # it decides which windows are closed by a stream time
                definition.window.grace_ms if definition.window is not None else None,
            )
        )
