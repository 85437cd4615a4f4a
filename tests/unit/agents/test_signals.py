import statistics
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.agents.signals import Signals
from streamapp.windows.aggregate import State

MINUTE_MS = 60_000


def final(minute: int, close: float | None, volume: float, open_: float | None = 100.0) -> SimpleNamespace:
    start = minute * MINUTE_MS
    value = {"open": open_, "close": close, "volume": volume, "count": 1}
    return SimpleNamespace(key="sim:A", window_start=start, window_end=start + MINUTE_MS, value=value)


def feed(signals: Signals, state: State, candles: list[SimpleNamespace]) -> None:
    for offset, candle in enumerate(candles):
        signals.add(state, candle, (candle.window_end, -1, offset))


def quiet(count: int, seed: int = 1) -> list[SimpleNamespace]:
    random = Random(seed)
    return [final(minute, 100 + random.uniform(-0.1, 0.1), 10 + random.uniform(-1, 1)) for minute in range(count)]


def shown(signals: Signals, state: State) -> dict[str, Any]:
    return dict(signals.result(state, None))


def test_signals_need_thirty_candles_before_they_judge() -> None:
    for before, visible in ((29, False), (30, True)):
        signals = Signals()
        state = signals.initial()
        feed(signals, state, [*quiet(before), final(before, 100.0, 1_000.0)])
        assert signals.visible(state) is visible


def test_signal_equals_the_z_score_against_the_thirty_before_it() -> None:
    signals, candles = Signals(), quiet(40)
    state = signals.initial()
    feed(signals, state, [*candles, final(40, 100.0, 50.0)])
    volumes = [candle.value["volume"] for candle in candles[-30:]]
    mean, stddev = statistics.mean(volumes), statistics.stdev(volumes)
    assert shown(signals, state) == {
        "kind": "volume_spike",
        "z": pytest.approx((50.0 - mean) / stddev, rel=1e-9),
        "value": 50.0,
        "mean": pytest.approx(mean, rel=1e-9),
        "stddev": pytest.approx(stddev, rel=1e-9),
        "window_start": 40 * MINUTE_MS,
    }


def test_signal_tells_a_fall_as_a_negative_price_move() -> None:
    signals = Signals()
    state = signals.initial()
    feed(signals, state, [*quiet(30), final(30, 90.0, 10.0)])
    assert shown(signals, state)["kind"] == "price_move"
    assert shown(signals, state)["z"] < -3


def test_signal_with_the_larger_z_wins_where_both_fire() -> None:
    for close, volume, kind in ((101.0, 1e6, "volume_spike"), (200.0, 20.0, "price_move")):
        signals = Signals()
        state = signals.initial()
        feed(signals, state, [*quiet(30), final(30, close, volume)])
        assert shown(signals, state)["kind"] == kind


def test_signal_of_the_newest_anomaly_stays_through_quiet_candles() -> None:
    signals = Signals()
    state = signals.initial()
    feed(signals, state, [*quiet(30), final(30, 100.0, 100.0), final(31, 100.0, 10.0)])
    assert shown(signals, state)["window_start"] == 30 * MINUTE_MS


def test_signals_skip_a_final_record_that_comes_again() -> None:
    signals, candles = Signals(), [*quiet(35), final(35, 100.0, 100.0)]
    once, twice = signals.initial(), signals.initial()
    feed(signals, once, candles)
    feed(signals, twice, [*candles[:20], *candles[10:], *candles[30:]])
    assert once == twice


def test_signals_stay_silent_over_a_constant_baseline() -> None:
    signals = Signals()
    state = signals.initial()
    feed(signals, state, [*(final(minute, 100.1, 0.1) for minute in range(30)), final(30, 200.0, 99.0)])
    assert not signals.visible(state)


def test_signals_skip_candles_without_prices() -> None:
    signals, state = Signals(), Signals().initial()
    feed(signals, state, [*quiet(30), final(30, None, 10.0, None), final(31, 90.0, 10.0)])
    assert shown(signals, state)["window_start"] == 31 * MINUTE_MS


def test_signals_before_any_anomaly_have_fields_without_values() -> None:
    signals = Signals()
    assert signals.result(signals.initial(), None) == dict.fromkeys(field.name for field in signals.fields)


def test_signals_are_ordered_and_cannot_be_merged() -> None:
    signals = Signals()
    assert signals.ordered
    assert signals.expressions() is None
    with pytest.raises(TypeError, match="no merge"):
        signals.merge(signals.initial(), signals.initial())
