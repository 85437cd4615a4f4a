"""One partition: merging, repeats, lateness, closing, retention, flushing and restoring, rule by rule."""

from dataclasses import replace
from typing import Any

import pytest

from streamapp.errors import DefinitionChangedError, StateError
from streamapp.state import flushing
from streamapp.state.batch import LateRecord
from streamapp.state.cache import CacheBudget
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.fold import Fold
from streamapp.windows.named import Named
from streamapp.windows.sessions import Session
from tests.fakes.crashes import Event, Worker, batch, definition

TEN = Tumbling(10, 0, 1_000)


def worker(window: Any, *times: int, key: str = "a", **options: Any) -> Worker:
    return Worker(definition(window, Count()), [[Event(key, time) for time in times]], **options)


def counts(one: Worker, key: str = "a") -> dict[int, int]:
    return {start: entry.state[0] for start, entry in one.state.windows(key, 0, 1 << 60)}


# --- merging ----------------------------------------------------------------------------------------------------------


def test_a_record_that_comes_again_counts_once():
    one = worker(TEN, 1, 2, 3)
    one.read_all()
    outcome = one.state.apply(batch(one.sources[0]))
    assert (outcome.merged, outcome.repeated) == (0, 3)
    outcome = one.state.apply(batch([Event("a", 3), Event("a", 4)], first=2))
    assert (outcome.merged, outcome.repeated) == (1, 1)
    assert counts(one) == {0: 4}


def test_the_end_of_a_batch_counts_as_applied_even_where_no_record_was_readable():
    one = worker(TEN)
    one.state.apply(batch([], end=7))
    assert one.state.applied == [7]
    plan = one.plan()
    assert plan is not None
    assert list(plan.checkpoint.offsets) == [7]


def test_readers_see_what_is_merged_before_it_is_flushed():
    one = worker(TEN, 1, 12)
    one.read_all()
    assert counts(one) == {0: 1, 10: 1}
    assert one.state.keys() == ["a"]
    assert isinstance(one.state.store, MemoryStore)
    assert one.state.store.size_bytes() == 0


@pytest.mark.parametrize("cache", [1, 200_000])
def test_evicted_windows_are_found_in_the_store_again(cache: int):
    one = worker(Tumbling(10, 0, 100_000), *range(0, 100, 5), cache_max_entries=cache)
    for _ in range(20):
        one.read(0, 1)
        one.flush()
    one.state.apply(batch([Event("a", 99)], first=20))
    assert counts(one) == {start: 2 for start in range(0, 90, 10)} | {90: 3}
    assert cache > 1 or one.state.cached_entries <= 2


def test_keys_with_zero_bytes_live_beside_each_other_also_after_restoring():
    names = ["a", "a\x00", "a\x00b", "a\x00\x00\x00\x00\x00\x00\x00\x00", ""]
    one = Worker(definition(TEN, Count()), [[Event(name, 5) for name in names] * 2])
    one.read(0, len(names))
    one.flush()
    one.crash(keep_store=False)
    assert one.state.keys() == sorted(names)
    one.read(0, len(names))
    assert [counts(one, name) for name in names] == [{0: 2}] * len(names)


# --- failures of the aggregate ----------------------------------------------------------------------------------------


def _refuse_nines(state: int, record: Event) -> int:
    if record.price == 9.0:
        raise ValueError("nine")
    return state + 1


@pytest.mark.parametrize("window", [TEN, Hopping(10, 5, 0, 1_000), Session(10, 0, 1_000), None])
def test_a_record_that_the_aggregate_refuses_leaves_nothing_behind(window: Any):
    fold = Fold(0, _refuse_nines, merge=lambda one, other: one + other)
    state = PartitionState(definition(window, fold), 0, MemoryStore())
    outcome = state.apply(batch([Event("a", 5, 9.0)]))
    assert [position for position, _ in outcome.failed] == [0]
    assert not state.keys()
    assert not state.open
    assert not state.dirty
    assert state.applied == [0], "it is accounted for: a dead letter"
    state.apply(batch([Event("a", 6), Event("a", 6, 9.0), Event("b", 6, 9.0)], first=1))
    assert state.keys() == ["a"]
    assert all(entry.state == [1] for entry in state.cache["a"].values())


def test_a_members_failure_leaves_the_other_members_as_they_were():
    named = Named({"n": Count(), "f": Fold(0, _refuse_nines, merge=lambda one, other: one + other)})
    state = PartitionState(definition(TEN, named), 0, MemoryStore())
    state.apply(batch([Event("a", 5), Event("a", 5, 9.0)]))
    assert state.cache["a"][0].state == [1, 1]


def test_a_refused_record_does_not_move_an_idle_close_beyond_the_real_windows():
    state = PartitionState(definition(TEN, Fold(0, _refuse_nines)), 0, MemoryStore())
    state.apply(batch([Event("a", 5), Event("a", 500, 9.0)]))
    state.stream_times = [5]
    assert state.advance_idle(0)
    assert state.watermark == 10


def test_a_batch_that_breaks_half_way_can_not_be_written():
    one = worker(TEN, 1, 2)

    def explode(*_: Any) -> None:
        raise MemoryError

    one.state.on_change = explode
    with pytest.raises(MemoryError):
        one.read_all()
    with pytest.raises(StateError, match="half-way"):
        one.plan()


# --- lateness and closing ---------------------------------------------------------------------------------------------


def test_lateness_is_judged_record_by_record_and_not_by_the_batch():
    one = worker(Tumbling(10, 5, 1_000), 14, 3, 15, 4, 19)
    one.read_all()
    assert counts(one) == {0: 1, 10: 3}
    assert [(late.offset, late.event_time, late.watermark, late.missed) for late in one.state.late] == [
        (3, 4, 15, (0,))
    ]


def test_a_hopping_record_counts_where_it_can_and_names_what_it_missed():
    one = worker(Hopping(20, 5, 0, 1_000), 26, 12)
    one.read_all()
    assert counts(one) == {10: 2, 15: 1, 20: 1, 25: 1}
    [late] = one.state.late
    assert isinstance(late, LateRecord)
    assert late.missed == (0, 5)


def test_a_window_closes_exactly_at_its_end_plus_grace_and_is_published_once():
    one = worker(Tumbling(10, 5, 1_000), 3, 14, 15)
    one.read(0, 2)
    one.flush()
    assert not one.finals
    one.read(0, 1)
    one.flush()
    one.flush()
    one.flush()
    assert one.finals == {("a", 0): [{"count": 1}]}


def test_two_sources_close_together_and_judge_apart():
    table = definition(TEN, Count(), 2)
    one = Worker(table, [[Event("a", 1), Event("a", 25), Event("a", 2)], [Event("a", 3), Event("a", 12)]])
    one.read(0, 3)
    one.flush()
    assert [late.origin for late in one.state.late] == []
    assert one.late == {(0, 2)}, "late by its own source, though the window is open for the other"
    assert not one.finals
    one.read(1, 1)
    assert counts(one)[0] == 2
    one.read(1, 1)
    one.flush()
    assert one.finals == {("a", 0): [{"count": 2}]}


def test_an_idle_partition_closes_what_is_open_when_told_and_the_checkpoint_says_so():
    one = worker(Tumbling(10, 5, 1_000), 3, 17, 4)
    one.read(0, 2)
    one.flush()
    assert one.finals.keys() == {("a", 0)}
    assert one.state.advance_idle(0)
    assert not one.state.advance_idle(0)
    one.flush()
    assert one.finals.keys() == {("a", 0), ("a", 10)}
    one.crash()
    assert one.state.watermark == 25
    one.read_all()
    assert [late.event_time for late in one.state.late] == [4]


def test_an_idle_source_follows_the_others_and_never_passes_them():
    one = Worker(definition(TEN, Count(), 2), [[Event("a", 35)], [Event("a", 3)]])
    one.read_all()
    assert one.state.advance_idle(1)
    assert one.state.stream_times == [35, 35]
    assert not one.state.advance_idle(0)


def test_sources_that_are_all_idle_close_what_is_open():
    one = Worker(definition(TEN, Count(), 2), [[Event("a", 35)], [Event("a", 3)]])
    one.read_all()
    assert one.state.advance_idle(1, 0)
    assert one.state.stream_times == [40, 40]
    assert not one.state.advance_idle(0, 1)
    one.flush()
    assert one.finals.keys() == {("a", 0), ("a", 30)}


def test_a_source_that_never_sends_holds_nothing_open_once_it_counts_as_idle():
    one = Worker(definition(TEN, Count(), 2), [[Event("a", 5), Event("a", 35)], []])
    one.read_all()
    assert one.state.watermark == -1
    assert one.state.advance_idle(1)
    one.flush()
    assert one.finals.keys() == {("a", 0)}


def test_an_idle_close_waits_for_records_that_restored_values_have_counted():
    one = worker(TEN, 3)
    one.read_all()
    one.flush(1)  # the value, not the checkpoint
    one.crash()
    assert not one.state.advance_idle(0)
    one.read_all()
    assert not one.state.late
    assert one.state.advance_idle(0)


def test_final_records_come_again_unless_a_checkpoint_knows_of_them():
    one = worker(TEN, 3, 15)
    one.read_all()
    one.flush(3)  # two values and the checkpoint, not the final record
    assert not one.finals
    one.crash(keep_store=False)
    one.read_all()
    one.flush()
    assert one.finals == {("a", 0): [{"count": 1}]}
    one.crash(keep_store=False)
    one.flush()
    assert one.finals == {("a", 0): [{"count": 1}] * 2}, "nothing told that they were out"
    one.flush()
    one.crash(keep_store=False)
    assert one.plan() is None


# --- flushing and restoring -------------------------------------------------------------------------------------------


def test_nothing_new_needs_no_checkpoint():
    one = worker(TEN, 3)
    assert one.plan() is None
    one.read_all()
    one.flush()
    assert one.plan() is None


def test_merging_goes_on_between_plan_and_completion():
    one = worker(TEN, 1, 2, 3)
    one.read(0, 1)
    plan = one.plan()
    assert plan is not None
    one.read(0, 1)
    one.state.complete_flush(plan, 5)
    assert counts(one) == {0: 2}
    assert one.state.changelog_offset == 5
    one.state = PartitionState(one.table, 0, one.state.store)
    assert one.state.applied == [0]
    assert counts(one) == {0: 1}


def test_values_ahead_of_the_checkpoint_skip_what_they_have_counted():
    one = worker(TEN, 1, 2, 11)
    one.read(0, 1)
    one.flush()
    one.read_all()
    one.flush(1)  # the window at 0, with two records; neither the window at 10 nor the checkpoint
    for keep in (True, False):
        one.crash(keep_store=keep)
        assert one.state.applied == [0]
        assert one.state.horizon == [1]
        outcome = one.read(0, 5)
        assert outcome is not None
        assert (outcome.merged, outcome.repeated) == (1, 1)
        assert counts(one) == {0: 2, 10: 1}
    one.flush()
    assert one.state.horizon == [-1]


def test_a_session_of_sums_is_exact_after_a_merge_that_was_cut_off():
    events = [Event("a", 100), Event("a", 120), Event("a", 110)]
    for cut in range(6):
        for keep in (True, False):
            one = Worker(definition(Session(11, 50, 1_000), Count()), [events])
            one.read(0, 2)
            one.flush()
            assert counts(one) == {100: 1, 120: 1}
            one.read(0, 1)
            one.flush(cut)
            one.crash(keep_store=keep)
            one.read_all()
            one.flush()
            assert [dict(view) for view in one.views()] == [{("a", 100): {"count": 3}}] * 4, (cut, keep)


def test_a_session_value_comes_before_the_tombstones_of_what_it_covers():
    one = Worker(definition(Session(11, 50, 1_000), Count()), [[Event("a", 100), Event("a", 120), Event("a", 110)]])
    one.read(0, 2)
    one.flush()
    one.read(0, 1)
    plan = one.plan()
    assert plan is not None
    assert [len(plan.values), len(plan.tombstones)] == [1, 1]


def test_a_merge_that_raises_leaves_the_sessions_apart_and_whole():
    def never(one: int, other: int) -> int:
        if one and other and one + other >= 3:
            raise ValueError("too many")
        return one + other

    table = definition(Session(11, 50, 1_000), Fold(0, lambda state, record: state + 1, merge=never))
    state = PartitionState(table, 0, MemoryStore())
    outcome = state.apply(batch([Event("a", 100), Event("a", 120), Event("a", 110)]))
    assert [position for position, _ in outcome.failed] == [2]
    assert {start: entry.state for start, entry in state.windows("a", 0, 1_000)} == {100: [1], 120: [1]}


def test_a_late_record_within_a_restored_session_is_late_again():
    # the session goes on around and after the late record; its value becomes durable, the late record does not
    events = [Event("a", time) for time in (100, 109, 118, 101, 119)]
    one = Worker(definition(Session(10, 6, 1_000), Count()), [events])
    one.read_all()
    assert [late.offset for late in one.state.late] == [3]
    one.flush(1)
    one.crash()
    one.read_all()
    assert [late.offset for late in one.state.late] == [3]
    assert counts(one) == {100: 4}


def test_another_definition_over_the_same_state_is_refused():
    one = worker(TEN, 1)
    one.read_all()
    one.flush()
    with pytest.raises(DefinitionChangedError, match="tables rebuild table"):
        PartitionState(definition(TEN, Sum("price")), 0, one.state.store)
    with pytest.raises(DefinitionChangedError):
        PartitionState(one.table, 0, one.state.store, origins=2)
    longer = replace(one.table, window=Tumbling(10, 5, 2_000))
    assert PartitionState(longer, 0, one.state.store).keys() == ["a"]


# --- retention --------------------------------------------------------------------------------------------------------


def test_expired_windows_leave_readers_at_once_and_the_store_later_and_never_come_back():
    one = worker(Tumbling(10, 0, 20), 1, 12, 25, 2)
    one.read(0, 2)
    one.flush()
    assert counts(one) == {0: 1, 10: 1}
    one.read(0, 1)
    assert counts(one) == {10: 1, 20: 1}
    one.flush()
    one.flush()
    assert [set(view) for view in one.views()] == [{("a", 10), ("a", 20)}] * 4
    one.read(0, 1)
    assert counts(one) == {10: 1, 20: 1}
    assert len(one.state.late) == 1
    one.crash(keep_store=False)
    assert counts(one) == {10: 1, 20: 1}


@pytest.mark.parametrize("window", [Tumbling(10, 0, 20), Session(5, 0, 20)])
def test_windows_restored_from_the_changelog_expire_as_well(window: Any):
    one = Worker(definition(window, Count()), [[Event("a", 1), Event("b", 1), Event("a", 100)]])
    one.read(0, 2)
    one.flush()
    one.crash(keep_store=False)
    one.read_all()
    for _ in range(3):
        one.flush()
    assert [set(view) for view in one.views()] == [{("a", 100)}] * 4
    assert one.state.keys() == ["a"]
    assert one.finals.keys() == {
        ("a", 0 if isinstance(window, Tumbling) else 1),
        ("b", 0 if isinstance(window, Tumbling) else 1),
    }


def test_a_window_is_not_deleted_before_its_final_record_is_out():
    # retention as short as it may be: closing and expiry come in one step
    for cut in range(4):
        one = worker(Tumbling(10, 0, 10), 1, 50)
        one.read_all()
        one.flush(3)  # values and the checkpoint that closes the window, no final record
        one.crash(keep_store=False)
        one.flush(cut)
        one.crash(keep_store=False)
        one.flush()
        assert one.finals.keys() == {("a", 0)}, cut
    one.flush()
    assert [set(view) for view in one.views()] == [{("a", 50)}] * 4


def test_one_flush_deletes_a_bounded_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flushing, "EXPIRE_MAX_PER_FLUSH", 3)
    one = worker(Tumbling(10, 0, 10), *range(0, 100, 10), 500)
    one.read_all()
    one.flush()
    deleted = []
    while (plan := one.plan()) is not None:
        deleted.append(plan.expired)
        one.state.complete_flush(plan, 0)
    assert [number for number in deleted if number] == [3, 3, 3, 1]


def test_one_flush_sends_a_bounded_number_of_final_records_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flushing, "FINALS_MAX_PER_FLUSH", 3)
    names = [f"key-{number}" for number in range(8)]
    events = [Event(name, start + 1) for start in (0, 10) for name in names]
    one = Worker(definition(TEN, Count()), [[*events, Event("last", 500)]])
    one.read_all()
    sent, told, behind = [], [], []
    while (plan := one.plan()) is not None:
        sent.append([(final.start, final.key) for final in plan.finals])
        told.append(plan.checkpoint.closed)
        one.state.complete_flush(plan, len(sent))
        behind.append(one.state.behind)
    assert [len(part) for part in sent] == [3, 3, 3, 3, 3, 1, 0]
    assert [place for part in sent for place in part] == [(start, name) for start in (0, 10) for name in names]
    # a start is told as closed only when the final records of all its keys are out
    assert told == [-1, 9, 9, 19, 19, 19, 500]
    assert behind == [True] * 5 + [False] * 2
    assert one.state.open == {500}


def test_a_crash_between_two_parts_of_a_close_sends_the_final_records_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flushing, "FINALS_MAX_PER_FLUSH", 3)
    names = [f"key-{number}" for number in range(8)]
    one = Worker(definition(TEN, Count()), [[*(Event(name, 1) for name in names), Event("last", 500)]])
    one.read_all()
    for keep_store in (True, False, True):
        one.flush()
        one.flush()
        one.crash(keep_store=keep_store)
    for _ in range(5):
        one.flush()
    assert one.finals.keys() == {(name, 0) for name in names}
    assert all(values == [{"count": 1}] * len(values) for values in one.finals.values())


def test_keys_can_be_asked_for_in_parts():
    one = worker(TEN, 1)
    one.state.apply(batch([Event(name, 2) for name in ("b", "ab", "c", "aa")], first=1))
    one.flush()
    one.state.apply(batch([Event("ac", 3)], first=5))
    assert one.state.keys() == ["aa", "ab", "ac", "b", "c"]
    assert one.state.keys(prefix="a") == ["aa", "ab", "ac"]
    assert one.state.keys(prefix="a", after="aa", limit=1) == ["ab"]
    assert (one.state.key_count, one.state.known_key_count) == (5, 5)


def test_what_a_flush_holds_counts_as_pending_until_it_is_written():
    one = worker(TEN, 1, 12)
    one.read_all()
    assert one.state.pending_bytes > 0
    plan = one.plan()
    assert plan is not None
    assert one.state.pending_bytes > 0
    one.state.complete_flush(plan, 0)
    assert one.state.pending_bytes == 0


def test_a_window_that_changes_again_while_it_is_flushed_is_pending_once():
    one = worker(Tumbling(10, 50, 1_000), 1, 2, 12)
    one.read_all()
    plan = one.plan()
    assert plan is not None
    held = one.state.pending_bytes
    assert held == 2 * one.state.entry_bytes
    one.state.apply(batch([Event("a", 3), Event("a", 13)], first=3))
    assert one.state.pending_bytes == held
    one.state.complete_flush(plan, 0)
    assert one.state.pending_bytes == held, "both have changed since"
    assert one.state.changes == 4


def test_what_was_flushed_is_packed_until_it_is_read_or_changed():
    one = worker(Tumbling(10, 50, 1_000), 1, 12)
    one.read_all()
    one.flush()
    entries = one.state.cache["a"]
    assert [entry.is_packed for entry in entries.values()] == [True, True]
    one.state.apply(batch([Event("a", 13)], first=2))
    assert [entry.is_packed for entry in entries.values()] == [True, False]
    assert counts(one) == {0: 1, 10: 2}


def test_partitions_share_a_budget_of_entries():
    budget = CacheBudget(10)
    states = [PartitionState(definition(TEN, Count()), n, MemoryStore(), cache_budget=budget) for n in range(2)]
    for number, state in enumerate(states):
        state.apply(batch([Event(f"key-{number}", 1) for number in range(9 - number)]))
        plan = state.prepare_flush("c", ("i",), (-1,))
        assert plan is not None
        state.complete_flush(plan, 0)
    assert [state.cached_entries for state in states] == [9, 2]
    assert all(len(state.keys()) == 9 - number for number, state in enumerate(states))
    assert counts_of(states[1]) == {f"key-{number}": 1 for number in range(8)}


def counts_of(state: PartitionState) -> dict[str, int]:
    return {key: entry.state[0] for key in state.keys() for _, entry in state.windows(key, 0, 1 << 60)}


def test_an_aggregate_without_windows_never_closes_or_expires():
    one = worker(None, 5, 500_000)
    one.read_all()
    one.flush()
    assert counts(one) == {0: 2}
    assert not one.finals


def test_candles_of_a_million_events_apart_do_not_share_a_window():
    one = Worker(definition(TEN, Candle()), [[Event("a", 0), Event("a", (1 << 53) - 1)]])
    one.read_all()
    one.flush()
    assert set(one.views()[1]) == {("a", 0), ("a", ((1 << 53) - 1) // 10 * 10)}
