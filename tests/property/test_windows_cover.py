"""Fixed windows cover every instant exactly as they are defined, and close and expire in order."""

from datetime import timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streamapp.windows.definitions import Hopping, Tumbling, hopping, tumbling

instants = st.integers(0, 2**45)
sizes = st.integers(1, 10**8)


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


@st.composite
def hops(draw: st.DrawFn) -> Hopping:
    step = draw(st.integers(1, 10**6))
    size = step * draw(st.integers(1, 20)) + draw(st.integers(0, step - 1))
    return hopping(ms(size), ms(step), grace=ms(draw(st.integers(0, 10**6))))


@given(size=sizes, time=instants)
def test_tumbling_holds_each_instant_in_exactly_one_window(size: int, time: int) -> None:
    window = tumbling(ms(size))
    (start,) = window.starts_for(time)
    assert start % size == 0
    assert start <= time < window.end_of(start)


@given(size=sizes, number=st.integers(1, 10**6))
def test_tumbling_boundary_belongs_to_the_window_that_starts_there(size: int, number: int) -> None:
    window = tumbling(ms(size))
    assert list(window.starts_for(number * size)) == [number * size]
    assert list(window.starts_for(number * size - 1)) == [(number - 1) * size]


@given(window=hops(), time=instants)
def test_hopping_holds_each_instant_in_every_window_that_spans_it(window: Hopping, time: int) -> None:
    starts = list(window.starts_for(time))
    # By definition, from far enough below to far enough above.
    nearest = time // window.step_ms
    candidates = range(max(0, nearest - window.size_ms // window.step_ms - 2), nearest + 3)
    spanning = [n * window.step_ms for n in candidates if 0 <= time - n * window.step_ms < window.size_ms]
    assert starts == spanning


@given(step=st.integers(1, 10**6), times=st.integers(1, 20), time=st.integers(2 * 10**7, 2**45))
def test_hopping_covers_an_instant_size_over_step_times(step: int, times: int, time: int) -> None:
    assert len(hopping(ms(step * times), ms(step)).starts_for(time)) == times


@given(window=st.one_of(hops(), st.builds(Tumbling, sizes, st.integers(0, 10**6))), time=instants)
def test_first_open_start_parts_the_open_windows_from_the_closed(window: Tumbling | Hopping, time: int) -> None:
    first = window.first_open_start(time)
    assert first % window.step_ms == 0
    assert window.closes_at(first) > time
    assert first == 0 or window.closes_at(first - window.step_ms) <= time
    assert all(start >= first for start in window.starts_for(time))


@given(window=hops(), time=instants)
def test_windows_expire_after_they_close(window: Hopping, time: int) -> None:
    first = window.first_kept_start(time)
    assert first <= window.first_open_start(time)
    assert window.expires_at(first) > time
    assert window.expires_at(first) >= window.closes_at(first)


@given(window=hops(), time=instants)
def test_panes_lie_wholly_in_or_out_of_every_window(window: Hopping, time: int) -> None:
    pane = time - time % window.pane_ms
    assert list(window.starts_for(pane)) == list(window.starts_for(pane + window.pane_ms - 1))


@given(
    window=st.one_of(hops(), st.builds(Tumbling, sizes)),
    times=st.lists(instants, min_size=1, max_size=20),
)
def test_vectorised_assignment_equals_starts_for(window: Tumbling | Hopping, times: list[int]) -> None:
    assigned = window.assign(pl.DataFrame({"__time": times}))
    expected = [(time, start) for time in times for start in window.starts_for(time)]
    assert assigned.select("__time", "__window").rows() == expected
