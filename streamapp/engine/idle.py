"""Closing the windows of sources that have gone silent."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamapp.engine.lane import SourceLane
from streamapp.engine.tables import TableTap

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState


def close_idle(lanes: Iterable[SourceLane], now_ms: int, timeout_ms: int) -> None:
    """Close the windows of partitions that have been silent for so long.

    Args:
        lanes: of all partitions that records come from.
        now_ms: monotonic, as the lanes' own times.
        timeout_ms: silence beyond this counts as idle; 0: never.
    """
    if not timeout_ms:
        return
    idle: dict[tuple[str, int], tuple[PartitionState, list[int]]] = {}
    for lane in lanes:
        if not lane.ready or lane.waiting or now_ms - lane.last_activity_ms <= timeout_ms:
            continue
        for tap in lane.taps:
            # what a re-keyed table waits for may only be late in being forwarded, by a worker that is away
            if isinstance(tap, TableTap) and tap.live.state is not None and tap.knows_its_origin:
                found = idle.setdefault((tap.live.table.name, tap.live.partition), (tap.live.state, []))
                found[1].append(tap.source)
    for state, origins in idle.values():
        state.advance_idle(*origins)
