"""Sessions built event by event, or from the sessions of batches, equal those of sorting and splitting everything."""

from datetime import timedelta
from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streamapp.windows.sessions import Session, insert, overlapping, session

times = st.lists(st.integers(0, 300), max_size=30)
gaps = st.integers(1, 40)


def split(found: list[int], gap: int) -> list[tuple[int, int]]:
    """The reference: sort, and cut wherever two neighbours are at least the gap apart."""
    if not found:
        return []
    found = sorted(found)
    cuts = [later for earlier, later in pairwise(found) if later - earlier >= gap]
    spans = []
    for start, following in zip([found[0], *cuts], [*cuts, None], strict=True):
        members = [time for time in found if time >= start and (following is None or time < following)]
        spans.append((start, max(members) + gap))
    return spans


def sessions_of(window: Session, found: list[int]) -> list[tuple[int, int]]:
    known: list[tuple[int, int]] = []
    for time in found:
        known, _, _ = insert(known, window.span_of(time))
    return known


@given(found=times, gap=gaps)
def test_sessions_in_any_order_equal_sort_and_split(found: list[int], gap: int) -> None:
    window = session(timedelta(milliseconds=gap))
    assert sessions_of(window, found) == split(found, gap)


@given(found=times, gap=gaps, time=st.integers(0, 300))
def test_session_insert_reports_what_the_new_session_covers(found: list[int], gap: int, time: int) -> None:
    window = session(timedelta(milliseconds=gap))
    before = sessions_of(window, found)
    after, merged, covered = insert(before, window.span_of(time))
    assert set(before) - set(covered) == set(after) - {merged}
    assert merged[0] <= time < merged[1]
    assert len(covered) <= 2
    assert [before[index] for index in overlapping(before, window.span_of(time))] == covered


@given(found=times, gap=gaps)
def test_session_events_exactly_the_gap_apart_stay_apart(found: list[int], gap: int) -> None:
    window = session(timedelta(milliseconds=gap))
    spaced = [gap * number for number in range(len(found))]
    assert [start for start, _ in sessions_of(window, spaced)] == spaced


@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300)), max_size=12), max_size=4), gap=gaps
)
def test_sessions_of_batches_joined_equal_sort_and_split(batches: list[list[tuple[str, int]]], gap: int) -> None:
    window = session(timedelta(milliseconds=gap))
    known: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    for batch in batches:
        frame = pl.DataFrame(batch, schema={"key": pl.String, "__time": pl.Int64}, orient="row")
        for key, start, end in window.assign(frame, "key").select("key", "__window", "__end").unique().rows():
            known[key], _, _ = insert(known[key], (start, end))
    for key, found in known.items():
        assert found == split([time for batch in batches for name, time in batch if name == key], gap)
