"""The outbox: order, water marks, conflation, what comes back after a failure."""

import asyncio

import pytest

from streamapp.bridge.outbox import Bounds, Entry, Outbox
from streamapp.errors import ConfigurationError

BOUNDS = Bounds(high_records=6, low_records=3, high_bytes=10_000, low_bytes=5_000)


def trade(number: int, key: str = "k") -> Entry:
    return Entry("trades", key.encode(), str(number).encode(), "v")


def quote(number: int, key: str = "k") -> Entry:
    return Entry("quotes", key.encode(), str(number).encode(), "v", replaceable=True)


def values(entries: list[Entry]) -> list[int]:
    return [int(entry.value) for entry in entries]


async def test_outbox_is_full_from_the_high_to_below_the_low_water_mark():
    outbox = Outbox(BOUNDS)
    outbox.put([trade(number) for number in range(5)])
    assert not outbox.full
    outbox.put([trade(5)])
    assert outbox.full
    assert outbox.bound_hits == 1

    taken = outbox.take(10)
    outbox.settle(taken[:3])
    assert outbox.full, "three are left, which is not below three"
    outbox.settle(taken[3:4])
    assert not outbox.full
    async with asyncio.timeout(1):
        await outbox.room()


async def test_outbox_bytes_fill_it_too():
    outbox = Outbox(Bounds(high_records=100, low_records=50, high_bytes=1_000, low_bytes=500))
    outbox.put([Entry("trades", b"", b"x" * 999, "v")])
    assert not outbox.full
    outbox.put([Entry("trades", b"", b"x", "v")])
    assert outbox.full


async def test_outbox_hands_over_in_order_and_stops_behind_a_barrier():
    outbox = Outbox(BOUNDS)
    barrier = trade(1)
    barrier.barrier = True
    outbox.put([trade(0), barrier, trade(2)])

    assert values(outbox.take(10)) == [0, 1]
    assert values(outbox.take(10)) == [2]


async def test_outbox_what_the_client_did_not_take_waits_in_its_old_order():
    outbox = Outbox(BOUNDS)
    outbox.put([trade(number) for number in range(5)])
    outbox.take(4)
    outbox.untake(3)

    assert outbox.in_flight == 1
    assert values(outbox.take(10)) == [1, 2, 3, 4]


async def test_outbox_takes_back_what_is_not_acknowledged_in_order():
    outbox = Outbox(BOUNDS)
    outbox.put([trade(number) for number in range(5)])
    taken = outbox.take(4)
    outbox.settle([taken[1]])

    back = outbox.take_back()
    assert values(back) == [0, 2, 3]
    assert (outbox.in_flight, outbox.records) == (0, 4)

    outbox.give_up_first(len(back), {back[1]})
    assert (outbox.in_flight, outbox.records) == (0, 3)
    assert values(outbox.take(10)) == [0, 3, 4]


async def test_outbox_settles_an_entry_once():
    outbox = Outbox(BOUNDS)
    outbox.put([trade(0), trade(1)])
    taken = outbox.take(2)
    outbox.settle([taken[0], taken[0]])
    outbox.settle([taken[0]])
    assert (outbox.records, outbox.in_flight) == (1, 1)
    outbox.settle([taken[1]])
    assert (outbox.records, outbox.size_bytes) == (0, 0)
    async with asyncio.timeout(1):
        await outbox.drained()


async def test_outbox_conflates_only_replaceable_waiting_entries_above_the_low_mark():
    outbox = Outbox(BOUNDS, conflate=True)
    outbox.put([quote(0), quote(1)])
    assert outbox.records == 2, "below the low-water mark everything is kept"
    outbox.put([trade(2)])

    dropped = outbox.put([quote(3), trade(4), quote(5), quote(6, "other")])

    assert values(dropped) == [3, 5], "each took the place of an older one"
    assert [(entry.topic, int(entry.value)) for entry in outbox.take(10)] == [
        ("quotes", 0),
        ("quotes", 5),
        ("trades", 2),
        ("trades", 4),
        ("quotes", 6),
    ]


async def test_outbox_never_conflates_what_was_handed_over():
    outbox = Outbox(BOUNDS, conflate=True)
    outbox.put([trade(0), trade(1), trade(2), quote(3)])
    taken = outbox.take(4)

    assert outbox.put([quote(4)]) == []
    assert values(taken) == [0, 1, 2, 3]
    assert values(outbox.take(1)) == [4]


async def test_outbox_conflation_keeps_the_byte_count_true():
    outbox = Outbox(BOUNDS, conflate=True)
    outbox.put([trade(0), trade(1), trade(2), quote(3)])
    outbox.put([quote(1_000_000)])
    outbox.settle(outbox.take(10))

    assert (outbox.records, outbox.size_bytes) == (0, 0)


@pytest.mark.parametrize("wrong", [(1, 2, 10, 10), (2, 1, 10, 20), (2, 0, 10, 10)])
def test_bounds_refuse_marks_that_never_let_go(wrong: tuple[int, int, int, int]):
    with pytest.raises(ConfigurationError, match="low water"):
        Bounds(*wrong)
