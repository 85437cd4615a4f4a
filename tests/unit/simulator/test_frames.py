"""Frames of the simulator, read back by the project's own protocol and by json."""

import json

import pytest

from streamapp.feeds.protocol import Rejected
from streamapp.simulator.faults import FaultPlan, FaultSettings
from streamapp.simulator.frames import FrameEncoder, heartbeat_text, match_text
from streamapp.simulator.server import encode_frames
from streamapp.simulator.walk import RandomWalk, iso_time
from tests.fakes.feed_frames import NOW_MS, gaps, protocol, records


def run(count, *, ticker_every=0, seed=3, **faults):
    walk = RandomWalk(seed=seed, symbols=4, rate=500, start_time_ms=1_700_000_000_000)
    encoder = FrameEncoder(FaultPlan(seed, FaultSettings(**faults)), ticker_every)
    trades = walk.take(count)
    frames = encoder.encode(trades) + encoder.flush()
    subject = protocol("coinbase")
    events = [event for _, _, text in frames for event in subject.receive(text, NOW_MS)]
    return trades, frames, events


def ids(events):
    return [(record["symbol"], int(record["trade_id"])) for record in records(events) if "trade_id" in record]


def test_frames_carry_every_trade_of_the_walk_exactly():
    trades, _, events = run(2000)

    assert [
        (one["symbol"], one["trade_id"], one["sequence"], one["price"], one["size"], one["side"], one["event_time"])
        for one in records(events)
    ] == [
        (one.symbol, str(one.trade_id), one.sequence, one.price, one.size, one.taker, one.event_time) for one in trades
    ]
    assert gaps(events) == []


def test_frames_have_a_ticker_with_every_nth_trade_of_a_product():
    trades, frames, events = run(500, ticker_every=5)

    tickers = [json.loads(text) for channel, _, text in frames if channel == "ticker"]
    assert [(one["product_id"], one["trade_id"]) for one in tickers] == [
        (one.symbol, one.trade_id) for one in trades if one.trade_id % 5 == 0
    ]
    quotes = [record for record in records(events) if "bid" in record]
    assert len(quotes) == len(tickers)
    assert all(quote["bid"] < quote["ask"] for quote in quotes)


def test_frames_with_gaps_lack_exactly_what_the_protocol_reports():
    trades, _, events = run(3000, gaps=0.05)

    told = ids(events)
    missing = {(one.symbol, one.trade_id) for one in trades} - set(told)
    first = {symbol: min(number for name, number in told if name == symbol) for symbol, _ in told}
    last = {symbol: max(number for name, number in told if name == symbol) for symbol, _ in told}
    reported = {(symbol, number) for symbol, start, end in gaps(events) for number in range(start, end)}
    assert 90 < len(missing) < 210
    assert reported == {one for one in missing if first[one[0]] < one[1] < last[one[0]]}


def test_frames_with_duplicates_repeat_and_lose_nothing():
    trades, _, events = run(2000, duplicates=0.1)

    assert len(ids(events)) > len(trades)
    assert list(dict.fromkeys(ids(events))) == [(one.symbol, one.trade_id) for one in trades]


def test_frames_with_reordering_lose_nothing_and_move_a_trade_by_three_at_most():
    trades, _, events = run(2000, reorder=0.2)

    expected = [(one.symbol, one.trade_id) for one in trades]
    got = ids(events)
    assert got != expected
    assert sorted(got) == sorted(expected)
    place = {one: number for number, one in enumerate(expected)}
    assert all(abs(place[one] - number) <= 9 for number, one in enumerate(got))


def test_frames_with_garbage_lose_nothing_and_every_piece_is_rejected():
    trades, frames, events = run(2000, malformed=0.1)

    garbage = [text for channel, _, text in frames if not channel]
    assert len(garbage) > 100
    assert len([event for event in events if isinstance(event, Rejected)]) == len(garbage)
    assert ids(events) == [(one.symbol, one.trade_id) for one in trades]


@pytest.mark.parametrize("cut", [1, 7, 1999])
def test_frames_and_faults_do_not_depend_on_how_the_walk_is_cut(cut):
    faults = FaultSettings(gaps=0.05, duplicates=0.05, reorder=0.05, malformed=0.05)
    trades, frames, _ = run(2000, ticker_every=3, **faults.model_dump())
    encoder = FrameEncoder(FaultPlan(3, faults), 3)

    assert encoder.encode(trades[:cut]) + encoder.encode(trades[cut:]) + encoder.flush() == frames


def test_heartbeat_names_the_last_trade_that_happened():
    walk = RandomWalk(seed=1, symbols=1, rate=10, start_time_ms=0)
    walk.take(12)

    assert json.loads(heartbeat_text(walk, "BTC-USD"))["last_trade_id"] == 12


def test_match_tells_the_makers_side():
    (trade,) = RandomWalk(seed=1, symbols=1, rate=10, start_time_ms=0).take(1)

    message = json.loads(match_text(trade, "last_match", iso_time(trade.time_us)))

    assert {message["side"], trade.taker} == {"buy", "sell"}
    assert message["type"] == "last_match"


def test_encoded_frames_are_unmasked_text_frames():
    data = encode_frames(["a" * 5, "b" * 125, "c" * 126, "d" * 40_000])

    sizes = []
    while data:
        assert data[0] == 0x81
        size, start = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4]), 4)
        sizes.append(size)
        data = data[start + size :]
    assert sizes == [5, 125, 126, 40_000]
