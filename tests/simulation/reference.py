"""What a run must come to, from the records alone: no aggregates, no windows of the package, nothing incremental."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamapp.kafka.partitioner import partition_for
from streamapp.state.definition import TableDefinition
from streamapp.windows.sessions import Session
from tests.simulation.workload import FOLDING, Made

ALWAYS_DEAD = frozenset({"garbage", "schema", "null", "oversized"})
Place = tuple[str, int]
Origin = tuple[str, int, int]  # topic, partition, offset


@dataclass(frozen=True)
class Member:
    """A record as one table sees it.

    Attributes:
        stream_time: the greatest event time of its origin up to it, those of other partitions' keys included.
    """

    origin: int
    key: str
    time: int
    record: Made
    fails: bool
    stream_time: int

    @property
    def order(self) -> tuple[int, int, int]:
        return self.time, self.record.sequence, self.record.offset

    @property
    def place(self) -> Origin:
        return self.record.topic, self.record.partition, self.record.offset


@dataclass
class Expected:
    """One partition of a table when all is counted.

    Attributes:
        windows: every window that is kept, by key and start; its members.
        ends: of every window that ever was.
        finals: windows that are closed, expired ones included.
        late, dead: places of records.
        total: records that the aggregate does not refuse.
        certain: False where the outcome depends on how origins interleave; then only what adds up is checked.
    """

    windows: dict[Place, list[Member]] = field(default_factory=dict)
    ends: dict[Place, int] = field(default_factory=dict)
    finals: dict[Place, list[Member]] = field(default_factory=dict)
    late: set[Origin] = field(default_factory=set)
    dead: set[Origin] = field(default_factory=set)
    total: int = 0
    watermark: int = -1
    certain: bool = True


def expect(
    table: TableDefinition, kind: str, records: Mapping[Place, Sequence[Made]], partition: int, partitions: int
) -> Expected:
    """What one partition of a table must hold.

    Args:
        records: everything on the sources, by topic and partition, in order of offset.
    """
    expected = Expected()
    rekeyed = table.rekey is not None
    if rekeyed:
        topic = table.sources[0].topic
        places = [(topic, origin) for origin in range(partitions)]
    else:
        places = [(source.topic, partition) for source in table.sources]
    origins: list[list[Member]] = []
    newest = [-1] * len(places)
    for origin, place in enumerate(places):
        timed = table.sources[0 if rekeyed else origin].time_field is not None
        members = []
        for record in records.get(place, ()):
            if is_dead(record, timed, rekeyed=rekeyed):
                if not rekeyed or record.partition == partition:  # told once
                    expected.dead.add((record.topic, record.partition, record.offset))
                continue
            key = record.group if rekeyed else record.key
            time = record.event_time if timed else record.timestamp
            newest[origin] = max(newest[origin], time)
            if rekeyed and partition_for(key.encode(), partitions) != partition:
                continue
            fails = record.poison == "boom" and kind in FOLDING
            members.append(Member(origin, key, time, record, fails, newest[origin]))
        origins.append(members)
        expected.total += sum(not member.fails for member in members)
    expected.watermark = min(newest)
    if isinstance(table.window, Session):
        expected.certain = len(origins) == 1
        if expected.certain:
            _sessions(expected, table, origins[0])
    else:
        _fixed(expected, table, origins)
    return expected


def is_dead(record: Made, timed: bool, *, rekeyed: bool) -> bool:
    """Whether nothing can be made of a record: by no aggregate, whenever it comes."""
    poison = record.poison
    return (
        poison in ALWAYS_DEAD
        or (timed and poison in ("future", "negative"))
        or (not rekeyed and poison in ("no_key", "bad_key"))
        or (rekeyed and poison == "no_group")
    )


def _fixed(expected: Expected, table: TableDefinition, origins: Sequence[Sequence[Member]]) -> None:
    window: Any = table.window
    for members in origins:
        for member in members:
            open_starts, missed = [], False
            for start in _starts(window, member.time):
                if window is not None and start + window.size_ms + window.grace_ms <= member.stream_time:
                    missed = True
                else:
                    open_starts.append(start)
            if member.fails and open_starts:
                expected.dead.add(member.place)
                continue
            if missed:
                expected.late.add(member.place)
            for start in open_starts:
                expected.windows.setdefault((member.key, start), []).append(member)
    if window is None:
        expected.ends = {place: 0 for place in expected.windows}
        return
    for place, members in list(expected.windows.items()):
        end = expected.ends[place] = place[1] + window.size_ms
        if end + window.grace_ms <= expected.watermark:
            expected.finals[place] = members
        if place[1] + window.retention_ms <= expected.watermark:
            del expected.windows[place]


def _starts(window: Any, time: int) -> list[int]:
    if window is None:
        return [0]
    step = window.step_ms if hasattr(window, "step_ms") else window.size_ms
    newest = time - time % step
    return [start for start in range(newest, time - window.size_ms, -step) if start >= 0]


@dataclass
class _Burst:
    key: str
    members: list[Member]
    first: int
    last: int
    closed: bool = False


def _sessions(expected: Expected, table: TableDefinition, members: Sequence[Member]) -> None:
    window = table.window
    assert isinstance(window, Session)
    gap, grace = window.gap_ms, window.grace_ms
    bursts: list[_Burst] = []
    for member in members:
        time, watermark = member.time, member.stream_time
        for burst in bursts:
            burst.closed = burst.closed or burst.last + gap + grace <= watermark
        if time + gap + grace <= watermark:
            expected.late.add(member.place)
            continue
        if member.fails:
            expected.dead.add(member.place)
            continue
        joined = _Burst(member.key, [member], time, time)
        apart = []
        for burst in bursts:
            if burst.key == member.key and not burst.closed and burst.first - gap < time < burst.last + gap:
                joined.members = burst.members + joined.members
                joined.first, joined.last = min(joined.first, burst.first), max(joined.last, burst.last)
            else:
                apart.append(burst)
        bursts = [*apart, joined]
    watermark = expected.watermark
    for burst in bursts:
        place = (burst.key, burst.first)
        expected.ends[place] = burst.last + gap
        if burst.last + gap + grace <= watermark:
            expected.finals[place] = burst.members
        if burst.last + window.retention_ms > watermark:
            expected.windows[place] = burst.members


def check_row(row: Mapping[str, Any], kind: str, members: Sequence[Member]) -> list[str]:
    """What of a result is not as its members say; empty where all is well."""
    wrong: list[str] = []

    def same(name: str, found: object, wanted: object) -> None:
        if found != wanted:
            wrong.append(f"{name} is {found!r}, expected {wanted!r}")

    def close(name: str, found: Any, wanted: float) -> None:
        if found is None or not math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9):
            wrong.append(f"{name} is {found!r}, expected about {wanted!r}")

    ordered = sorted(members, key=lambda member: (member.order, member.origin))
    prices = [member.record.price for member in ordered]
    if kind == "candle":
        same("count", row["count"], len(ordered))
        same("high", row["high"], max(prices))
        same("low", row["low"], min(prices))
        same("open", row["open"], prices[0])
        same("close", row["close"], prices[-1])
        close("volume", row["volume"], math.fsum(member.record.size for member in ordered))
        notional = math.fsum(member.record.size * member.record.price for member in ordered)
        close("vwap", row["vwap"], notional / math.fsum(member.record.size for member in ordered))
    if kind in ("named", "mixed"):
        same("n", row["n"], len(ordered))
        same("low", row["low"], min(prices))
        same("high", row["high"], max(prices))
        same("first", row["first"], ordered[0].record.serial)
        same("last", row["last"], ordered[-1].record.serial)
        close("total", row["total"], math.fsum(prices))
    if kind in ("union", "mixed"):
        same(
            "serials", sorted(row["value" if kind == "union" else "serials"]), sorted(m.record.serial for m in ordered)
        )
    if kind == "fold":
        wanted = [member.record.serial for member in members]
        if len({member.origin for member in members}) > 1:
            same("serials", sorted(row["value"]), sorted(wanted))
        else:
            same("serials", row["value"], wanted)
    return wrong
