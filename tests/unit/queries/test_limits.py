"""Buckets of requests and of values read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.clock import ManualClock
from streamapp.errors import ConfigurationError, RateLimitedError
from streamapp.queries.limits import LimitBook, Limits, Rates, parse_token_limits


def limits(clock: ManualClock, **rates: float) -> tuple[Limits, list[str]]:
    refused: list[str] = []
    return Limits(Rates(**rates), clock, refused.append), refused  # type: ignore[arg-type]


def test_burst_passes_and_then_the_rate() -> None:
    clock = ManualClock()
    bound, refused = limits(clock, requests_per_s=2, burst=3)
    for _ in range(3):
        bound.take_request()
    with pytest.raises(RateLimitedError) as error:
        bound.take_request()
    assert (error.value.retry_after_s, refused) == (1, ["requests"])
    clock.advance(500)
    bound.take_request()
    with pytest.raises(RateLimitedError):
        bound.take_request()


@given(
    st.floats(0.01, 5_000),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 60)), max_size=30),
)
def test_whoever_waits_as_told_is_let_in_and_nobody_gets_more_than_the_rate(
    per_s: float, burst: int, steps: list[tuple[int, int]]
) -> None:
    clock = ManualClock()
    bound, _ = limits(clock, requests_per_s=per_s, burst=burst)
    let_in = 0
    for pause_ms, count in steps:
        clock.advance(pause_ms)
        for _ in range(count):
            try:
                bound.take_request()
                let_in += 1
            except RateLimitedError as error:
                clock.advance((error.retry_after_s or 0) * 1000)
                bound.take_request()
                let_in += 1
    assert let_in <= burst + per_s * clock.elapsed_ms / 1000 + 1e-3


@given(st.integers(1, 10_000), st.lists(st.integers(0, 50_000), min_size=1, max_size=10))
def test_values_read_are_paid_for_within_the_time_told(cost_per_min: int, reads: list[int]) -> None:
    clock = ManualClock()
    bound, _ = limits(clock, cost_per_min=cost_per_min)
    waits: list[int] = []
    for count in reads:
        try:
            bound.check_cost()
        except RateLimitedError as error:
            waits.append(error.retry_after_s or 0)
            clock.advance(waits[-1] * 1000)
            bound.check_cost()
        bound.spend(count)
    # no debt is paid for longer than it takes to forget it
    assert max(waits, default=0) <= 61 + 60 // cost_per_min


def test_large_read_makes_the_next_one_wait() -> None:
    clock = ManualClock()
    bound, refused = limits(clock, cost_per_min=600)
    bound.check_cost()
    bound.spend(600 + 100)
    with pytest.raises(RateLimitedError, match="600 values per minute") as error:
        bound.check_cost()
    assert error.value.retry_after_s == 11  # 100 are owed and one more has to be there, at ten per second
    assert refused == ["cost"]
    bound.take_request()  # requests have no bound here


def test_entry_of_a_name_takes_defaults_where_it_is_empty() -> None:
    default = Rates(10, 20, 30)
    assert parse_token_limits(" a:1:2:3, b:::, oauth:x:y:0.5::0 ,", default) == {
        "a": Rates(1, 2, 3),
        "b": default,
        "oauth:x:y": Rates(0.5, 20, 0),
    }


@pytest.mark.parametrize(
    "setting",
    ["a", "a:1:2", ":1:2:3", "a:x:2:3", "a:1:-2:3", "a:inf:1:1", "a:nan:1:1", "a:1:1:1,a:2:2:2",
     "a:1:1.5:1"],
)  # fmt: skip
def test_malformed_entry_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="token_limits"):
        parse_token_limits(setting, Rates())


def test_book_is_bounded_and_gives_a_caller_the_same_limits() -> None:
    book = LimitBook(Rates(1, 1, 0), {"free": Rates()}, ManualClock(), lambda _name, _reason: None, callers_max=3)
    assert book.of("free") is None
    first = book.of("a")
    for number in range(2):
        book.of(f"x{number}")
        assert book.of("a") is first
    for number in range(100):
        book.of(f"y{number}")
    assert len(book) == 3
