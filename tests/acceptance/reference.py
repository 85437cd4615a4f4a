"""What the built-in tables must hold, worked out independently from what is on the topics.

Plain Python over plain dictionaries, from the definitions alone: nothing of the application's windows, aggregates or
state is imported. One pass judges lateness per partition in order of offset; the rest is arithmetic over lists.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

MINUTE_MS = 60_000
DAY_MS = 86_400_000
GRACE_MS = 10_000

#: table -> (size, step, retention), milliseconds
WINDOWS = {
    "candles_1m": (MINUTE_MS, MINUTE_MS, DAY_MS),
    "candles_5m": (5 * MINUTE_MS, 5 * MINUTE_MS, 7 * DAY_MS),
    "candles_1h": (60 * MINUTE_MS, 60 * MINUTE_MS, 90 * DAY_MS),
    "stats_5m": (5 * MINUTE_MS, MINUTE_MS // 2, 7 * DAY_MS),
}
#: fields that must be equal to the digit; all others are sums or come from sums
EXACT = {
    "open",
    "high",
    "low",
    "close",
    "min",
    "max",
    "count",
    "first_time",
    "last_time",
    "price",
    "size",
    "bid",
    "ask",
}
RELATIVE = 1e-9
#: a mean of like numbers cancels; what is left of a spread below this share of the price is rounding
_SPREAD_FLOOR = 1e-9


class Arrival(NamedTuple):
    """One record as it stands on its topic."""

    partition: int
    offset: int
    key: str
    value: Mapping[str, Any]


@dataclass
class Reference:
    """The expected content of all tables.

    Attributes:
        windows: table -> (key, start) -> fields.
        final: table -> those that are closed.
        latest: key -> fields.
        late: table -> (partition, offset) of the records that missed at least one window.
    """

    windows: dict[str, dict[tuple[str, int], dict[str, Any]]]
    final: dict[str, set[tuple[str, int]]]
    latest: dict[str, dict[str, Any]]
    late: dict[str, set[tuple[int, int]]]


def reference(trades: Iterable[Arrival], quotes: Iterable[Arrival] = (), grace_ms: int = GRACE_MS) -> Reference:
    """The tables after all of these records."""
    trades, quotes = sorted(trades), sorted(quotes)
    expected = Reference({}, {}, _latest(trades, quotes), {})
    for table, (size, step, retention) in WINDOWS.items():
        members: dict[tuple[str, int], list[Arrival]] = defaultdict(list)
        stream_time: dict[int, int] = {}
        partition_of: dict[str, int] = {}
        late: set[tuple[int, int]] = set()
        for arrival in trades:
            time = arrival.value["event_time"]
            now = stream_time[arrival.partition] = max(stream_time.get(arrival.partition, time), time)
            partition_of[arrival.key] = arrival.partition
            for start in range(time // step * step, time - size, -step):
                if now >= start + size + grace_ms:
                    late.add((arrival.partition, arrival.offset))
                elif start >= 0:
                    members[arrival.key, start].append(arrival)
        measure = _stats if table == "stats_5m" else _candle
        kept = {
            place: found
            for place, found in members.items()
            if stream_time[partition_of[place[0]]] < place[1] + retention
        }
        expected.windows[table] = {place: measure(found) for place, found in kept.items()}
        expected.final[table] = {
            (key, start) for key, start in kept if stream_time[partition_of[key]] >= start + size + grace_ms
        }
        expected.late[table] = late
    return expected


def _order(arrival: Arrival) -> tuple[int, int, int]:
    """Event time, then sequence (unknown ones first), then arrival."""
    sequence = arrival.value["sequence"]
    return arrival.value["event_time"], -1 if sequence is None else sequence, arrival.offset


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def _candle(arrivals: list[Arrival]) -> dict[str, Any]:
    ordered = [arrival.value for arrival in sorted(arrivals, key=_order)]
    prices = [trade["price"] for trade in ordered]
    volume = math.fsum(trade["size"] for trade in ordered)
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": volume,
        "vwap": _ratio(math.fsum(trade["price"] * trade["size"] for trade in ordered), volume),
        "count": len(prices),
        "buy_volume": math.fsum(trade["size"] for trade in ordered if trade["side"] == "buy"),
        "sell_volume": math.fsum(trade["size"] for trade in ordered if trade["side"] == "sell"),
        "first_time": ordered[0]["event_time"],
        "last_time": ordered[-1]["event_time"],
    }


def _stats(arrivals: list[Arrival]) -> dict[str, Any]:
    ordered = [arrival.value for arrival in sorted(arrivals, key=_order)]
    prices = [trade["price"] for trade in ordered]
    count, low, high = len(prices), min(prices), max(prices)
    mean = math.fsum(prices) / count
    spread = math.fsum((price - mean) ** 2 for price in prices)
    return {
        "count": count,
        "mean": mean,
        "stddev": math.sqrt(spread / (count - 1)) if count > 1 else None,
        "min": low,
        "max": high,
        "open": prices[0],
        "close": prices[-1],
        "vwap": _ratio(
            math.fsum(trade["price"] * trade["size"] for trade in ordered),
            math.fsum(trade["size"] for trade in ordered),
        ),
        "log_return": math.log(prices[-1] / prices[0]),
        "volatility": math.sqrt(math.log(high / low) ** 2 / (4 * math.log(2))),
    }


def _latest(trades: list[Arrival], quotes: list[Arrival]) -> dict[str, dict[str, Any]]:
    newest: dict[str, dict[str, Arrival]] = defaultdict(dict)
    for kind, arrivals in (("trade", trades), ("quote", quotes)):
        for arrival in arrivals:
            held = newest[arrival.key].get(kind)
            if held is None or _order(arrival) > _order(held):
                newest[arrival.key][kind] = arrival
    found = {}
    for key, both in newest.items():
        trade = both["trade"].value if "trade" in both else {}
        quote = both["quote"].value if "quote" in both else {}
        bid, ask = quote.get("bid"), quote.get("ask")
        found[key] = {
            "price": trade.get("price"),
            "size": trade.get("size"),
            "side": trade.get("side"),
            "trade_time": trade.get("event_time"),
            "bid": bid,
            "ask": ask,
            "mid": (bid + ask) / 2 if quote else None,
            "spread": ask - bid if quote else None,
            "quote_time": quote.get("event_time"),
        }
    return found


def difference(expected: Mapping[str, Any] | None, got: Mapping[str, Any] | None) -> str | None:
    """What differs between two values of a window, in words; None where they are equal as the contract means it."""
    if expected is None or got is None:
        return None if expected is got else f"expected {expected}, got {got}"
    if expected.keys() != got.keys():
        return f"expected the fields {sorted(expected)}, got {sorted(got)}"
    scale = abs(expected.get("mean") or 0.0)
    for name, value in expected.items():
        other = got[name]
        floor = scale * _SPREAD_FLOOR if name == "stddev" else 0.0
        equal = other == value
        if not equal and name not in EXACT and isinstance(value, float) and isinstance(other, (int, float)):
            equal = math.isclose(value, other, rel_tol=RELATIVE, abs_tol=floor)
        if not equal:
            return f"{name}: expected {value!r}, got {other!r}"
    return None
