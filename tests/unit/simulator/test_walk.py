"""The seeded random walk."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.errors import ConfigurationError
from streamapp.simulator.walk import RandomWalk, iso_time, walk_symbols


def walk(**changes):
    return RandomWalk(**{"seed": 1, "symbols": 3, "rate": 1000, "start_time_ms": 1_700_000_000_000, **changes})


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_walk_depends_on_the_seed_and_not_on_how_it_is_drawn(seed, cuts):
    one, other = walk(seed=seed), walk(seed=seed)

    drawn = [trade for cut in cuts for trade in one.take(cut)]

    assert drawn == other.take(sum(cuts))
    assert one.index == sum(cuts)


def test_walk_is_the_same_on_every_machine():
    first, *_, last = walk(seed=7).take(1000)

    assert (first.symbol, first.trade_id, first.price, first.size) == ("SOL-USD", 1, 148.42, 12.7821)
    assert (last.symbol, last.trade_id, last.price, last.size) == ("SOL-USD", 345, 149.2, 1.1017)


def test_walk_numbers_trades_per_symbol_without_holes_and_sequences_with():
    for symbol in walk().symbols:
        trades = [trade for trade in walk().take(3000) if trade.symbol == symbol]
        steps = {later.sequence - earlier.sequence for earlier, later in itertools.pairwise(trades)}

        assert [trade.trade_id for trade in trades] == list(range(1, len(trades) + 1))
        assert min(steps) == 1
        assert max(steps) > 1


def test_walk_keeps_prices_within_half_and_twice_the_start_and_quotes_around_them():
    trades = walk(symbols=10).take(50_000)
    first = {}
    for trade in trades:
        start = first.setdefault(trade.symbol, trade.price_units)
        assert 0.4 * start < trade.price_units < 2.2 * start
        assert 0 < trade.bid_units <= trade.price_units <= trade.ask_units
        assert trade.bid_units < trade.ask_units
        assert trade.size_units > 0


def test_walk_time_follows_rate_and_scale_without_drift():
    trades = walk(rate=3, time_scale=60).take(301)

    assert trades[0].time_us == 1_700_000_000_000_000
    assert trades[300].time_us - trades[0].time_us == 300 * 20_000_000


def test_walk_prices_are_what_a_parser_of_the_text_gets():
    for trade in walk(symbols=10).take(2000):
        assert trade.price == float(f"{trade.price_units // 100}.{trade.price_units % 100:02d}")
        assert trade.size == float(f"{trade.size_units // 10_000}.{trade.size_units % 10_000:04d}")


def test_walk_symbols_are_distinct_and_extend_each_other():
    assert walk_symbols(12)[:10] == walk_symbols(10)
    assert len(set(walk_symbols(10_000))) == 10_000


@pytest.mark.parametrize("changes", [{"symbols": 0}, {"symbols": 10_001}, {"rate": 0}, {"time_scale": -1}])
def test_walk_out_of_range_is_refused(changes):
    with pytest.raises(ConfigurationError):
        walk(**changes)


def test_iso_time_has_six_decimals():
    assert iso_time(1_700_000_000_000_042) == "2023-11-14T22:13:20.000042Z"
