"""What the gauges tell is of what the worker has now, and of nothing else."""

from types import SimpleNamespace
from typing import Any

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.queries.gauges import Gauges


def _lane(share: float | None) -> Any:
    hot = [] if share is None else [SimpleNamespace(share=share)]
    return SimpleNamespace(hot_keys=SimpleNamespace(top=lambda count: hot[:count]))


def _live(partition: int, watermark: int, entries: int = 0) -> Any:
    state = SimpleNamespace(watermark=watermark, cached_entries=entries)
    return SimpleNamespace(partition=partition, state=state, store=SimpleNamespace(size_bytes=lambda: 100))


def _shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_gauges_of_partitions_that_went_away_are_taken_out():
    metrics, clock = Metrics(), ManualClock(10_000)
    table = SimpleNamespace(name="candles", live={0: _live(0, 4_000), 1: _live(1, 9_000)})
    engine: Any = SimpleNamespace(
        lanes={("trades", 0): _lane(0.5), ("trades", 1): _lane(None)},
        tables={"candles": table},
        metrics=metrics,
        clock=clock,
    )
    gauges = Gauges(engine, {("trades", 0): 7, ("trades", 1): None}.get)
    gauges.look()
    assert _shown(metrics, "streamapp_lag_records") == {("trades", "0"): 7}
    assert _shown(metrics, "streamapp_hot_key_share") == {("trades", "0"): 0.5, ("trades", "1"): 0}
    assert _shown(metrics, "streamapp_watermark_delay_seconds") == {("candles", "0"): 6, ("candles", "1"): 1}

    del engine.lanes["trades", 0], table.live[0]
    gauges.look()
    assert _shown(metrics, "streamapp_lag_records") == {}
    assert _shown(metrics, "streamapp_hot_key_share") == {("trades", "1"): 0}
    assert _shown(metrics, "streamapp_watermark_delay_seconds") == {("candles", "1"): 1}

    engine.lanes["trades", 0] = _lane(0.1)
    gauges.look()
    assert _shown(metrics, "streamapp_lag_records") == {("trades", "0"): 7}


def test_sizes_are_of_restored_partitions_together():
    metrics = Metrics()
    unrestored = _live(2, 0)
    unrestored.state = None
    table = SimpleNamespace(name="candles", live={0: _live(0, 1, 3), 1: _live(1, 1, 4), 2: unrestored})
    engine: Any = SimpleNamespace(lanes={}, tables={"candles": table}, metrics=metrics, clock=ManualClock(0))
    Gauges(engine, lambda place: None).look_at_sizes()
    assert _shown(metrics, "streamapp_store_bytes") == {("candles",): 200}
    assert _shown(metrics, "streamapp_cache_entries") == {("candles",): 7}
