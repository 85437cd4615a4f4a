"""What the tables must hold, worked out from what stands on the source topic and from the definitions alone.

Plain Python over lists: nothing of the package's windows, aggregates or state is used. One pass per table judges lateness
record by record in order of offset; the rest is arithmetic over the members of each window.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.tables import GRACE_MS, SHAPES, Shape

Row = dict[str, Any]
Window = tuple[str, int]
#: fields that come from sums; everything else must be equal to the digit
SUMS = {"volume", "vwap", "buy_volume", "sell_volume", "amount"}
RELATIVE = 1e-9


class Arrival(NamedTuple):
    """One good record where it stands on the source topic; without a usable key only a re-keyed table counts it."""

    partition: int
    offset: int
    key: str | None
    value: Mapping[str, Any]


@dataclass
class Expected:
    """One table.

    Attributes:
        windows: those that retention has not reached.
        all_windows: with those that it has.
        closed: windows, reached by retention or not, whose final record must be out.
        late: (partition, offset) of records that missed at least one window.
        unclear: re-keyed windows with two records that nothing puts in order, so that open and close may be either's.
    """

    shape: Shape
    windows: dict[Window, Row] = field(default_factory=dict)
    all_windows: dict[Window, Row] = field(default_factory=dict)
    closed: set[Window] = field(default_factory=set)
    late: set[tuple[int, int]] = field(default_factory=set)
    unclear: set[Window] = field(default_factory=set)


def expected_tables(
    arrivals: Iterable[Arrival], partitions: int, shapes: Sequence[Shape] = SHAPES
) -> dict[str, Expected]:
    """All tables after these records."""
    ordered = sorted(arrivals, key=lambda arrival: arrival[:2])
    keyed = [arrival for arrival in ordered if arrival.key is not None]
    found = {}
    for shape in shapes:
        if shape.gap_ms:
            found[shape.name] = _sessions(shape, keyed)
        elif shape.fixed:
            found[shape.name] = _fixed(shape, ordered if shape.by_symbol else keyed, partitions)
        else:
            found[shape.name] = _newest(shape, keyed)
    return found


def _fixed(shape: Shape, arrivals: Sequence[Arrival], partitions: int) -> Expected:
    expected = Expected(shape)
    members: dict[Window, list[Arrival]] = defaultdict(list)
    stream_time: dict[int, int] = {}  # greatest event time of a partition of the source, whatever the keys
    for arrival in arrivals:
        key = arrival.value["symbol"] if shape.by_symbol else arrival.key
        time = arrival.value["event_time"]
        seen = stream_time[arrival.partition] = max(stream_time.get(arrival.partition, -1), time)
        first = time - time % shape.step_ms
        for start in range(first - shape.size_ms + shape.step_ms, first + 1, shape.step_ms):
            if start + shape.size_ms + GRACE_MS <= seen:
                expected.late.add((arrival.partition, arrival.offset))
            else:
                members[key, start].append(arrival)
    least = min(stream_time.get(partition, -1) for partition in range(partitions))
    for window, found in members.items():
        start = window[1]
        watermark = least if shape.by_symbol else stream_time[found[0].partition]
        row = expected.all_windows[window] = candle(found)
        if start + shape.retention_ms > watermark:
            expected.windows[window] = row
        if start + shape.size_ms + GRACE_MS <= watermark:
            expected.closed.add(window)
        if shape.by_symbol and len({_order(arrival) for arrival in found}) < len(found):
            expected.unclear.add(window)
    return expected


@dataclass
class _Burst:
    first: int
    last: int
    members: list[Arrival]


def _sessions(shape: Shape, arrivals: Sequence[Arrival]) -> Expected:
    expected = Expected(shape)
    gap = shape.gap_ms
    stream_time: dict[int, int] = {}
    bursts: dict[tuple[int, str], list[_Burst]] = defaultdict(list)
    for arrival in arrivals:
        time = arrival.value["event_time"]
        seen = stream_time[arrival.partition] = max(stream_time.get(arrival.partition, -1), time)
        if time + gap + GRACE_MS <= seen:
            expected.late.add((arrival.partition, arrival.offset))
            continue
        joined = _Burst(time, time, [arrival])
        apart = []
        for burst in bursts[arrival.partition, arrival.key]:
            is_open = burst.last + gap + GRACE_MS > seen
            if is_open and burst.first - gap < time < burst.last + gap:
                joined.first, joined.last = min(joined.first, burst.first), max(joined.last, burst.last)
                joined.members += burst.members
            else:
                apart.append(burst)
        bursts[arrival.partition, arrival.key] = [*apart, joined]
    for (partition, key), found in bursts.items():
        for burst in found:
            window = (key, burst.first)
            assert window not in expected.all_windows, "two sessions cannot begin alike"
            expected.all_windows[window] = expected.windows[window] = candle(burst.members)
            if burst.last + gap + GRACE_MS <= stream_time[partition]:
                expected.closed.add(window)
    return expected


def _newest(shape: Shape, arrivals: Sequence[Arrival]) -> Expected:
    expected = Expected(shape)
    members: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        members[arrival.key].append(arrival)
    for key, found in members.items():
        row = {
            "price": max(found, key=_order).value["price"],
            "count": len(found),
            "amount": math.fsum(arrival.value["size"] for arrival in found),
        }
        expected.windows[key, 0] = expected.all_windows[key, 0] = row
    return expected


def _order(arrival: Arrival) -> tuple[int, int, int]:
    """Event time, then sequence (unknown ones first), then arrival."""
    sequence = arrival.value["sequence"]
    return arrival.value["event_time"], -1 if sequence is None else sequence, arrival.offset


def candle(arrivals: Sequence[Arrival]) -> Row:
    """The fields of a candle over these records."""
    ordered = [arrival.value for arrival in sorted(arrivals, key=_order)]
    prices = [trade["price"] for trade in ordered]
    volume = math.fsum(trade["size"] for trade in ordered)
    notional = math.fsum(trade["price"] * trade["size"] for trade in ordered)
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": volume,
        "vwap": notional / volume if volume else None,
        "count": len(prices),
        "buy_volume": math.fsum(trade["size"] for trade in ordered if trade["side"] == "buy"),
        "sell_volume": math.fsum(trade["size"] for trade in ordered if trade["side"] == "sell"),
        "first_time": ordered[0]["event_time"],
        "last_time": ordered[-1]["event_time"],
    }


def difference(wanted: Mapping[str, Any] | None, got: Mapping[str, Any] | None, *, unclear: bool = False) -> str | None:
    """What differs, in words: None where counts and prices are equal to the digit and sums to 1e-9."""
    if wanted is None or got is None:
        return None if wanted is got else f"expected {wanted}, got {got}"
    if wanted.keys() != got.keys():
        return f"expected the fields {sorted(wanted)}, got {sorted(got)}"
    for name, value in wanted.items():
        other = got[name]
        if unclear and name in ("open", "close"):
            continue
        if other == value:
            continue
        close = (
            name in SUMS and value is not None and other is not None and math.isclose(value, other, rel_tol=RELATIVE)
        )
        if not close:
            return f"{name}: expected {value!r}, got {other!r}"
    return None
