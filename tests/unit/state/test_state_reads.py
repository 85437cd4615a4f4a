"""Which window a read means, by the contract.

tumbling     the newest
hopping      the one that ended last by the watermark, else the newest
session      the newest
at           of the windows that hold the instant the one that began first
"""

import random
from typing import Any

import pytest

from streamapp.state import reads
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session
from tests.fakes.crashes import Event, Worker, definition


def worker(window: Any, *times: int, flushed: bool) -> Worker:
    one = Worker(definition(window, Count()), [[Event("a", time) for time in times]], cache_max_entries=1)
    one.read_all()
    if flushed:
        one.flush()
    return one


both = pytest.mark.parametrize("flushed", [False, True])


def start(found: reads.Found | None) -> int | None:
    return None if found is None else found[0]


def content(found: reads.Found | None) -> object:
    return None if found is None else (found[0], found[1].encode())


@both
def test_tumbling_reads_mean_the_newest(flushed: bool):
    one = worker(Tumbling(10, 100, 1_000), 5, 25, 14, flushed=flushed)
    assert start(reads.current(one.state, "a")) == 20
    assert [start(reads.at(one.state, "a", time)) for time in (0, 9, 10, 19, 20, 29, 30)] == [
        0,
        0,
        10,
        10,
        20,
        20,
        None,
    ]
    assert start(reads.current(one.state, "b")) is None


@both
def test_hopping_reads_mean_the_window_that_ended_last(flushed: bool):
    one = worker(Hopping(20, 5, 100, 1_000), 0, 31, flushed=flushed)
    # by the watermark of 31 the windows up to start 11 have ended; the key has 0 of these, and 15 to 30 still running
    assert start(reads.current(one.state, "a")) == 0
    two = worker(Hopping(20, 5, 100, 1_000), 12, 31, flushed=flushed)
    assert start(reads.current(two.state, "a")) == 10


@both
def test_hopping_reads_mean_the_newest_where_none_has_ended(flushed: bool):
    one = worker(Hopping(20, 5, 100, 1_000), 12, flushed=flushed)
    assert start(reads.current(one.state, "a")) == 10


@both
def test_of_the_hopping_windows_that_hold_an_instant_the_first_is_meant(flushed: bool):
    one = worker(Hopping(20, 5, 100, 1_000), 31, flushed=flushed)
    assert [start(reads.at(one.state, "a", time)) for time in (14, 15, 31, 34, 35, 49, 50)] == [
        None,
        15,
        15,
        15,
        20,
        30,
        None,
    ]


@both
def test_sessions_hold_instants_up_to_their_end(flushed: bool):
    one = worker(Session(10, 100, 1_000), 5, 9, 40, flushed=flushed)
    assert start(reads.current(one.state, "a")) == 40
    assert [start(reads.at(one.state, "a", time)) for time in (4, 5, 18, 19, 39, 40, 49, 50)] == [
        None,
        5,
        5,
        None,
        None,
        40,
        40,
        None,
    ]


@both
def test_of_two_sessions_that_overlap_after_a_close_the_first_is_meant(flushed: bool):
    # the session of 100 is closed at 115; an event at 106 is not late, but begins one of its own
    one = worker(Session(10, 5, 1_000), 100, 115, 106, flushed=flushed)
    assert [start(reads.at(one.state, "a", time)) for time in (100, 105, 109, 110)] == [100, 100, 100, 106]


@both
def test_a_table_without_windows_has_one_value_whatever_the_instant(flushed: bool):
    one = worker(None, 5, 9, flushed=flushed)
    for found in (reads.current(one.state, "a"), reads.at(one.state, "a", 10**12)):
        assert found is not None
        assert found[1].state == [2]


@both
def test_windows_come_in_order_of_start_within_their_bounds(flushed: bool):
    one = worker(Tumbling(10, 1_000, 10_000), 35, 5, 25, 15, flushed=flushed)
    assert [begin for begin, _ in reads.between(one.state, "a", 0, reads.FOREVER)] == [0, 10, 20, 30]
    assert [begin for begin, _ in reads.between(one.state, "a", 10, 30)] == [10, 20]
    assert [begin for begin, _ in reads.between(one.state, "a", -5, -1)] == []
    assert [begin for begin, _ in reads.between(one.state, "a", 0, 1 << 70)] == [0, 10, 20, 30]


def test_is_final_and_end_follow_watermark_and_kind():
    one = worker(Tumbling(10, 5, 1_000), 3, 14, flushed=False)
    [(begin, entry), _] = one.state.windows("a", 0, 100)
    assert (one.state.end_of(begin, entry), one.state.is_final(begin, entry)) == (10, False)
    one.state.stream_times = [15]
    assert one.state.is_final(begin, entry)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(
    "window", [Tumbling(10, 15, 200), Hopping(20, 5, 15, 200), Session(10, 15, 200), None], ids=str
)
def test_newest_window_is_the_same_from_memory_and_from_the_store(window: Any, seed: int):
    draw = random.Random(seed)
    time, events = 0, []
    for _ in range(120):
        time += draw.randrange(4)
        events.append(Event(draw.choice("abc"), max(0, time - draw.randrange(25))))
    one = Worker(definition(window, Count()), [events], cache_max_entries=draw.choice((1, 4, 100)))
    while one.read(0, draw.randrange(1, 20)) is not None:
        if draw.random() < 0.4:
            one.flush()
        for key in "abc":
            expected = content(next(one.state.windows(key, 0, reads.FOREVER, reverse=True), None))
            assert content(reads._newest_open(one.state, key)) in (None, expected)
            if not isinstance(window, Hopping):
                assert content(reads.current(one.state, key)) == expected
