"""What windows must hold, from their definition alone: lists of records, no aggregates, nothing of the package.

Each source is a list of records whose place is their offset. Lateness is judged source by source; windows close by the
least of the sources' greatest times.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Record(Protocol):
    key: str
    event_time: int
    price: float
    size: float
    sequence: int


Place = tuple[str, int]
Member = tuple[int, int, int, Any]  # time, sequence, offset, record


@dataclass
class Expected:
    """Windows by (key, start), those of them that are closed, and (source, offset) of late records."""

    windows: dict[Place, dict[str, Any]] = field(default_factory=dict)
    ends: dict[Place, int] = field(default_factory=dict)
    closed: set[Place] = field(default_factory=set)
    late: set[tuple[int, int]] = field(default_factory=set)
    watermark: int = -1


def fixed(sources: Sequence[Sequence[Record]], size: int, step: int, grace: int) -> Expected:
    """Tumbling windows (step = size) and hopping ones."""
    expected = Expected()
    members: dict[Place, list[Member]] = {}
    newest = [-1] * len(sources)
    for source, records in enumerate(sources):
        for offset, record in enumerate(records):
            time = record.event_time
            newest[source] = max(newest[source], time)
            for start in range(0, time + 1, step):
                if start + size <= time:
                    continue
                if start + size + grace <= newest[source]:
                    expected.late.add((source, offset))
                else:
                    members.setdefault((record.key, start), []).append((time, record.sequence, offset, record))
    expected.watermark = min(newest)
    for place, found in members.items():
        expected.windows[place] = summary(found)
        expected.ends[place] = place[1] + size
        if place[1] + size + grace <= expected.watermark:
            expected.closed.add(place)
    return expected


@dataclass
class _Burst:
    key: str
    members: list[Member]
    closed: bool = False

    @property
    def first(self) -> int:
        return min(member[0] for member in self.members)

    @property
    def last(self) -> int:
        return max(member[0] for member in self.members)


def sessions(records: Sequence[Record], gap: int, grace: int) -> Expected:
    """Session windows of one source."""
    expected = Expected()
    bursts: list[_Burst] = []
    for offset, record in enumerate(records):
        time = record.event_time
        expected.watermark = max(expected.watermark, time)
        for burst in bursts:
            burst.closed = burst.closed or burst.last + gap + grace <= expected.watermark
        if time + gap + grace <= expected.watermark:
            expected.late.add((0, offset))
            continue
        joined = _Burst(record.key, [(time, record.sequence, offset, record)])
        apart = []
        for burst in bursts:
            near = burst.first - gap < time < burst.last + gap
            if burst.key == record.key and near and not burst.closed:
                joined.members += burst.members
            else:
                apart.append(burst)
        bursts = [*apart, joined]
    for burst in bursts:
        place = (burst.key, burst.first)
        assert place not in expected.windows
        expected.windows[place] = summary(burst.members)
        expected.ends[place] = burst.last + gap
        if burst.last + gap + grace <= expected.watermark:
            expected.closed.add(place)
    return expected


def summary(members: Sequence[Member]) -> dict[str, Any]:
    ordered = [member[3] for member in sorted(members, key=lambda member: member[:3])]
    prices = [record.price for record in ordered]
    return {
        "n": len(ordered),
        "open": prices[0],
        "close": prices[-1],
        "high": max(prices),
        "low": min(prices),
        "volume": math.fsum(record.size for record in ordered),
        "notional": math.fsum(record.size * record.price for record in ordered),
    }


def check_row(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """A candle's fields against a summary: counts and prices to the digit, sums to 1e-9."""
    for name in ("open", "close", "high", "low"):
        assert row[name] == wanted[name], name
    assert row["count"] == wanted["n"]
    assert math.isclose(row["volume"], wanted["volume"], rel_tol=1e-9, abs_tol=1e-12)
    if wanted["volume"]:
        assert math.isclose(row["vwap"], wanted["notional"] / wanted["volume"], rel_tol=1e-9)
