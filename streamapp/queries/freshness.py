"""How fresh an answer is: what the latest fetch said, and what has been applied since."""

from collections import deque
from collections.abc import Callable

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
        self._sources: dict[
            str, tuple[tuple[int, int], int | None, int | None]
        ] = {}  # of re-keyed tables, as last asked

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
            caught_up = self._caught_up.get(place)
            if caught_up is None:
                # until all is applied that came while nobody read, the view is as old as the first of that; and until
                # it is known what came, it may be as old as the value
                first = None if lane is None else lane.first_arrival_ms
                caught_up = min(self._since.get(place, now), entry.newest if first is None else first)
            if live.table.definition.rekey is not None:
                forwarded, behind = self._source_of(live.table, caught_up, now)
                caught_up = min(caught_up, entry.newest) if forwarded is None else forwarded
                lag = None if lag is None or behind is None else lag + behind
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

    def _source_of(self, table: RunningTable, read_ms: int, now_ms: int) -> tuple[int | None, int | None]:
        """Of a re-keyed table's source: up to when it is in what is read, and how many records are not in the re-key topic.

        Either is None where it is not known of all partitions. Values that are read in one go ask only once.
        """
        asked = (read_ms, now_ms)
        known = self._sources.get(table.name)
        if known is None or known[0] != asked:
            topic, book = table.definition.sources[0].topic, self.forwarded
            behind = [
                self.lag((topic, partition))
                if (topic, partition) in self._engine.lanes
                else book.behind(table, partition)
                for partition in range(table.partitions)
            ]
            total = None if None in behind else sum(filter(None, behind))
            known = self._sources[table.name] = asked, book.reached_ms(table, read_ms), total
        return known[1], known[2]
