"""What a worker believes about a feed: only what it has heard itself, and not for long."""

import pytest

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.queries import feed_health
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.model import FeedFreshness
from streamapp.records.models import FeedState, FeedStatus
from streamapp.settings import Settings


def status(state: FeedState, symbol: str | None = None, venue: str = "coinbase", event_time: int = 1) -> bytes:
    return FeedStatus(venue=venue, symbol=symbol, state=state, event_time=event_time).model_dump_json().encode()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def health(clock: ManualClock, changes: list[str]) -> FeedHealth:
    return FeedHealth(Settings(feed_timeout_ms=10_000), metrics=Metrics(), clock=clock, on_change=changes.append)


def test_feed_health_knows_nothing_of_a_venue_without_a_feed(health: FeedHealth):
    assert health.for_key("coinbase:BTC-USD") is None
    assert health.known_good_ms("coinbase:BTC-USD") is None


def test_feed_health_does_not_believe_an_old_heartbeat(health: FeedHealth):
    health.apply([status("connected")], history=True)

    assert health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=False, gaps=0)


def test_feed_health_known_good_counts_from_what_was_said_before_a_restart(health: FeedHealth, clock: ManualClock):
    said = [status("connected", event_time=400_000), status("disconnected", event_time=700_000)]
    health.apply(said, history=True)
    assert health.known_good_ms("coinbase:BTC-USD") == 600_000

    clock.advance(5_000)
    assert health.known_good_ms("coinbase:BTC-USD") == 605_000

    health.apply([status("connected", event_time=1_005_000)], history=False)
    assert health.known_good_ms("coinbase:BTC-USD") == 0


def test_feed_health_known_good_is_never_in_the_future(health: FeedHealth):
    health.apply([status("connected", event_time=1_000_500)], history=True)

    assert health.known_good_ms("coinbase:BTC-USD") == 0


def test_feed_health_known_good_of_a_feed_that_never_was_counts_from_its_first_word(
    health: FeedHealth, clock: ManualClock
):
    health.apply([status("disconnected", event_time=900_000)], history=True)
    health.apply([status("disconnected", venue="kraken")], history=False)
    clock.advance(3_000)
    health.apply([status("disconnected"), status("disconnected", venue="kraken")], history=False)

    assert health.known_good_ms("coinbase:BTC-USD") == 103_000
    assert health.known_good_ms("kraken:BTC-USD") == 3_000


def test_feed_health_believes_a_fresh_heartbeat_until_it_is_missing(
    health: FeedHealth, clock: ManualClock, changes: list[str]
):
    health.apply([status("connected")], history=False)
    clock.advance(10_000)
    health.check_silence()
    assert health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=True, gaps=0)
    assert health.known_good_ms("coinbase:BTC-USD") == 10_000

    changes.clear()
    clock.advance(1)
    health.check_silence()
    assert health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=False, gaps=0)
    assert health.feeds()[0].state == "disconnected"
    assert changes == ["coinbase"]

    health.apply([status("connected")], history=False)
    assert health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=True, gaps=0)


@pytest.mark.parametrize(("state", "connected"), [("connected", True), ("recovered", True), ("disconnected", False)])
def test_feed_health_follows_the_venues_own_state(health: FeedHealth, state: FeedState, connected: bool):
    health.apply([status("connected"), status(state)], history=False)

    assert health.feeds()[0].connected is connected


def test_feed_health_error_of_the_venue_leaves_the_connection(health: FeedHealth):
    health.apply([status("connected"), status("error")], history=False)

    assert (health.feeds()[0].connected, health.feeds()[0].state) == (True, "error")


def test_feed_health_counts_gaps_per_symbol_and_in_all_history_included(health: FeedHealth):
    health.apply([status("gap", "BTC-USD"), status("gap", "ETH-USD")], history=True)
    health.apply([status("gap", "BTC-USD"), status("connected")], history=False)

    assert health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=True, gaps=2)
    assert health.for_key("coinbase:SOL-USD") == FeedFreshness(connected=True, gaps=0)
    info = health.feeds()[0]
    assert (info.gaps, info.symbols) == (3, {"BTC-USD": 2, "ETH-USD": 1})


def test_feed_health_known_good_grows_through_disconnected_heartbeats(health: FeedHealth, clock: ManualClock):
    health.apply([status("connected")], history=False)
    for _ in range(3):
        clock.advance(3_000)
        health.apply([status("disconnected")], history=False)

    assert health.known_good_ms("coinbase:BTC-USD") == 9_000


def test_feed_health_memory_is_bounded(health: FeedHealth, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed_health, "MAX_VENUES", 3)
    monkeypatch.setattr(feed_health, "MAX_SYMBOLS", 2)

    health.apply([status("connected", venue=f"v{number}") for number in range(10)], history=False)
    health.apply([status("gap", f"S{number}", venue="v0") for number in range(10)], history=False)

    assert len(health.feeds()) == 3
    assert (health.feeds()[0].gaps, len(health.feeds()[0].symbols)) == (10, 2)


def test_feed_health_leaves_out_what_cannot_be_read(health: FeedHealth):
    health.apply([b"{", b'{"venue": 5}', status("connected")], history=False)

    assert [info.venue for info in health.feeds()] == ["coinbase"]
