"""What `staleness_ms` says until all is applied that came while nobody read."""

from types import SimpleNamespace
from typing import Any

from streamapp.clock import ManualClock
from streamapp.queries.freshness import FreshnessBook

PLACE = ("trades", 0)
ENTRY: Any = SimpleNamespace(offsets=[4], newest=40_000)


class Bench:
    """A book over one source partition of which offsets up to 4 are applied and 99 is the last."""

    def __init__(self) -> None:
        self.clock = ManualClock(100_000)
        self.lane = SimpleNamespace(applied=4, first_arrival_ms=None)
        self.fetched: tuple[int, int] | None = None
        engine: Any = SimpleNamespace(lanes={PLACE: self.lane}, clock=self.clock, tables={})
        health: Any = SimpleNamespace(for_key=lambda _key: None)
        self.book = FreshnessBook(engine, health, lambda *_: self.fetched, self.clock)
        table = SimpleNamespace(input_topics=["trades"], definition=SimpleNamespace(rekey=None))
        self.live: Any = SimpleNamespace(table=table, partition=0, state=SimpleNamespace(watermark=1))

    def fetch(self, first_arrival_ms: int | None) -> None:
        self.fetched = (100, self.clock.now_ms())
        self.lane.first_arrival_ms = first_arrival_ms

    @property
    def staleness_ms(self) -> int:
        return self.book.of(self.live, "a", ENTRY).staleness_ms


def test_staleness_after_a_restart_counts_from_the_first_record_that_came_meanwhile():
    bench = Bench()
    bench.fetch(70_000)
    assert bench.staleness_ms == 30_000

    bench.clock.advance(500)
    bench.lane.applied = 98
    assert bench.staleness_ms == 30_500

    bench.lane.applied = 99
    assert bench.staleness_ms == 500


def test_staleness_is_small_where_nothing_came_meanwhile():
    bench = Bench()
    bench.lane.applied = 99
    bench.fetch(None)
    bench.clock.advance(20)

    assert bench.staleness_ms == 20


def test_staleness_before_it_is_known_what_came_meanwhile_is_the_values_age():
    bench = Bench()
    bench.book.observe()
    bench.clock.advance(40)
    assert bench.staleness_ms == 60_040

    bench.fetch(None)  # there is more, which has not been handed over yet
    assert bench.staleness_ms == 60_040

    bench.fetch(99_000)
    assert bench.staleness_ms == 1_040


def test_staleness_does_not_shrink_by_an_arrival_in_the_future():
    bench = Bench()
    bench.book.observe()
    bench.fetch(900_000)
    bench.clock.advance(40)

    assert bench.staleness_ms == 40
