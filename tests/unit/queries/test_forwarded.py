"""How fresh a re-keyed table is: no fresher than each partition of its source has been forwarded, whoever does it."""

from types import SimpleNamespace
from typing import Any

from streamapp.clock import ManualClock
from streamapp.engine.forwarding import Forwarded, encode
from streamapp.engine.tables import RunningTable
from streamapp.kafka.admin import Commit
from streamapp.queries.forwarded import ForwardedBook, Sightings
from streamapp.queries.freshness import FreshnessBook
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from tests.fakes.crashes import definition

OWN, OTHER, REKEY = ("source-0", 0), ("source-0", 1), ("app-table-rekey", 0)


class Cluster:
    """What the cluster says of the other worker's source partition."""

    def __init__(self) -> None:
        self.end, self.forwarded, self.topic_id, self.asked = 10, 10, "its-id", 0

    async def end_offsets(self, places: Any) -> dict[tuple[str, int], int]:
        self.asked += 1
        return dict.fromkeys(places, self.end)

    async def commits(self, group: str, places: Any) -> dict[tuple[str, int], Commit | None]:
        assert group == "app"
        return {place: Commit(3, encode({"table": Forwarded(self.topic_id, self.forwarded)})) for place in places}


class Bench:
    """A worker that forwards partition 0 of two and reads partition 0 of the re-key topic."""

    def __init__(self) -> None:
        self.clock, self.admin = ManualClock(100_000), Cluster()
        table = RunningTable(
            definition(Tumbling(10, 0, 1_000), Count(), rekey=str, rekey_name="text"), "app", 2, 2, ("its-id", "source")
        )
        self.lanes = {place: SimpleNamespace(applied=9, first_arrival_ms=None) for place in (OWN, REKEY)}
        self.fetched = dict.fromkeys((OWN, REKEY), (10, 100_000))
        engine: Any = SimpleNamespace(
            lanes=self.lanes, clock=self.clock, tables={"table": table}, admin=self.admin, app_id="app"
        )
        health: Any = SimpleNamespace(for_key=lambda _key: None)
        self.book = FreshnessBook(engine, health, lambda *place: self.fetched[place], self.clock)
        self.live: Any = SimpleNamespace(table=table, partition=0, state=SimpleNamespace(watermark=1))

    def fetch(self, place: tuple[str, int], end: int) -> None:
        self.fetched[place] = (end, self.clock.now_ms())

    def told(self) -> tuple[int, int | None]:
        """Staleness and lag of a value whose newest event came at 40,000."""
        entry: Any = SimpleNamespace(offsets=[4], newest=40_000)
        found = self.book.of(self.live, "a", entry)
        return found.staleness_ms, found.lag


async def test_a_value_is_as_old_as_its_newest_event_until_all_forwarding_is_known():
    bench = Bench()
    assert bench.told() == (60_000, None)
    bench.book.observe()
    assert bench.told() == (60_000, None)
    await bench.book.forwarded.look()
    bench.fetch(REKEY, 10)
    bench.clock.advance(1)
    assert bench.told() == (1, 0)


async def test_what_another_worker_has_not_forwarded_makes_a_value_stale_and_lag():
    bench = Bench()
    await bench.book.forwarded.look()
    bench.book.observe()
    bench.admin.end = 17
    for _ in range(4):
        bench.clock.advance(1_000)
        bench.fetch(OWN, 10)
        bench.fetch(REKEY, 10)
        bench.book.observe()
        await bench.book.forwarded.look()
    assert bench.told() == (4_000, 7)
    bench.admin.forwarded = 17
    await bench.book.forwarded.look()
    bench.clock.advance(300)
    assert bench.told() == (300, 0), "nothing has come since, and all is read"


async def test_what_is_forwarded_behind_the_end_of_the_last_fetch_is_not_read_yet():
    bench = Bench()
    bench.book.observe()
    await bench.book.forwarded.look()
    bench.clock.advance(1_000)
    bench.fetch(OWN, 12)
    bench.lanes[OWN].applied = 11
    bench.book.observe()
    assert bench.told() == (1_000, 0), "the re-key topic was fetched before these were sent to it"
    bench.fetch(REKEY, 12)
    bench.lanes[REKEY].applied = 11
    await bench.book.forwarded.look()
    assert bench.told() == (0, 0)


async def test_own_records_that_are_not_forwarded_count_as_lag():
    bench = Bench()
    bench.book.observe()
    await bench.book.forwarded.look()
    bench.clock.advance(1_000)
    bench.fetch(OWN, 15)
    bench.fetch(REKEY, 10)
    bench.book.observe()
    assert bench.told() == (1_000, 5)


async def test_a_commit_of_another_rekey_topic_tells_nothing_of_this_one():
    bench = Bench()
    bench.book.observe()
    bench.admin.topic_id = "before-the-rebuild"
    await bench.book.forwarded.look()
    assert bench.told() == (60_000, 10)


async def test_a_worker_that_forwards_everything_asks_nobody():
    bench = Bench()
    bench.lanes[OTHER] = SimpleNamespace(applied=9, first_arrival_ms=None)
    await bench.book.forwarded.look()
    assert bench.admin.asked == 0


def test_sightings_answer_for_the_time_up_to_which_is_read():
    sightings = Sightings()
    assert sightings.by(1_000) is None
    for at in range(1_000, 2_000, 10):
        sightings.add(at - 5, at)
    assert sightings.by(999) is None
    assert sightings.by(5_000) == 1_985
    assert 1_400 <= (sightings.by(1_500) or 0) <= 1_495
    sightings.add(1_000, 3_000)
    assert sightings.by(5_000) == 1_985, "older news"
    book = ForwardedBook(SimpleNamespace(tables={}))  # type: ignore[arg-type]
    book.note(OWN, 5)  # no table is re-keyed: nothing to remember
    assert not book._sightings
