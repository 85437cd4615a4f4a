"""Fewer points for the same span: neighbouring windows are put together by what their fields mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamapp.operations.source import number
from streamapp.queries.model import Reading, TableInfo

_FIRST = frozenset({"open", "first_time", "first"})
_HIGHEST = frozenset({"high", "max", "last_time"})
_LOWEST = frozenset({"low", "min"})
_SUMMED = frozenset({"volume", "count", "buy_volume", "sell_volume", "sum", "notional"})
#: field -> what it is weighted by
_WEIGHTED = {"vwap": "volume", "mean": "count"}
RULES = (
    "open/first: of the first window; high/max: greatest; low/min: least; volume/count: summed;"
    " vwap/mean: weighted; all others: of the last window"
)
#: windows that overlap hold the same events, so putting them together would count these several times
RULES_OVERLAPPING = "windows overlap: each point is the last window of its group, the others are left out"


def _numbers(values: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    found = [value.get(name) for value in values]
    return [one for one in found if isinstance(one, (int, float)) and not isinstance(one, bool)]


def _weighted(values: Sequence[Mapping[str, Any]], name: str, weight: str) -> Any:
    """The weighted mean; the newest value where nothing says what a window weighs, or where it is no number."""
    pairs = [(number(value.get(name)), number(value.get(weight))) for value in values]
    usable = [(one, by) for one, by in pairs if one is not None and by]
    total = sum(by for _, by in usable)
    return sum(one * by for one, by in usable) / total if total else values[-1].get(name)


def merged(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One value in place of those of neighbouring windows, in their order; see `RULES`."""
    result: dict[str, Any] = {}
    for name, newest in values[-1].items():
        reduce: Callable[[list[float]], float] | None = None
        if name in _FIRST:
            result[name] = values[0].get(name)
            continue
        if name in _HIGHEST:
            reduce = max
        elif name in _LOWEST:
            reduce = min
        elif name in _SUMMED:
            reduce = sum
        elif name in _WEIGHTED:
            result[name] = _weighted(values, name, _WEIGHTED[name])
            continue
        numbers = _numbers(values, name) if reduce is not None else []
        result[name] = reduce(numbers) if reduce is not None and numbers else newest
    return result


def rules(info: TableInfo) -> str:
    """How windows of a table become points, in words."""
    return RULES_OVERLAPPING if info.kind == "hopping" else RULES


def groups(readings: Sequence[Reading], points: int) -> list[Sequence[Reading]]:
    """Neighbours that become one point: as many in each as are needed for at most `points`, the newest group last."""
    size = max(1, -(-len(readings) // points))
    return [readings[at : at + size] for at in range(0, len(readings), size)]
