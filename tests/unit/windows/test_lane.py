import polars as pl

from streamapp.windows.aggregate import OFFSET, SEQUENCE, TIME
from streamapp.windows.basic import Count
from streamapp.windows.edges import Last
from streamapp.windows.lane import aggregate_frame, in_order

FRAME = pl.DataFrame(
    {"key": ["a", "b", "a"], "x": [1.0, 2.0, 3.0], TIME: [5, 5, 5], SEQUENCE: [-1, 2, 2], OFFSET: [0, 1, 2]}
)


def test_lane_leaves_a_frame_in_order_as_it_is() -> None:
    assert in_order(FRAME) is FRAME
    assert in_order(FRAME.head(1)).height == 1
    assert in_order(FRAME.clear()).is_empty()


def test_lane_sorts_by_time_then_sequence_then_offset() -> None:
    assert in_order(FRAME.reverse()).equals(FRAME)
    swapped = FRAME.with_columns(pl.Series(SEQUENCE, [2, 2, -1]))
    assert in_order(swapped)[OFFSET].to_list() == [2, 0, 1]
    tied = FRAME.with_columns(pl.Series(SEQUENCE, [7, 7, 7])).reverse()
    assert in_order(tied)[OFFSET].to_list() == [0, 1, 2]


def test_lane_gives_one_state_per_group_whatever_the_order_of_rows() -> None:
    expected = {("a",): [3.0, 5, 2, 2], ("b",): [2.0, 5, 2, 1]}
    for frame in (FRAME, FRAME.reverse()):
        assert dict(aggregate_frame(frame, Last("x"), ["key"]) or []) == expected


def test_lane_is_refused_where_a_required_input_is_null() -> None:
    holes = FRAME.with_columns(pl.Series("x", [None, 2.0, 3.0]))
    assert aggregate_frame(holes, Last("x"), ["key"]) is None
    assert dict(aggregate_frame(holes, Count("x"), ["key"]) or []) == {("a",): [1], ("b",): [1]}
