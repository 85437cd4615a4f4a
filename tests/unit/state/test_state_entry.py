"""How windows, their keys and checkpoints are written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.state.entry import (
    MAX_START,
    Checkpoint,
    Entry,
    data_key,
    highest_offsets,
    split_data_key,
    split_time_key,
    time_bound,
    time_key,
    time_key_of,
)

KEYS = [
    "",
    "a",
    "b",
    "coinbase:BTC-USD",
    "Zürich 東京🚀",
    "a\x00",
    "a\x00b",
    "\x00",
    "\x00\x00",
    "a\x00\x00\x00\x01",
    "\xff",
]
STARTS = [0, 1, 255, 256, 1_790_000_040_000, (1 << 53) - 1]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("start", STARTS)
def test_keys_come_back_as_they_were(key: str, start: int):
    assert split_data_key(data_key(key, start)) == (key, start)
    assert split_time_key(time_key(key, start)) == (key, start)
    assert time_key_of(data_key(key, start)) == time_key(key, start)


def test_the_range_of_a_key_holds_its_own_windows_in_order_and_nobody_elses():
    rows = sorted(data_key(key, start) for key in KEYS for start in STARTS)
    for key in KEYS:
        inside = [row for row in rows if data_key(key, 0) <= row < data_key(key, MAX_START)]
        assert [split_data_key(row) for row in inside] == [(key, start) for start in STARTS]


def test_the_index_is_in_order_of_time_whatever_the_keys():
    rows = sorted(time_key(key, start) for key in KEYS for start in STARTS)
    assert [split_time_key(row)[1] for row in rows] == sorted(STARTS * len(KEYS))
    assert time_bound(-5) == time_bound(0) == time_key("", 0)
    assert all((row >= time_bound(256)) == (split_time_key(row)[1] >= 256) for row in rows)


def test_an_entry_comes_back_as_it_was():
    entry = Entry([5, -1, 1 << 40], 1_790_000_040_000, [1, 2.5, "text", None, b"raw", [1, [2]], {"a": 1}, -1])
    again = Entry.decode(entry.encode())
    assert (again.offsets, again.newest, again.state) == (entry.offsets, entry.newest, entry.state)
    assert highest_offsets([entry.encode()]) == entry.offsets


def test_a_packed_entry_is_the_same_to_whoever_reads_or_changes_it():
    entry, like = (Entry([5, -1], 1_790_000_040_000, [1, 2.5, [3]]) for _ in range(2))
    entry.pack(entry.encode(b"ours"))
    assert entry.is_packed
    assert entry.encode(b"ours") == like.encode(b"ours")
    entry.pack(entry.encode(b"ours"))
    assert entry.newest == like.newest
    assert not entry.is_packed
    entry.pack(entry.encode())
    entry.state[2].append(4)
    entry.offsets[1] = 6
    assert (entry.offsets, entry.newest, entry.state) == ([5, 6], like.newest, [1, 2.5, [3, 4]])
    entry.pack(entry.encode())
    assert entry.encode() == Entry([5, 6], like.newest, [1, 2.5, [3, 4]]).encode()


def test_an_entry_has_no_other_attributes_packed_or_not():
    entry = Entry([5], 7, [])
    for _ in range(2):
        with pytest.raises(AttributeError, match="an entry has no price"):
            _ = entry.price  # type: ignore[attr-defined]
        entry.pack(entry.encode())


def test_a_checkpoint_comes_back_as_it_was():
    checkpoint = Checkpoint((5, -1), (7, -1), -1, "print", "cluster", ("one", "two"), (3, -1), epoch=2)
    again = Checkpoint.decode(checkpoint.encode())
    assert list(again.offsets) == [5, -1]
    assert list(again.stream_times) == [7, -1]
    assert (again.closed, again.fingerprint, again.cluster_id) == (-1, "print", "cluster")
    assert (list(again.topic_ids), list(again.committed), again.epoch) == (["one", "two"], [3, -1], 2)


@given(st.lists(st.lists(st.integers(-1, 1 << 60), min_size=2, max_size=2), min_size=1, max_size=8))
def test_the_highest_offsets_are_those_of_each_origin_on_its_own(offsets: list[list[int]]):
    values = [Entry(pair, 1 << 60, ["x"]).encode() for pair in offsets]
    assert highest_offsets(values) == [max(column) for column in zip(*offsets, strict=True)]


@given(st.lists(st.integers(-1, 1 << 60) | st.integers(-1, 70_000), min_size=1, max_size=8), st.integers(0, 1 << 41))
def test_the_highest_offset_of_one_origin_is_found_by_comparing_bytes(offsets: list[int], newest: int):
    assert highest_offsets([Entry([offset], newest, []).encode() for offset in offsets]) == [max(offsets)]
