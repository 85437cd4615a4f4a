"""Events that come out of order by at most the grace give what the sorted ones give."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session
from tests.fakes.crashes import Event, Worker, definition
from tests.fakes.window_reference import Expected, check_row, fixed, sessions

GRACE = 12
KINDS = {
    "tumbling": (Tumbling(10, GRACE, 1_000_000), lambda found: fixed([found], 10, 10, 1_000_000)),
    "hopping": (Hopping(12, 5, GRACE, 1_000_000), lambda found: fixed([found], 12, 5, 1_000_000)),
    "session": (Session(4, GRACE, 1_000_000), lambda found: sessions(found, 4, 1_000_000)),
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from("abc"), st.integers(0, GRACE)), min_size=1, max_size=60),
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_shuffles_within_the_grace_equal_the_sorted_reference(
    steps: list[tuple[int, str, int]], kind: str, size: int, chance: random.Random
):
    time, arrivals = 0, []
    for serial, (ahead, key, delay) in enumerate(steps):
        time += ahead
        event = Event(key, time, chance.randrange(1, 100) / 7, chance.randrange(1, 100) / 3, sequence=serial)
        arrivals.append((time + delay, chance.random(), event))
    in_order = [event for _, _, event in arrivals]
    shuffled = [event for _, _, event in sorted(arrivals)]
    window, reference = KINDS[kind]
    worker = Worker(definition(window, Candle()), [shuffled])
    while worker.read(0, size) is not None:
        worker.flush()
    expected: Expected = reference(in_order)
    views: list[dict[Any, Any]] = worker.views()
    for view in views:
        assert view.keys() == expected.windows.keys()
        for place, row in view.items():
            check_row(row, expected.windows[place])
    assert not worker.late
    for place, values in worker.finals.items():
        check_row(values[0], expected.windows[place])
        assert len(values) == 1
