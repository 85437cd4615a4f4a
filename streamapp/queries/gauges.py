"""Gauges of what a worker has now: lag and skew per source partition, delay per table's partition, sizes per table."""

from collections.abc import Callable, Iterable

from prometheus_client import Gauge

from streamapp.engine.runtime import Engine


class Gauges:
    """Sets the gauges, and takes out those of partitions that went to another worker.

    Args:
        engine: has the lanes, the tables and the metrics.
        lag: records of a source partition that are not applied yet; None where it is not known.
    """

    def __init__(self, engine: Engine, lag: Callable[[tuple[str, int]], int | None]) -> None:
        self._engine = engine
        self._lag = lag
        self._shown: dict[Gauge, set[tuple[str, str]]] = {}

    def look(self) -> None:
        """Lag, skew and delay; cheap enough for several times a second."""
        metrics = self._engine.metrics
        lanes = [((topic, str(partition)), lane) for (topic, partition), lane in self._engine.lanes.items()]
        lags = ((place, self._lag((place[0], int(place[1])))) for place, _ in lanes)
        self._show(metrics.lag, ((place, lag) for place, lag in lags if lag is not None))
        hottest = ((place, lane.hot_keys.top(1)) for place, lane in lanes)
        self._show(metrics.hot_key_share, ((place, hot[0].share if hot else 0) for place, hot in hottest))
        now = self._engine.clock.now_ms()
        self._show(
            metrics.watermark_delay,
            (
                ((table.name, str(live.partition)), (now - live.state.watermark) / 1000)
                for table in self._engine.tables.values()
                for live in table.live.values()
                if live.state is not None and live.state.watermark >= 0
            ),
        )

    def look_at_sizes(self) -> None:
        """Bytes and entries; asks every store."""
        metrics = self._engine.metrics
        for table in self._engine.tables.values():
            active = [(live.store, live.state) for live in table.live.values() if live.state is not None]
            metrics.store_bytes.labels(table.name).set(sum(store.size_bytes() for store, _ in active))
            metrics.cache_entries.labels(table.name).set(sum(state.cached_entries for _, state in active))

    def _show(self, gauge: Gauge, values: Iterable[tuple[tuple[str, str], float]]) -> None:
        shown = set()
        for labels, value in values:
            gauge.labels(*labels).set(value)
            shown.add(labels)
        for labels in self._shown.get(gauge, set()) - shown:
            gauge.remove(*labels)
        self._shown[gauge] = shown
