"""Until when the records of re-keyed tables' sources are in their re-key topics.

A value of a re-keyed table is as fresh as its re-key topic has been read, and no fresher than each partition of the source
has been forwarded: by this worker, or by another one, which may be away. What this worker forwards it knows; of the others
the group's commits tell, so that is known a checkpoint and a look later.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable

from streamapp.engine.forwarding import decode
from streamapp.engine.runtime import Engine
from streamapp.engine.tables import RunningTable
from streamapp.errors import StreamAppError

log = logging.getLogger(__name__)

#: between two looks at the commits of others
_LOOK_S = 1.0
#: how much is remembered of an origin, and how far apart: a re-key topic may be read some seconds behind
_SIGHTINGS_MAX = 256
_APART_MS = 50
Origin = tuple[str, int]


class Sightings:
    """Facts of one origin: all that was there at one time is forwarded at another one, wall clock, ms; neither falls."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[int, int]] = deque(maxlen=_SIGHTINGS_MAX)

    def add(self, seen_ms: int, forwarded_ms: int) -> None:
        """Remember one; of those that are close together only the newest is kept."""
        pairs = self._pairs
        if pairs and (seen_ms <= pairs[-1][0] or forwarded_ms < pairs[-1][1]):
            return
        if len(pairs) > 1 and forwarded_ms - pairs[-2][1] < _APART_MS:
            pairs.pop()
        pairs.append((seen_ms, forwarded_ms))

    def by(self, now_ms: int) -> int | None:
        """Up to which time everything was forwarded at `now_ms`; None where that is not known."""
        return next((seen for seen, forwarded in reversed(self._pairs) if forwarded <= now_ms), None)


class ForwardedBook:
    """Keeps the sightings of all origins of this worker's re-keyed tables.

    Args:
        engine: knows the tables and the lanes, and has an admin client.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sightings: dict[Origin, Sightings] = {}
        self._ends: dict[
            Origin, deque[tuple[int, int]]
        ] = {}  # (time, end) that is not forwarded yet, of others' partitions
        self._behind: dict[Origin, int] = {}  # records that others have still to forward

    def note(self, place: tuple[str, int], seen_ms: int) -> None:
        """A lane of this worker has passed on all that was on a source partition at that time."""
        for table in self._rekeyed():
            if table.definition.sources[0].topic == place[0]:
                self._of((table.name, place[1])).add(seen_ms, self._engine.clock.now_ms())

    def reached_ms(self, table: RunningTable, read_ms: int) -> int | None:
        """Up to which time all that a table's source held was in its re-key topic, at the time up to which that is read.

        Returns:
            The least of all origins; None while it is not known of one of them.
        """
        least = read_ms
        for partition in range(table.partitions):
            reached = self._of((table.name, partition)).by(read_ms)
            if reached is None:
                return None
            least = min(least, reached)
        return least

    def behind(self, table: RunningTable, partition: int) -> int | None:
        """How many records of a source partition another worker has still to forward; None where that is not known."""
        return self._behind.get((table.name, partition))

    async def keep_up(self) -> None:
        """Look at the commits of others again and again; until cancelled. What Kafka does not answer stays as it was."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
            except StreamAppError as problem:
                log.debug("how far other workers have forwarded is not known: %s", problem)

    async def look(self) -> None:
        """One look at the source partitions that are not this worker's.

        Raises:
            KafkaError: the cluster did not answer.
        """
        lanes = self._engine.lanes
        wanted = {
            (topic, partition): None
            for table in self._rekeyed()
            for topic in [table.definition.sources[0].topic]
            for partition in range(table.partitions)
            if (topic, partition) not in lanes
        }
        if not wanted:
            return
        asked_ms = self._engine.clock.now_ms()
        ends = await self._engine.admin.end_offsets(wanted)
        commits = await self._engine.admin.commits(self._engine.app_id, wanted)
        now_ms = self._engine.clock.now_ms()
        for table in self._rekeyed():
            for partition in range(table.partitions):
                place, origin = (table.definition.sources[0].topic, partition), (table.name, partition)
                if place not in ends:
                    self._ends.pop(origin, None)
                    continue
                commit = commits.get(place)
                told = None if commit is None else table.forwarded_as_told(decode(commit.metadata))
                self._note_commit(origin, asked_ms, ends[place], 0 if told is None else told.next_offset, now_ms)

    def _note_commit(self, origin: Origin, asked_ms: int, end: int, forwarded: int, now_ms: int) -> None:
        waiting = self._ends.setdefault(origin, deque(maxlen=_SIGHTINGS_MAX))
        if not waiting or waiting[-1][1] != end:
            waiting.append((asked_ms, end))
        self._behind[origin] = max(0, end - forwarded)
        while waiting and waiting[0][1] <= forwarded:
            seen_ms, at = waiting.popleft()
            if not waiting and at == end:
                seen_ms = asked_ms  # nothing has come since
            self._of(origin).add(seen_ms, now_ms)

    def _of(self, origin: Origin) -> Sightings:
        found = self._sightings.get(origin)
        if found is None:
            found = self._sightings[origin] = Sightings()
        return found

    def _rekeyed(self) -> Iterable[RunningTable]:
        return (table for table in self._engine.tables.values() if table.definition.rekey is not None)
