from datetime import timedelta

import pytest

from streamapp.errors import ConfigurationError
from streamapp.windows.definitions import Hopping, Tumbling, hopping, tumbling
from streamapp.windows.sessions import Session, session

MINUTE = timedelta(minutes=1)


def test_constructors_turn_durations_into_milliseconds() -> None:
    day = timedelta(days=1)
    assert tumbling(MINUTE, grace=timedelta(seconds=10), retention=day) == Tumbling(60_000, 10_000, 86_400_000)
    assert hopping(5 * MINUTE, MINUTE / 2, retention=day) == Hopping(300_000, 30_000, 0, 86_400_000)
    assert session(MINUTE, grace=MINUTE, retention=day) == Session(60_000, 60_000, 86_400_000)


@pytest.mark.parametrize("size", [60, 60.0, "60s", None])
def test_sizes_that_are_no_timedelta_are_refused_and_told_so(size: object) -> None:
    for construct in (tumbling, session, lambda value: hopping(value, MINUTE)):
        with pytest.raises(ConfigurationError, match="expected a timedelta"):
            construct(size)  # type: ignore[operator]


@pytest.mark.parametrize("size", [timedelta(0), timedelta(seconds=-1), timedelta(microseconds=1500)])
def test_sizes_must_be_whole_positive_milliseconds(size: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="whole milliseconds"):
        tumbling(size)


def test_retention_covers_size_and_grace() -> None:
    grace = timedelta(seconds=10)
    assert tumbling(MINUTE, grace=grace, retention=MINUTE + grace).retention_ms == 70_000
    for construct in (tumbling, session):
        with pytest.raises(ConfigurationError, match="shorter than a window and its grace"):
            construct(MINUTE, grace=grace, retention=MINUTE)


def test_default_retention_outlives_long_windows() -> None:
    assert tumbling(MINUTE).retention_ms == 86_400_000
    assert tumbling(timedelta(days=30), grace=timedelta(days=1)).retention_ms == 62 * 86_400_000


def test_hopping_step_leaves_no_instant_uncovered() -> None:
    assert hopping(MINUTE, MINUTE).step_ms == 60_000
    with pytest.raises(ConfigurationError, match="above the size"):
        hopping(MINUTE, 2 * MINUTE)


def test_windows_close_at_end_plus_grace_and_not_a_moment_before() -> None:
    #   0 ----- 60 s (end) ----- 70 s (end + grace)
    window = tumbling(MINUTE, grace=timedelta(seconds=10))
    assert window.end_of(0) == 60_000
    assert window.closes_at(0) == 70_000
    assert window.first_open_start(69_999) == 0
    assert window.first_open_start(70_000) == 60_000


def test_hopping_windows_that_would_begin_before_the_epoch_do_not_exist() -> None:
    window = Hopping(6, 2)
    assert [list(window.starts_for(time)) for time in (0, 1, 2, 5, 6)] == [[0], [0], [0, 2], [0, 2, 4], [2, 4, 6]]


def test_negative_times_are_refused() -> None:
    for window in (Tumbling(10), Hopping(10, 5)):
        with pytest.raises(ValueError, match="at least 0 ms"):
            window.starts_for(-1)
    with pytest.raises(ValueError, match="at least 0 ms"):
        Session(10).span_of(-1)


def test_fingerprints_change_with_what_stored_windows_depend_on_and_with_nothing_else() -> None:
    assert tumbling(MINUTE).fingerprint() == tumbling(MINUTE, grace=MINUTE, retention=timedelta(days=9)).fingerprint()
    found = {w.fingerprint() for w in (Tumbling(6), Tumbling(7), Hopping(6, 6), Hopping(6, 3), Session(6), Session(7))}
    assert len(found) == 6


def test_sessions_close_and_expire_by_their_own_end() -> None:
    #   events 100 and 104, gap 10: [100, 114), closed from 119 on, forgotten 30 after 104
    window = Session(gap_ms=10, grace_ms=5, retention_ms=30)
    assert window.closes_at_end(114) == 119
    assert window.expires_at_end(114) == 134
    assert not window.is_late(104, 118)
    assert window.is_late(104, 119)
