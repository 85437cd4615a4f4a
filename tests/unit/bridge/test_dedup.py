"""The memory of ids: no repeat within it, bounded, and each stream's newest id survives."""

from hypothesis import given
from hypothesis import strategies as st

from streamapp.bridge.dedup import DedupMemory
from streamapp.feeds.protocol import DedupKey


def test_dedup_tells_repeats_per_stream():
    memory = DedupMemory(ids_per_stream=10, max_ids=100)

    assert memory.is_new(DedupKey("trades|a", "1", None))
    assert not memory.is_new(DedupKey("trades|a", "1", 7))
    assert memory.is_new(DedupKey("trades|b", "1", None))
    assert memory.is_new(DedupKey("quotes|a", "1", None))
    assert memory.knows("trades|a", "1")
    assert not memory.knows("trades|a", "2")


@given(ids=st.lists(st.integers(0, 60), max_size=300), size=st.integers(1, 20))
def test_dedup_never_passes_one_of_the_last_ids_again(ids: list[int], size: int):
    memory = DedupMemory(ids_per_stream=size, max_ids=10_000)
    accepted: list[int] = []
    for number in ids:
        fresh = memory.add("s", str(number))
        if number in accepted[-size:]:
            assert not fresh
        if fresh:
            accepted.append(number)
    assert len(memory) <= 2 * size


def test_dedup_bound_over_all_streams_keeps_every_newest_id():
    memory = DedupMemory(ids_per_stream=1_000, max_ids=50)
    for number in range(200):
        for stream in range(20):
            memory.add(f"s{stream}", str(number))
        assert len(memory) <= 50

    assert all(not memory.add(f"s{stream}", "199") for stream in range(20))


def test_dedup_bound_on_streams_forgets_the_first():
    memory = DedupMemory(ids_per_stream=10, max_ids=1_000, max_streams=3)
    for stream in range(5):
        memory.add(f"s{stream}", "1")

    assert memory.add("s0", "1"), "forgotten"
    assert not memory.add("s4", "1")
