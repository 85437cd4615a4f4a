"""Whatever crashes, and wherever: windows, final records and late records come out as if nothing had.

A run is a list of steps; a crash cuts a checkpoint after any number of its acknowledgements, keeps the disk or loses it, and
leaves the changelog as it is or compacted.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.tables.market import MarketLatest
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session
from tests.fakes.crashes import Event, Worker, definition
from tests.fakes.lanes import use_lane
from tests.fakes.window_reference import Expected, check_row, fixed, sessions

FOREVER = 1_000_000

Step = tuple[Any, ...]
reads = st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 12))
flushes = st.tuples(st.just("flush"))
crashes = st.tuples(
    st.just("crash"),
    st.none() | st.integers(0, 5) | st.integers(0, 25),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
)
runs = st.lists(reads | reads | flushes | crashes | crashes, max_size=25)

few = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def columns_from_three_records_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches shall take the column lane too."""
    use_lane(monkeypatch, "arrays", 3)


@st.composite
def streams(draw: st.DrawFn, origins: int = 1) -> list[list[Event]]:
    """Per origin a list of events whose times wander; sequences are unique, so that open and close are."""
    serial = iter(range(10_000))
    found = []
    for _ in range(origins):
        base = 0
        events = []
        for ahead, behind, key, price in draw(
            st.lists(
                st.tuples(st.integers(0, 9), st.integers(0, 30), st.sampled_from("ab"), st.integers(1, 9)),
                min_size=1,
                max_size=40,
            )
        ):
            base += ahead
            time = max(base - (behind if behind < 20 else 0), 0)
            events.append(Event(key, time, price / 7, price / 3, sequence=next(serial)))
        found.append(events)
    return found


def perform(worker: Worker, steps: Sequence[Step]) -> None:
    for step in steps:
        if step[0] == "read":
            worker.read(step[1] % len(worker.sources), step[2])
        elif step[0] == "flush":
            worker.flush()
        else:
            _, acknowledged, keep, compact, late_first, again = step
            if acknowledged is not None:
                worker.flush(acknowledged, late_first=late_first)
            worker.crash(keep_store=keep, compact=compact, again=again)


def finish(worker: Worker) -> None:
    worker.read_all()
    worker.flush()
    worker.flush()  # what a flush leaves over (the note that final records are out, expired windows)


def check(worker: Worker, expected: Expected) -> None:
    for view in worker.views():
        assert view.keys() == expected.windows.keys()
        for place, row in view.items():
            check_row(row, expected.windows[place])
    assert worker.late == expected.late
    assert worker.finals.keys() == expected.closed
    for place, values in worker.finals.items():
        check_row(values[0], expected.windows[place])
        assert all(value == values[0] for value in values), "a final record came again with another value"
    assert worker.state.watermark == expected.watermark
    assert worker.plan() is None, "nothing is left to write"


@few
@given(streams(), runs, st.sampled_from([0, 7, 40]), st.sampled_from([1, 200_000]))
def test_tumbling_windows_survive_crashes_anywhere(
    sources: list[list[Event]], steps: list[Step], grace: int, cache: int
):
    worker = Worker(definition(Tumbling(10, grace, FOREVER), Candle()), sources, cache)
    perform(worker, steps)
    finish(worker)
    check(worker, fixed(sources, 10, 10, grace))


@few
@given(streams(), runs, st.sampled_from([(12, 4), (10, 3), (9, 9)]), st.sampled_from([0, 7, 40]))
def test_hopping_windows_survive_crashes_anywhere(
    sources: list[list[Event]], steps: list[Step], shape: tuple[int, int], grace: int
):
    size, hop = shape
    worker = Worker(definition(Hopping(size, hop, grace, FOREVER), Candle()), sources)
    perform(worker, steps)
    finish(worker)
    check(worker, fixed(sources, size, hop, grace))


@few
@given(streams(), runs, st.sampled_from([3, 8]), st.sampled_from([0, 7, 40]))
def test_session_windows_survive_crashes_anywhere(sources: list[list[Event]], steps: list[Step], gap: int, grace: int):
    worker = Worker(definition(Session(gap, grace, FOREVER), Candle()), sources)
    perform(worker, steps)
    finish(worker)
    check(worker, sessions(sources[0], gap, grace))


@few
@given(streams(3), runs, st.booleans())
def test_windows_over_several_origins_survive_crashes_anywhere(
    sources: list[list[Event]], steps: list[Step], rekeyed: bool
):
    table = definition(Tumbling(10, 5, FOREVER), Candle(), 1 if rekeyed else 3)
    if rekeyed:
        table = replace(table, rekey=lambda record: record.key, rekey_name="key")
    worker = Worker(table, sources)
    perform(worker, steps)
    finish(worker)
    check(worker, fixed(sources, 10, 10, 5))


@few
@given(streams(2), runs)
def test_latest_values_of_two_sources_survive_crashes_anywhere(sources: list[list[Event]], steps: list[Step]):
    worker = Worker(definition(None, MarketLatest(), 2), sources)
    perform(worker, steps)
    finish(worker)
    expected: dict[str, dict[str, Any]] = {}
    for source, names in enumerate((("price", "size", "side"), ("bid", "ask"))):
        time_name = ("trade_time", "quote_time")[source]
        ordered = sorted(enumerate(sources[source]), key=lambda item: (item[1].event_time, item[1].sequence, item[0]))
        for _, event in ordered:
            fields = {name: getattr(event, name) for name in names}
            expected.setdefault(event.key, {}).update({**fields, time_name: event.event_time})
    for view in worker.views():
        assert view.keys() == {(key, 0) for key in expected}
        for (key, _), row in view.items():
            for name, value in expected[key].items():
                assert row[name] == value
    assert not worker.finals
    assert not worker.late


@few
@given(streams(2), runs, st.sampled_from([3, 8]))
def test_sessions_over_two_origins_lose_and_repeat_nothing(sources: list[list[Event]], steps: list[Step], gap: int):
    # which of two sessions takes an event may depend on how the origins interleave; that each is counted once may not
    worker = Worker(definition(Session(gap, 5, FOREVER), Candle(), 2), sources)
    perform(worker, steps)
    finish(worker)
    views = worker.views()
    for view in views:
        assert view.keys() == views[0].keys()
        assert sum(row["count"] for row in view.values()) + len(worker.late) == sum(map(len, sources))
    for place, values in worker.finals.items():
        assert all(value == values[0] for value in values)
        assert views[0][place] == values[0]


idle = st.tuples(st.just("idle"))


@few
@given(streams(), st.lists(reads | reads | flushes | crashes | idle, max_size=25), st.booleans())
def test_idle_closing_never_publishes_two_values_of_one_window(
    sources: list[list[Event]], steps: list[Step], in_sessions: bool
):
    # idle time-outs depend on the clock, so a crash may undo one; what is published must stand all the same
    window = Session(8, 5, FOREVER) if in_sessions else Tumbling(10, 5, FOREVER)
    worker = Worker(definition(window, Candle()), sources)
    for step in steps:
        if step[0] == "idle":
            worker.flush()
            if worker.state.advance_idle(0):
                worker.flush()
        else:
            perform(worker, [step])
    finish(worker)
    views = worker.views()
    for view in views:
        assert view == views[0]
    assert sum(row["count"] for row in views[0].values()) + len(worker.late) == len(sources[0])
    for place, values in worker.finals.items():
        assert all(value == values[0] for value in values)
        assert views[0][place] == values[0]


@few
@given(streams(), runs, st.sampled_from(["tumbling", "hopping", "session"]))
def test_retention_survives_crashes_anywhere(sources: list[list[Event]], steps: list[Step], kind: str):
    grace, retention = 5, 30
    if kind == "session":
        window: Any = Session(8, grace, retention)
        expected = sessions(sources[0], 8, grace)
        kept = {place for place, end in expected.ends.items() if end - 8 + retention > expected.watermark}
    else:
        step = 10 if kind == "tumbling" else 5
        window = Tumbling(10, grace, retention) if kind == "tumbling" else Hopping(10, 5, grace, retention)
        expected = fixed(sources, 10, step, grace)
        kept = {place for place in expected.windows if place[1] + retention > expected.watermark}
    worker = Worker(definition(window, Candle()), sources)
    perform(worker, steps)
    finish(worker)
    for view in worker.views():
        assert view.keys() == kept
        for place, row in view.items():
            check_row(row, expected.windows[place])
    assert worker.state.keys() == sorted({key for key, _ in kept})
    assert worker.finals.keys() == expected.closed
    assert worker.late == expected.late
