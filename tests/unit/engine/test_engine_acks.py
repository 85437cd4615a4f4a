"""The position to commit never passes a record that is not done."""

import random

from streamapp.engine.acks import AckTracker


def handed(*offsets: int) -> AckTracker:
    tracker = AckTracker()
    for offset in offsets:
        tracker.handed_out(offset)
    return tracker


def test_nothing_is_committed_before_anything_is_done():
    assert AckTracker().position() is None
    assert handed(5, 6).position() is None


def test_the_position_stops_before_the_first_record_that_is_not_done():
    tracker = handed(100, 101, 102, 103)
    for offset in (101, 102, 103):
        tracker.done(offset)
    assert tracker.position() is None
    assert tracker.pending == 4
    tracker.done(100)
    assert tracker.position() == 104
    assert tracker.pending == 0


def test_gaps_in_the_offsets_are_no_obstacle():
    tracker = handed(3, 7, 20)
    tracker.done(3)
    assert tracker.position() == 4
    tracker.done(7)
    assert tracker.position() == 8
    tracker.done(20)
    assert tracker.position() == 21


def test_a_refused_record_is_never_passed_whatever_acknowledges_it():
    tracker = handed(1, 2, 3)
    tracker.done(1)
    tracker.refuse(2)
    tracker.done(2)
    tracker.done(3)
    assert tracker.position() == 2


def test_in_any_order_the_position_is_that_of_the_unbroken_run():
    for seed in range(50):
        chance = random.Random(seed)
        offsets = sorted(chance.sample(range(100), 20))
        tracker, done = handed(*offsets), set[int]()
        for offset in chance.sample(offsets, 20):
            tracker.done(offset)
            done.add(offset)
            run = 0
            while run < 20 and offsets[run] in done:
                run += 1
            assert tracker.position() == (offsets[run - 1] + 1 if run else None)
            assert tracker.pending == 20 - run
