"""When records are taken in bulk, and when as they come."""

from dataclasses import dataclass

from streamapp.clock import ManualClock
from streamapp.engine.batching import TRICKLE_MAX_RECORDS, Batching
from streamapp.engine.pacing import Pace

PAUSE_S, LONGEST_S = 0.003, 0.1
AS_THEY_COME = Pace(PAUSE_S, TRICKLE_MAX_RECORDS)
COLUMNS_FROM = 512  # records of a partition
COST_S = 10e-6  # of a record that is taken singly


@dataclass
class Lane:
    offered: int = 0
    singly: int = 0
    singly_s: float = 0.0
    columns_min_records: int | None = COLUMNS_FROM


class Worker:
    def __init__(self, lanes: int = 4, longest_s: float = LONGEST_S, columns_from: int | None = COLUMNS_FROM) -> None:
        self.clock = ManualClock()
        self.lanes = [Lane(columns_min_records=columns_from) for _ in range(lanes)]
        self.batching = Batching(self.clock, PAUSE_S, longest_s)

    def run(self, rate: int, seconds: float = 2.0, *, singly: bool = True, cost_s: float = COST_S) -> Pace:
        """Records come at a rate, and are taken singly or by columns; the pace after that."""
        for _ in range(int(seconds * 10)):
            self.clock.advance(100)
            for lane in self.lanes:
                count = rate // 10 // len(self.lanes)
                lane.offered += count
                if singly:
                    lane.singly += count
                    lane.singly_s += count * cost_s
            self.batching.look(self.lanes)
        return self.batching.pace


def test_few_records_are_taken_as_they_come() -> None:
    assert Worker().run(20_000) == AS_THEY_COME


def test_records_that_would_keep_the_loop_busy_are_taken_in_bulk() -> None:
    pace = Worker().run(60_000)
    assert pace.pause_s > 0.05
    assert pace.pause_s * 60_000 / 4 >= COLUMNS_FROM  # columns take what an answer brings of a partition
    assert pace.most > pace.pause_s * 60_000  # who keeps up is paced


def test_same_rate_on_a_slower_machine_is_taken_in_bulk() -> None:
    worker = Worker()
    assert worker.run(40_000) == AS_THEY_COME
    assert worker.run(40_000, cost_s=3 * COST_S).pause_s > PAUSE_S


def test_pause_gets_shorter_with_the_rate_and_is_bounded() -> None:
    worker = Worker()
    worker.run(60_000)
    slower, faster = worker.run(60_000, singly=False).pause_s, worker.run(400_000, singly=False).pause_s
    assert PAUSE_S < faster < slower <= LONGEST_S


def test_bulk_lasts_until_a_rate_that_leaves_room_and_not_longer() -> None:
    worker = Worker()
    assert worker.run(60_000) != AS_THEY_COME
    assert worker.run(40_000, singly=False) != AS_THEY_COME  # it began at 50,000: no to and fro about it
    assert worker.run(25_000, singly=False) == AS_THEY_COME


def test_what_one_record_costs_is_forgotten_so_that_it_is_tried_again() -> None:
    worker = Worker()
    assert worker.run(40_000, cost_s=3 * COST_S) != AS_THEY_COME  # something else had the machine for a moment
    assert worker.run(40_000, seconds=120.0, singly=False) == AS_THEY_COME


def test_a_moment_in_which_records_cost_more_changes_nothing() -> None:
    worker = Worker()
    worker.run(30_000)
    assert worker.run(30_000, seconds=0.3, cost_s=2 * COST_S) == AS_THEY_COME


def test_no_bulk_where_the_longest_pause_would_not_fill_the_partitions() -> None:
    assert Worker(lanes=64).run(100_000) == AS_THEY_COME


def test_no_bulk_for_what_is_never_taken_by_columns() -> None:
    assert Worker(columns_from=None).run(60_000) == AS_THEY_COME


def test_no_bulk_where_it_is_turned_off() -> None:
    assert Worker(longest_s=PAUSE_S).run(60_000) == AS_THEY_COME


def test_new_lanes_are_not_compared_with_those_before() -> None:
    worker = Worker()
    worker.run(20_000)
    worker.lanes = [Lane() for _ in range(4)]
    assert worker.run(20_000) == AS_THEY_COME
    assert worker.run(60_000).pause_s > PAUSE_S
