"""The sample finds what is hot, never claims more than there is, and stays small."""

import random

from streamapp.clock import ManualClock
from streamapp.engine.hot_keys import COUNTERS, PERIOD_MS, SAMPLE_EVERY, HotKeys


def shares(hot: HotKeys) -> dict[str, float]:
    return {one.key: one.share for one in hot.top(5)}


def test_hot_key_is_found_with_about_its_share_in_chunks_of_any_size(clock: ManualClock):
    for size in (1, 7, SAMPLE_EVERY, 1_000):
        draw = random.Random(size)
        hot = HotKeys("trades", 2, clock)
        keys = ["hot" if draw.random() < 0.4 else f"k{draw.randrange(5_000)}" for _ in range(60_000)]
        for begin in range(0, len(keys), size):
            hot.observe(keys[begin : begin + size])
        found = shares(hot)
        assert max(found, key=found.__getitem__) == "hot"
        assert 0.3 < found["hot"] <= 0.47
        assert (hot.top(1)[0].topic, hot.top(1)[0].partition) == ("trades", 2)


def test_evenly_spread_keys_are_not_called_hot(clock: ManualClock):
    draw = random.Random(5)
    hot = HotKeys("trades", 0, clock)
    hot.observe([f"k{draw.randrange(100_000)}" for _ in range(200_000)])
    assert all(share < 0.01 for share in shares(hot).values())
    assert len(hot._counts) <= COUNTERS


def test_nothing_is_told_before_enough_was_seen(clock: ManualClock):
    hot = HotKeys("trades", 0, clock)
    hot.observe(["a"] * SAMPLE_EVERY * 10)
    assert hot.top(3) == []


def test_last_whole_period_stands_until_the_next_one_has_enough(clock: ManualClock):
    hot = HotKeys("trades", 0, clock)
    hot.observe(["a"] * SAMPLE_EVERY * 300)
    clock.advance(PERIOD_MS)
    assert shares(hot) == {"a": 1.0}
    hot.observe(["b"] * SAMPLE_EVERY * 10)
    assert shares(hot) == {"a": 1.0}
    hot.observe(["b"] * SAMPLE_EVERY * 300)
    assert shares(hot) == {"b": 1.0}
    clock.advance(PERIOD_MS)
    hot.top(1)
    clock.advance(PERIOD_MS)
    assert shares(hot) == {}
