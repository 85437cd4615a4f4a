"""How fresh an answer is: what the latest fetch said, and what has been applied since."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from streamapp.clock import Clock
from streamapp.engine.lane import SourceLane
from streamapp.engine.runtime import Engine
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.forwarded import ForwardedBook
from streamapp.queries.held_ends import HeldEnds
from streamapp.queries.model import Freshness
from streamapp.state.entry import Entry

FetchState = Callable[[str, int], tuple[int, int] | None]
_OBSERVATIONS_MAX = 256
#: what is found out of a re-keyed table's source holds for so long: of many partitions it is too much for each single read
_SOURCE_LOOK_MS = 10


class FreshnessBook:
    """Remembers per source partition the latest fetch whose end has been applied.

    Args:
        engine: knows what is applied.
        feed_health: knows which feeds are live.
        fetch_state: end offset and time of the latest answered fetch of a partition.
        clock: processing time.

    Attributes:
        held_ends: where partitions end that are not being fetched.
        forwarded: how far the sources of re-keyed tables are forwarded.
    """

    def __init__(self, engine: Engine, feed_health: FeedHealth, fetch_state: FetchState, clock: Clock) -> None:
        self.held_ends = HeldEnds(engine, fetch_state)
        self.forwarded = ForwardedBook(engine)
        self._engine = engine
        self._feed_health = feed_health
        self._fetch_state = fetch_state
        self._clock = clock
        self._observed: dict[tuple[str, int], deque[tuple[int, int]]] = {}  # (end offset, fetch time)
        self._looked: dict[tuple[str, int], tuple[tuple[int, int] | None, int]] = {}  # at which fetch and offset, last
        self._caught_up: dict[tuple[str, int], int] = {}
        self._since: dict[tuple[str, int], int] = {}
        self._sources: dict[tuple[str, int], _Source] = {}

    def observe(self) -> None:
        """Look at every lane; call often enough that a lagging partition's figure is right to that interval."""
        lanes = self._engine.lanes
        for place in [place for place in self._observed if place not in lanes]:
            del self._observed[place]
            self._looked.pop(place, None)
            self._caught_up.pop(place, None)
            self._since.pop(place, None)
        for place, lane in lanes.items():
            self._observe_lane(place, lane)

    def _observe_lane(self, place: tuple[str, int], lane: SourceLane) -> tuple[int, int] | None:
        state = self._fetch_state(*place)
        if self._looked.get(place) == (state, lane.applied):
            return state
        self._looked[place] = state, lane.applied
        observed = self._observed.get(place)
        if observed is None:
            observed = self._observed[place] = deque(maxlen=_OBSERVATIONS_MAX)
            self._since[place] = self._clock.now_ms()
        if state is not None and (not observed or observed[-1] != state):
            observed.append(state)
        reached = lane.applied + 1
        if observed and observed[0][0] <= reached:
            while observed and observed[0][0] <= reached:
                self._caught_up[place] = observed.popleft()[1]
            self.forwarded.note(place, self._caught_up[place])
        return state

    def lag(self, place: tuple[str, int]) -> int | None:
        """Records of a source partition that are not applied yet; None before the first fetch."""
        state = self._fetch_state(*place)
        lane = self._engine.lanes.get(place)
        if state is None or lane is None:
            return None
        return max(0, self.held_ends.end(place, state[0]) - lane.applied - 1)

    def of(self, live: LivePartition, key: str, entry: Entry) -> Freshness:
        """The freshness of one value, now."""
        now = self._clock.now_ms()
        state = live.state
        assert state is not None
        lag: int | None = 0
        staleness = 0
        for topic in live.table.input_topics:
            place = (topic, live.partition)
            lane = self._engine.lanes.get(place)
            fetched = self._observe_lane(place, lane) if lane is not None else None
            if fetched is None or lane is None or lag is None:
                lag = None
            else:
                lag += max(0, self.held_ends.end(place, fetched[0]) - lane.applied - 1)
            read_ms = caught_up = self._caught_up.get(place)
            if caught_up is None:
                # until all is applied that came while nobody read, the view is as old as the first of that; and until
                # it is known what came, it may be as old as the value
                first = None if lane is None else lane.first_arrival_ms
                caught_up = min(self._since.get(place, now), entry.newest if first is None else first)
            if live.table.definition.rekey is not None:
                source = self._source_of(live, read_ms or 0, now)
                caught_up = min(caught_up, source.reached_ms, entry.newest if source.unknown else now)
                lag = None if lag is None or source.behind is None else lag + source.behind
            staleness = max(staleness, now - caught_up)
        feed = self._feed_health.for_key(key)
        known_good = self._feed_health.known_good_ms(key) if feed is not None else None
        if known_good is not None and known_good > staleness:
            staleness = known_good
        watermark = state.watermark
        return Freshness(
            as_of=now,
            watermark=watermark if watermark >= 0 else None,
            partition=live.partition,
            offset=max(entry.offsets),
            lag=lag,
            restoring=False,
            age_ms=now - entry.newest,
            staleness_ms=staleness,
            feed=feed,
        )

    def _source_of(self, live: LivePartition, read_ms: int, now_ms: int) -> "_Source":
        """How far a re-keyed table's source is in what is read of its re-key topic, looked at anew each few milliseconds."""
        table, partition = live.table, live.partition
        found = self._sources.get((table.name, partition))
        if found is None or not 0 <= now_ms - found.looked_ms < _SOURCE_LOOK_MS:
            found = self._sources[table.name, partition] = self._look_at_source(table, read_ms, now_ms)
        return found

    def _look_at_source(self, table: RunningTable, read_ms: int, now_ms: int) -> "_Source":
        topic, book = table.definition.sources[0].topic, self.forwarded
        least, unknown, total = now_ms, False, 0
        for partition in range(table.partitions):
            place = (topic, partition)
            lane = self._engine.lanes.get(place)
            reached = book.reached_ms(table, partition, read_ms)
            if reached is None:
                unknown = True
                if lane is None:
                    reached = book.since_ms(table, partition)
                elif lane.first_arrival_ms is not None:
                    reached = min(self._since.get(place, now_ms), lane.first_arrival_ms)
            least = least if reached is None else min(least, reached)
            behind = book.behind(table, partition) if lane is None else self.lag(place)
            total = -1 if behind is None or total < 0 else total + behind
        return _Source(now_ms, least, unknown, None if total < 0 else total)


class _Source(NamedTuple):
    """How far the source of a re-keyed table is in what has been read of its re-key topic.

    Attributes:
        looked_ms: when this was found out.
        reached_ms: all that came before that is in it, as far as that is known of the origins.
        unknown: whether nothing certain is known of one of them.
        behind: records that are not in the re-key topic; None where that is not known.
    """

    looked_ms: int
    reached_ms: int
    unknown: bool
    behind: int | None
