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
        self.begin, self.end, self.forwarded, self.stream_time = 0, 10, 10, -1
        self.topic_id, self.asked = "its-id", 0

    async def begin_offsets(self, places: Any) -> dict[tuple[str, int], int]:
        return dict.fromkeys(places, self.begin)

    async def end_offsets(self, places: Any) -> dict[tuple[str, int], int]:
        self.asked += 1
        return dict.fromkeys(places, self.end)

    async def commits(self, group: str, places: Any) -> dict[tuple[str, int], Commit | None]:
        assert group == "app"
        told = Forwarded(self.topic_id, self.forwarded, self.stream_time)
        return {place: Commit(3, encode({"table": told})) for place in places}


class Bench:
    """A worker that forwards partition 0 of two and reads partition 0 of the re-key topic."""

    def __init__(self) -> None:
        self.clock, self.admin = ManualClock(100_000), Cluster()
        table = RunningTable(
            definition(Tumbling(10, 0, 1_000), Count(), rekey=str, rekey_name="text"), "app", 2, 2, ("its-id", "source")
        )
        self.rekey_end = 10
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

    def read_on(self) -> None:
        """Fetch the re-key topic, a while later, and apply all of it."""
        self.clock.advance(100)
        self.fetch(REKEY, self.rekey_end)
        self.lanes[REKEY].applied = self.rekey_end - 1
        self.book.observe()

    async def settle(self, later_ms: int = 100) -> None:
        """Fetch the own source partition again, look at the other, and read the re-key topic."""
        self.clock.advance(later_ms)
        self.fetch(OWN, max(self.fetched[OWN][0], self.lanes[OWN].applied + 1))
        self.book.observe()
        await self.book.forwarded.look()
        self.read_on()

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
    bench.read_on()
    assert bench.told() == (100, 0)


async def test_what_another_worker_has_not_forwarded_makes_a_value_stale_and_lag():
    bench = Bench()
    await bench.settle()
    bench.admin.end = 17
    for _ in range(4):
        bench.clock.advance(1_000)
        await bench.settle()
    staleness_ms, lag = bench.told()
    assert (lag, 4_000 <= staleness_ms <= 5_500) == (7, True)
    bench.admin.forwarded = 17
    await bench.settle()
    bench.clock.advance(300)
    assert bench.told() == (400, 0), "nothing has come since, and all is read"


async def test_an_origin_that_is_away_is_not_forgotten_while_another_one_is_not_known():
    bench = Bench()
    await bench.settle()
    bench.admin.end = 17
    bench.clock.advance(600_000)
    bench.lanes[OWN] = SimpleNamespace(
        applied=9, first_arrival_ms=bench.clock.now_ms() - 5
    )  # a lane that has just begun
    bench.book._caught_up.pop(OWN, None)
    bench.book.forwarded._sightings.pop(("table", 0), None)
    bench.fetch(OWN, 5_000)
    await bench.settle()
    staleness_ms, lag = bench.told()
    assert staleness_ms >= 600_000
    assert lag == 4_990 + 7


async def test_own_backlog_after_a_start_is_as_old_as_its_first_record():
    bench = Bench()
    bench.lanes[OWN].first_arrival_ms = 30_000
    bench.fetch(OWN, 5_000)
    await bench.settle()
    assert bench.told()[0] >= 70_000, "though the newest event of the value, of another origin, is of 40,000"


async def test_another_workers_backlog_from_before_the_start_is_as_old_as_what_it_has_forwarded():
    bench = Bench()
    bench.admin.end, bench.admin.stream_time = 17, 20_000
    await bench.settle()
    staleness_ms, lag = bench.told()
    assert staleness_ms >= 80_000
    assert lag == 7


async def test_what_is_forwarded_behind_the_end_of_the_last_fetch_is_not_read_yet():
    bench = Bench()
    await bench.settle()
    bench.clock.advance(1_000)
    bench.fetch(OWN, 12)
    bench.lanes[OWN].applied = 11
    bench.book.observe()
    staleness_ms, lag = bench.told()
    assert (staleness_ms >= 1_000, lag) == (True, 0), "the re-key topic was fetched before these were sent to it"
    bench.rekey_end = 12
    await bench.settle()
    assert bench.told() == (100, 0)


async def test_own_records_that_are_not_forwarded_count_as_lag():
    bench = Bench()
    await bench.settle()
    bench.clock.advance(1_000)
    bench.fetch(OWN, 15)
    bench.read_on()
    staleness_ms, lag = bench.told()
    assert (staleness_ms >= 1_000, lag) == (True, 5)


async def test_a_commit_of_another_rekey_topic_tells_nothing_of_this_one():
    bench = Bench()
    bench.admin.topic_id = "before-the-rebuild"
    await bench.settle()
    staleness_ms, lag = bench.told()
    assert (staleness_ms >= 60_000, lag) == (True, None)


async def test_a_partition_that_retention_has_emptied_holds_nothing_back():
    bench = Bench()
    bench.admin.topic_id = "before-the-rebuild"
    bench.admin.begin = 10
    await bench.settle()
    assert bench.told() == (100, 0)


async def test_a_worker_that_forwards_everything_asks_nobody_and_forgets_what_it_was_told():
    bench = Bench()
    await bench.settle()
    bench.admin.end = 17
    await bench.settle()
    asked = bench.admin.asked
    bench.lanes[OTHER] = SimpleNamespace(applied=9, first_arrival_ms=None)
    await bench.book.forwarded.look()
    assert bench.admin.asked == asked
    assert bench.book.forwarded.behind(bench.live.table, 1) is None


async def test_a_clock_that_is_set_back_does_not_make_a_value_fresh_nor_stale_for_long():
    bench = Bench()
    bench.clock.advance(3_600_000)
    await bench.settle()
    bench.admin.end = 17
    bench.clock.advance(20_000)
    await bench.settle()
    bench.clock.wall_ms -= 3_600_000
    await bench.settle()
    staleness_ms, lag = bench.told()
    assert (staleness_ms >= 20_000, lag) == (True, 7)
    bench.admin.forwarded = 17
    await bench.settle()
    assert bench.told() == (100, 0)


async def test_forwarding_that_is_behind_steadily_is_as_stale_as_it_is_behind():
    bench = Bench()
    for second in range(400):
        bench.admin.end, bench.admin.forwarded = 100 + second, max(10, second - 200)  # 300 seconds behind
        bench.clock.advance(1_000)
        await bench.settle(0)
    staleness_ms, lag = bench.told()
    assert 300_000 <= staleness_ms <= 450_000, "older than it is at the worst by what was forgotten between"
    assert lag == 300


def test_sightings_answer_for_the_time_up_to_which_is_read():
    sightings = Sightings()
    assert sightings.by(1_000) is None
    for at in range(1_000, 200_000, 100):
        sightings.add(at - 5, at)
    assert sightings.by(999) is None
    assert sightings.by(300_000) == 199_895
    assert sightings.by(1_050) == 995, "the oldest is kept"
    assert len(sightings._pairs) <= 128
    assert 190_000 <= (sightings.by(199_000) or 0) <= 198_995
    sightings.add(1_000, 300_000)
    assert sightings.by(400_000) == 199_895, "older news"
    book = ForwardedBook(SimpleNamespace(tables={}))  # type: ignore[arg-type]
    book.note(OWN, 5)  # no table is re-keyed: nothing to remember
    assert not book._sightings
