"""Back-off: bounds of every pause, forgiveness, the circuit."""

import random

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import ConfigurationError
from streamapp.feeds.backoff import Backoff, BackoffPolicy

POLICY = BackoffPolicy(initial_ms=100, max_delay_ms=1_000, stable_ms=5_000, circuit_failures=6, circuit_pause_ms=60_000)


class Extreme(random.Random):
    """Draws the same number every time."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


def test_backoff_bound_doubles_up_to_the_maximum():
    backoff = Backoff(POLICY, rng=Extreme(0.999999), clock=ManualClock())

    assert [backoff.failed() for _ in range(5)] == [99, 199, 399, 799, 999]


def test_backoff_jitter_is_full_and_seeded():
    first, again = (Backoff(POLICY, rng=random.Random(7), clock=ManualClock()) for _ in range(2))
    pauses = [first.failed() for _ in range(5)]

    assert pauses == [again.failed() for _ in range(5)]
    assert Backoff(POLICY, rng=Extreme(0.0), clock=ManualClock()).failed() == 0


def test_backoff_short_connection_does_not_forgive():
    clock = ManualClock()
    backoff = Backoff(POLICY, rng=Extreme(0.999999), clock=clock)
    backoff.failed()
    backoff.connected()
    clock.advance(POLICY.stable_ms - 1)

    assert backoff.failed() == 199


def test_backoff_stable_connection_forgives_all_failures():
    clock = ManualClock()
    backoff = Backoff(POLICY, rng=Extreme(0.999999), clock=clock)
    for _ in range(4):
        backoff.failed()
    backoff.connected()
    clock.advance(POLICY.stable_ms)

    assert backoff.failed() == 99


def test_backoff_circuit_opens_after_failures_in_a_row_and_pauses_long():
    clock = ManualClock()
    backoff = Backoff(POLICY, rng=Extreme(0.0), clock=clock)
    for _ in range(POLICY.circuit_failures - 1):
        backoff.failed()
    assert not backoff.circuit_open

    assert backoff.failed() == POLICY.circuit_pause_ms // 2
    assert backoff.circuit_open

    backoff.connected()
    assert backoff.circuit_open, "one connection proves nothing yet"
    clock.advance(POLICY.stable_ms)
    assert not backoff.circuit_open


def test_backoff_gives_up_after_the_maximum_of_tries():
    backoff = Backoff(BackoffPolicy(max_tries=3), rng=random.Random(1), clock=ManualClock())

    assert backoff.failed() is not None
    assert backoff.failed() is not None
    assert backoff.failed() is None
    assert backoff.exhausted


def test_backoff_never_overflows_after_many_failures():
    policy = BackoffPolicy(initial_ms=1, max_delay_ms=50, circuit_failures=10_000)
    backoff = Backoff(policy, rng=random.Random(3), clock=ManualClock())

    assert all(0 <= (backoff.failed() or 0) <= 50 for _ in range(5_000))


@pytest.mark.parametrize(
    "wrong", [{"initial_ms": 0}, {"initial_ms": 10, "max_delay_ms": 5}, {"max_tries": 0}, {"circuit_failures": 0}]
)
def test_backoff_policy_refuses_a_busy_loop(wrong: dict[str, int]):
    with pytest.raises(ConfigurationError, match="back-off"):
        BackoffPolicy(**wrong)
