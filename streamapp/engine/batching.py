"""Whether records are taken as they come, or in bulk because there are too many to be taken one by one.

The record lane works on the event loop, some microseconds per record, and readers wait meanwhile. The column lane takes a
fraction of that, but only pays from many records of a partition on (`ByColumns.min_records`). As long as the records that
come need only a small part of the loop's time they are fetched every few milliseconds, which keeps them fresh. Beyond it,
fetches are so far apart that the column lane takes what they bring: records get a little older, and readers have the loop.
"""

from collections.abc import Iterable
from typing import Protocol

from streamapp.clock import Clock
from streamapp.engine.pacing import Pace

#: records of an answer that the small pace explains
TRICKLE_MAX_RECORDS = 1_024
_LOOK_MS = 250
#: part of the event loop's time that the record lane may take, and that it must be expected to take to be trusted again
_SHARE_MAX, _SHARE_BACK = 0.5, 0.3
#: of a partition, in one answer, times what columns need: well above it, as partitions differ; and the least for which it is
#: done
_BULK, _BULK_MIN = 2, 1.5
#: while no record is taken singly, what one costs is known less and less: half of it after half a minute
_FORGET = 0.994
#: how much the newest look counts
_NEWS = 0.25


class Feeding(Protocol):
    """What is looked at of a lane; all counts only grow."""

    #: records that it was offered
    offered: int
    #: records that it took one by one, and the seconds that took
    singly: int
    singly_s: float

    @property
    def columns_min_records(self) -> int | None:
        """From how many records on all that it feeds gains by columns; None where something of it takes none."""
        ...


class Batching:
    """Chooses the pace of fetches for the lanes of a worker.

    Args:
        clock: for the rate.
        pause_s: from one fetch to the next while records are taken as they come.
        pause_max_s: the longest pause in bulk; where it is not longer than `pause_s`, nothing is taken in bulk.
    """

    def __init__(self, clock: Clock, pause_s: float, pause_max_s: float) -> None:
        self._clock = clock
        self._pause_max_s = pause_max_s
        self._as_they_come = Pace(pause_s, TRICKLE_MAX_RECORDS)
        self.pace = self._as_they_come
        self._looked_ms = clock.monotonic_ms()
        self._seen = (0, 0, 0.0)
        self._cost_s = 0.0  # of one record that is taken singly

    def look(self, lanes: Iterable[Feeding]) -> bool:
        """Choose anew where it is time to; True where `pace` is another one now."""
        now = self._clock.monotonic_ms()
        elapsed_s = (now - self._looked_ms) / 1000
        if elapsed_s * 1000 < _LOOK_MS:
            return False
        fed = [lane for lane in lanes if lane.columns_min_records is not None]
        seen = (sum(lane.offered for lane in fed), sum(lane.singly for lane in fed), sum(lane.singly_s for lane in fed))
        offered, singly, singly_s = (new - old for new, old in zip(seen, self._seen, strict=True))
        self._looked_ms, self._seen = now, seen
        if offered < 0 or singly < 0:
            return False  # other lanes than the last time: from the next time on they can be compared
        if singly:
            cost_s = singly_s / singly
            self._cost_s += (cost_s - self._cost_s) * _NEWS if self._cost_s else cost_s
        else:
            self._cost_s *= _FORGET
        before, self.pace = (
            self.pace,
            self._choose(offered / elapsed_s, sum(lane.columns_min_records or 0 for lane in fed)),
        )
        return self.pace != before

    def _choose(self, rate: float, needed: int) -> Pace:
        share = _SHARE_MAX if self.pace is self._as_they_come else _SHARE_BACK
        if rate * self._cost_s <= share or self._pause_max_s <= self._as_they_come.pause_s:
            return self._as_they_come
        wanted = _BULK * needed
        pause_s = min(wanted / rate, self._pause_max_s)
        if rate * pause_s < _BULK_MIN * needed:
            return self._as_they_come  # over so many partitions that no pause within the bound would help
        # whole milliseconds: a pace that changes with every look would say nothing
        return Pace(max(round(pause_s, 3), self._as_they_come.pause_s), 4 * wanted)
