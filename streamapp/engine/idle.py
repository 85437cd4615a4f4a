"""Closing the windows of sources that have gone silent."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from streamapp.engine.lane import SourceLane
from streamapp.engine.rekeying import ForwardTap, RekeyedTap
from streamapp.engine.tables import TableTap

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState


def close_idle(lanes: Iterable[SourceLane], timeout_ms: int, emptied_ms: Callable[[str, int], int | None]) -> None:
    """Close the windows of partitions that have been silent for so long.

    A lane to which nothing comes is not silent yet: its partition may be held back, by an agent that is slow or for want of
    memory, or the brokers may be away, while records wait there. So silence counts up to the last fetch that found nothing.
    Where a silent lane forwards to a re-keyed table, that is noted, to be told to the table's partitions.

    Args:
        lanes: of all partitions that records come from.
        timeout_ms: silence beyond this counts as idle; 0: never.
        emptied_ms: when a fetch of a partition last found that nothing waits behind what was handed over; monotonic, as
            the lanes' own times, or None.
    """
    if not timeout_ms:
        return
    idle: dict[tuple[str, int], tuple[PartitionState, set[int]]] = {}
    for lane in lanes:
        settled = lane.ready and not lane.waiting
        emptied = emptied_ms(lane.topic, lane.partition) if settled else None
        silent = emptied is not None and emptied - lane.last_activity_ms > timeout_ms
        for tap in lane.taps:
            if isinstance(tap, ForwardTap):
                tap.silent = silent
            elif isinstance(tap, TableTap) and tap.live.state is not None and settled:
                if silent or isinstance(tap, RekeyedTap):
                    place = (tap.live.table.name, tap.live.partition)
                    idle.setdefault(place, (tap.live.state, set()))[1].update(tap.idle_origins)
    for state, origins in idle.values():
        if origins:
            state.advance_idle(*origins)
