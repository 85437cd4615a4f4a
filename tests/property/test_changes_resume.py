"""A subscriber that goes away and comes back, however often and to whatever owner, misses no value that stands.

A run is a list of steps: records, checkpoints, crashes, and of the subscriber how much it takes, what of that arrives, and
when it leaves. Its queue is short, so that it falls behind, and ids are taken up as a browser takes them up.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.operations.conditions import parse
from streamapp.queries.changes import ChangeHub
from streamapp.queries.following import Followed
from streamapp.queries.model import Change, FieldInfo, Freshness, Reading, WindowSpan
from streamapp.queries.positions import decode, encode
from streamapp.queries.turn_memo import Positions, TurnMemo
from streamapp.state import reads
from streamapp.state.definition import TableDefinition
from streamapp.state.entry import NO_EPOCH, Entry
from streamapp.state.epochs import epoch_bytes
from streamapp.state.partition import PartitionState
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session
from tests.fakes.crashes import Event, Worker, definition
from tests.fakes.lanes import use_lane
from tests.property.test_state_crashes import streams

FOREVER = 1_000_000
MARK = b"marked"
FRESH = Freshness(0, None, 0, None, None, False, None, 0, None)
Place = tuple[str, int]
Step = tuple[Any, ...]

reading = st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 12))
flushing = st.tuples(st.just("flush"))
crashing = st.tuples(st.just("crash"), st.none() | st.integers(0, 12), st.booleans(), st.booleans(), st.integers(0, 5))
taking = st.tuples(st.just("take"), st.integers(1, 5), st.integers(0, 5))
leaving = st.tuples(st.just("leave"))
idling = st.tuples(st.just("idle"))
evicting = st.tuples(st.just("evict"))
runs = st.lists(
    reading | reading | taking | taking | leaving | flushing | crashing | idling | evicting, min_size=12, max_size=40
)
few = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def columns_from_three_records_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches shall take the column lane too."""
    use_lane(monkeypatch, "arrays", 3)


class Client:
    """A worker of one partition, and a subscriber to it."""

    def __init__(
        self,
        table: TableDefinition,
        sources: Sequence[Sequence[Event]],
        *,
        key: str | None = None,
        condition: str = "",
        resume_max: int = 10_000,
    ) -> None:
        self.worker = Worker(table, sources)
        self.running = RunningTable(table, "app", 1, len(sources))
        self.key = key
        self.condition = parse(condition, [FieldInfo("close", "number")]) if condition else None
        self.resume_max = resume_max
        self.epoch = 1
        self.turns = 0
        self.snapshots_came = False
        self.followed: Followed | None = None
        self.last_id = ""
        self.has: dict[Place, Any] = {}
        self.not_told: dict[
            Place, Any
        ] = {}  # what stood before the first snapshot, or one that took the place of changes
        self.resumed: set[str] = set()
        self._own()

    # --- what following needs of the reads -----------------------------------------------------------------------------

    def check_lease(self) -> None:
        """It is always its own."""

    def state(self, live: LivePartition) -> PartitionState:
        assert live.state is not None
        return live.state

    def reading(self, live: LivePartition, key: str, start: int, entry: Entry) -> Reading:
        window = None if self.worker.table.window is None else WindowSpan(start, start, False)
        return Reading("table", key, window, self.worker.row(key, start, entry), FRESH)

    # --- the worker ----------------------------------------------------------------------------------------------------

    def _own(self) -> None:
        """The partition as its owner has it; whoever subscribed to the one before has lost its stream."""
        state = self.worker.state
        state.epoch = epoch_bytes(self.epoch)
        self.hub = ChangeHub(subscribers_max=5, pending_max=3, on_conflated=lambda count: None)
        self.running.live[0] = LivePartition(self.running, 0, state.store, state)
        state.on_change = self.hub.listener("table")
        self.followed = None

    def flush(self, acknowledged: int | None = None) -> None:
        self.worker.state.epoch = NO_EPOCH  # the changelog of these tests has no headers
        self.worker.flush(acknowledged)
        self.worker.state.epoch = epoch_bytes(self.epoch)

    def crash(self, acknowledged: int | None, keep: bool, compact: bool, again: int) -> None:
        if acknowledged is not None:
            self.flush(acknowledged)
        self.worker.crash(keep_store=keep, compact=compact, again=again)
        self.epoch += 1
        self._own()

    def standing(self) -> dict[Place, Any]:
        state = self.worker.state
        return {
            (key, start): self.worker.row(key, start, entry)
            for key in state.keys()
            if self.key in (None, key)
            for start, entry in state.windows(key, 0, 1 << 60)
        }

    # --- the subscriber ------------------------------------------------------------------------------------------------

    async def connect(self) -> Followed:
        if self.followed is None:
            one = self.hub.subscribe("table", self.key, condition=self.condition, value_of=self._value_of)
            readings: Any = self
            memo = TurnMemo(readings, Positions(), MARK)
            self.followed = Followed(
                memo,
                self.running,
                self.hub,
                one,
                resume_max=self.resume_max,
                resume_max_ms=FOREVER,
            )
            self.snapshots_came = False
            await self.followed.begin((decode(self.last_id) or {}) if self.last_id else None)
            if not self.last_id:
                self.not_told, self.has = self.standing(), {}
        return self.followed

    def _value_of(self, key: str, start: int) -> Any:
        found = next(self.worker.state.windows(key, start, start + 1), None)
        return None if found is None else self.worker.row(key, *found)

    async def take(self, count: int, arrives: int) -> int:
        """Take some changes, of which the first few arrive; the connection is lost where not all do."""
        followed = await self.connect()
        if followed.behind:
            self.snapshots_came = False
            await followed.catch_up()
        if count % 2:  # as those are told who are woken together, with a memory of what the others were told
            self.hub.pass_on("table")
            self.turns += 1
            self.hub.turn = self.turns
        taken = followed.take(count)
        self.hub.turn = None
        identity = "" if followed.waiting else encode(followed.told)
        for change in taken[:arrives]:
            self._arrived(change)
        if arrives < len(taken):
            self.leave()
        elif identity:
            self.last_id = identity
        return len(taken)

    def _arrived(self, change: Change) -> None:
        found = change.reading
        place = (found.key, 0 if found.window is None else found.window.start)
        if change.resumed is not None:
            if not self.snapshots_came:  # of a key's earlier windows nobody is told in place of the changes
                self.not_told, self.has = self.standing(), {}
                self.snapshots_came = True
            self.resumed.add(change.resumed)
        self.has[place] = dict(found.value)

    def leave(self) -> None:
        if self.followed is not None:
            self.hub.unsubscribe(self.followed._one)
            self.followed = None

    # --- a run ---------------------------------------------------------------------------------------------------------

    async def perform(self, steps: Sequence[Step]) -> None:
        await self.connect()
        for step in steps:
            if step[0] == "read":
                self.worker.read(step[1] % len(self.worker.sources), step[2])
            elif step[0] == "flush":
                self.flush()
            elif step[0] == "crash":
                self.crash(*step[1:])
            elif step[0] == "take":
                await self.take(*step[1:])
            elif step[0] == "leave":
                self.leave()
            elif step[0] == "evict":
                for key, start in [(key, start) for key, starts in self.worker.state.cache.items() for start in starts]:
                    if (key, start) not in self.worker.state.dirty and self.worker.state.sessions is None:
                        self.worker.state.drop_cached(key, start)
            else:
                self.worker.state.advance_idle(*range(len(self.worker.sources)))
        self.worker.read_all()
        while True:
            followed = await self.connect()
            if not await self.take(3, 3) and not followed.waiting:
                break

    def check(self) -> None:
        state, has = self.worker.state, self.has
        for place, row in self.standing().items():
            if self.condition is not None and not self.condition.holds(row):
                continue
            if place in has or place not in self.not_told or self.not_told[place] != row:
                assert has.get(place) == pytest.approx(row), f"{place}: a value that stands was missed"
        for key in state.keys():
            found = reads.current(state, key)
            if self.key in (None, key) and found is not None:
                row = self.worker.row(key, *found)
                if self.not_told.get((key, found[0])) == row:
                    continue  # it has become current by time alone, which is no event
                if self.condition is None or self.condition.holds(row):
                    assert has.get((key, found[0])) == pytest.approx(row), f"{key}: its current value was missed"


def go(client: Client, steps: Sequence[Step]) -> None:
    asyncio.run(client.perform(steps))
    client.check()


@few
@given(streams(), runs, st.sampled_from([0, 7, 40]), st.sampled_from([None, "a"]))
def test_nothing_that_stands_of_tumbling_windows_is_missed(
    sources: list[list[Event]], steps: list[Step], grace: int, key: str | None
) -> None:
    client = Client(definition(Tumbling(10, grace, FOREVER), Candle()), sources, key=key)
    go(client, steps)
    assert not client.resumed, "what can be resumed needs no snapshot"


@few
@given(streams(), runs, st.sampled_from([(12, 4), (9, 9)]))
def test_nothing_that_stands_of_hopping_windows_is_missed(
    sources: list[list[Event]], steps: list[Step], shape: tuple[int, int]
) -> None:
    client = Client(definition(Hopping(*shape, 7, FOREVER), Candle()), sources)
    go(client, steps)
    assert not client.resumed


@few
@given(streams(), runs, st.sampled_from([3, 8]))
def test_nothing_that_stands_of_sessions_is_missed(sources: list[list[Event]], steps: list[Step], gap: int) -> None:
    client = Client(definition(Session(gap, 7, FOREVER), Candle()), sources)
    go(client, steps)
    assert not client.resumed


@few
@given(streams(), runs, st.sampled_from([None, "b"]))
def test_nothing_that_stands_of_a_table_without_windows_is_missed(
    sources: list[list[Event]], steps: list[Step], key: str | None
) -> None:
    client = Client(definition(None, Candle()), sources, key=key)
    go(client, steps)
    assert not client.resumed


@few
@given(streams(3), runs)
def test_nothing_that_stands_of_several_sources_is_missed(sources: list[list[Event]], steps: list[Step]) -> None:
    client = Client(definition(Tumbling(10, 5, FOREVER), Candle(), 3), sources)
    go(client, steps)
    assert not client.resumed


@few
@given(streams(), runs)
def test_newest_value_that_meets_a_condition_is_never_missed(sources: list[list[Event]], steps: list[Step]) -> None:
    go(Client(definition(Tumbling(10, 7, FOREVER), Candle()), sources, condition="close > 0.6"), steps)


@few
@given(streams(), runs, st.sampled_from([0, 1, 2]))
def test_snapshot_in_the_place_of_too_many_changes_says_so_and_misses_nothing(
    sources: list[list[Event]], steps: list[Step], most: int
) -> None:
    client = Client(definition(Tumbling(10, 7, FOREVER), Candle()), sources, resume_max=most)
    go(client, steps)
    assert client.resumed <= {"too_many"}
