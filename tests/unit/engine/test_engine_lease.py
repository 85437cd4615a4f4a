"""How long a worker may trust its assignment."""

import pytest

from streamapp.clock import ManualClock
from streamapp.engine.lease import Lease
from streamapp.errors import LeaseExpiredError


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(1_000)
    return clock


@pytest.fixture
def lease(clock: ManualClock) -> Lease:
    lease = Lease(clock, session_ms=10_000, rebalance_ms=30_000, margin_ms=1_000)
    lease.attach()
    return lease


def test_lease_without_a_group_never_ends(clock: ManualClock) -> None:
    lease = Lease(clock, session_ms=10_000, rebalance_ms=30_000, margin_ms=1_000)
    clock.advance(1_000_000)
    lease.check()


def test_lease_begins_with_the_first_answer(lease: Lease, clock: ManualClock) -> None:
    assert not lease.valid
    lease.renew(clock.monotonic_ms())
    lease.check()


def test_lease_counts_from_the_sending_and_ends_a_margin_early(lease: Lease, clock: ManualClock) -> None:
    sent = clock.monotonic_ms()
    clock.advance(4_000)
    lease.renew(sent)
    clock.advance(4_999)
    assert lease.valid
    clock.advance(1)
    assert not lease.valid
    with pytest.raises(LeaseExpiredError):
        lease.check()


def test_answer_that_was_late_does_not_shorten_a_lease(lease: Lease, clock: ManualClock) -> None:
    lease.renew(clock.monotonic_ms())
    lease.renew(clock.monotonic_ms() - 900)
    clock.advance(8_999)
    assert lease.valid


def test_rebalance_that_lasts_too_long_ends_the_lease_though_the_broker_answers(
    lease: Lease, clock: ManualClock
) -> None:
    lease.renew(clock.monotonic_ms())
    for _ in range(14):
        clock.advance(2_000)
        lease.renew(clock.monotonic_ms(), rebalancing=True)
        assert lease.valid
    clock.advance(1_000)
    lease.renew(clock.monotonic_ms(), rebalancing=True)
    assert not lease.valid


def test_forgotten_member_has_no_lease_until_it_is_back(lease: Lease, clock: ManualClock) -> None:
    lease.renew(clock.monotonic_ms())
    lease.lapse()
    assert not lease.valid
    assert lease.forgotten
    lease.renew(clock.monotonic_ms())
    lease.join()
    assert lease.valid
    assert not lease.forgotten


def test_partitions_that_were_given_back_are_not_answered_for_until_others_are_assigned(
    lease: Lease, clock: ManualClock
) -> None:
    lease.renew(clock.monotonic_ms())
    lease.release()
    lease.renew(clock.monotonic_ms())
    assert not lease.valid
    lease.take()
    assert lease.valid


def test_margin_never_takes_all_of_a_short_session(clock: ManualClock) -> None:
    lease = Lease(clock, session_ms=1_000, rebalance_ms=30_000, margin_ms=5_000)
    lease.attach()
    lease.renew(clock.monotonic_ms())
    assert lease.valid
