"""Until when the records of re-keyed tables' sources are in their re-key topics.

A value of a re-keyed table is as fresh as its re-key topic has been read, and no fresher than each partition of the source
has been forwarded: by this worker, or by another one, which may be away. What this worker forwards it knows; of the others
the group's commits tell, so that is known a checkpoint and a look later.
"""

import asyncio
import logging
from collections.abc import Iterable

from streamapp.engine.identity import source_bounds
from streamapp.engine.runtime import Engine
from streamapp.engine.tables import RunningTable
from streamapp.errors import StreamAppError

log = logging.getLogger(__name__)

#: between two looks at the commits of others
_LOOK_S = 2.0
#: how much is remembered of an origin; beyond it every second one of the older half is forgotten
_KEPT_MAX = 128
#: what was forwarded so shortly before a fetch that the fetch's end may have been told before does not count as read by it
_MARGIN_MS = 50
Origin = tuple[str, int]
Place = tuple[str, int]


class Sightings:
    """Facts of one origin: all that was there at one time is forwarded at another one; wall clock, ms, neither falls.

    A fact stays true. So some may be forgotten, which only makes an answer older, and the oldest is kept for long.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[int, int]] = []

    def add(self, seen_ms: int, forwarded_ms: int) -> None:
        """Remember one; nothing where a later one is known."""
        pairs = self._pairs
        if not pairs or (seen_ms > pairs[-1][0] and forwarded_ms >= pairs[-1][1]):
            pairs.append((seen_ms, forwarded_ms))
            _thin(pairs)

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
        self._now_ms = 0
        self._sightings: dict[Origin, Sightings] = {}
        # of other workers' source partitions
        self._unforwarded: dict[Origin, list[tuple[int, int]]] = {}  # (time, end), not forwarded yet
        self._behind: dict[Origin, int] = {}  # records still to forward
        self._newest_ms: dict[Origin, int] = {}  # event time up to which they are forwarded

    def note(self, place: Place, seen_ms: int) -> None:
        """A lane of this worker has passed on all that was on a source partition at that time."""
        for table in self._rekeyed():
            if table.definition.sources[0].topic == place[0]:
                self._of((table.name, place[1])).add(seen_ms, self._now())

    def reached_ms(self, table: RunningTable, partition: int, read_ms: int) -> int | None:
        """Up to which time all of a source partition was in what a fetch of the re-key topic at `read_ms` has read.

        None where that is not known.
        """
        return self._of((table.name, partition)).by(read_ms - _MARGIN_MS)

    def since_ms(self, table: RunningTable, partition: int) -> int | None:
        """Of another worker's partition of which `reached_ms` is not known: since when, at the latest, something is missing.

        None where nothing is known at all.
        """
        origin = (table.name, partition)
        known = [seen_ms for seen_ms, _ in self._unforwarded.get(origin, ())[:1]]
        if origin in self._newest_ms:
            known.append(self._newest_ms[origin])
        return min(known, default=None)

    def behind(self, table: RunningTable, partition: int) -> int | None:
        """How many records of a source partition another worker has still to forward; None where that is not known."""
        return self._behind.get((table.name, partition))

    async def keep_up(self) -> None:
        """Look at the commits of others again and again; until cancelled. What Kafka does not answer stays as it was."""
        while True:
            try:
                await self.look()
            except StreamAppError as problem:
                log.debug("how far other workers have forwarded is not known: %s", problem)
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """One look at the source partitions that are not this worker's.

        Raises:
            KafkaError: the cluster did not answer.
        """
        engine = self._engine
        origins = {
            (table.name, partition): (table.definition.sources[0].topic, partition)
            for table in self._rekeyed()
            for partition in range(table.partitions)
        }
        others = {origin: place for origin, place in origins.items() if place not in engine.lanes}
        for known in (self._unforwarded, self._behind, self._newest_ms):
            for origin in [origin for origin in known if origin not in others]:
                del known[origin]
        if not others:
            return
        asked_ms = self._now()
        bounds = await source_bounds(engine.admin, engine.app_id, dict.fromkeys(others.values()))
        now_ms = self._now()
        for origin, place in others.items():
            here = bounds[place]
            told = engine.tables[origin[0]].forwarded_as_told(here.forwarded)
            forwarded = told.next_offset if told is not None else -1
            if told is not None and told.stream_time >= 0:
                self._newest_ms[origin] = told.stream_time
            # of a partition that holds nothing there is nothing to tell
            self._compare(origin, asked_ms, here.end, max(forwarded, here.begin), now_ms, told is not None)

    def _compare(self, origin: Origin, asked_ms: int, end: int, forwarded: int, now_ms: int, told: bool) -> None:
        if told or forwarded >= end:
            self._behind[origin] = max(0, end - forwarded)
        else:
            self._behind.pop(origin, None)
        if forwarded >= end:
            self._unforwarded.pop(origin, None)
            self._of(origin).add(asked_ms, now_ms)
            return
        waiting = self._unforwarded.setdefault(origin, [])
        passed = [seen_ms for seen_ms, at in waiting if at <= forwarded]
        del waiting[: len(passed)]
        if passed:
            self._of(origin).add(passed[-1], now_ms)
        if not waiting or waiting[-1][1] < end:
            waiting.append((asked_ms, end))
            _thin(waiting)

    def _now(self) -> int:
        """Wall clock; where it was set back, all that was known is of a time that has not come yet, and is forgotten."""
        now_ms = self._engine.clock.now_ms()
        if now_ms < self._now_ms:
            self._sightings.clear()
            self._unforwarded.clear()
        self._now_ms = now_ms
        return now_ms

    def _of(self, origin: Origin) -> Sightings:
        found = self._sightings.get(origin)
        if found is None:
            found = self._sightings[origin] = Sightings()
        return found

    def _rekeyed(self) -> Iterable[RunningTable]:
        return (table for table in self._engine.tables.values() if table.definition.rekey is not None)


def _thin(facts: list[tuple[int, int]]) -> None:
    """Keep no more than are to be kept: all of the newer half, the first, and every second one between."""
    if len(facts) > _KEPT_MAX:
        del facts[1 : len(facts) // 2 : 2]
