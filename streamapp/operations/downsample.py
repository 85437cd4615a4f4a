"""Fewer points for the same span: neighbouring windows are put together by what their fields mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamapp.operations.source import number
from streamapp.queries.model import Reading, TableInfo

_REDUCED: Mapping[str, Callable[[list[float]], float]] = {"max": max, "min": min, "sum": sum}
_WORDS: Mapping[str, str] = {
    "first": "of the first window",
    "max": "greatest",
    "min": "least",
    "sum": "summed",
    "mean": "weighted by",
}
#: windows that overlap hold the same events, so putting them together would count these several times
RULES_OVERLAPPING = "windows overlap: each point is the last window of its group, the others are left out"


def _numbers(values: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    found = [value.get(name) for value in values]
    return [one for one in found if one is not None and number(one) is not None]


def _weighted(values: Sequence[Mapping[str, Any]], name: str, weight: str) -> Any:
    """The weighted mean; the newest value where nothing says what a window weighs, or where it is no number."""
    pairs = [(number(value.get(name)), number(value.get(weight))) for value in values]
    usable = [(one, by) for one, by in pairs if one is not None and by]
    total = sum(by for _, by in usable)
    return sum(one * by for one, by in usable) / total if total else values[-1].get(name)


def merged(info: TableInfo, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One value in place of those of neighbouring windows, in their order; see `rules`."""
    result: dict[str, Any] = {}
    for name, newest in values[-1].items():
        how, weight = info.combine.get(name, ("last", ""))
        if how == "first":
            result[name] = values[0].get(name)
        elif how == "mean":
            result[name] = _weighted(values, name, weight)
        elif how in _REDUCED and (numbers := _numbers(values, name)):
            result[name] = _REDUCED[how](numbers)
        else:
            result[name] = newest
    return result


def rules(info: TableInfo) -> str:
    """How windows of a table become points, in words."""
    if info.kind == "hopping":
        return RULES_OVERLAPPING
    by_rule: dict[str, list[str]] = {}
    for name, (how, weight) in info.combine.items():
        if how in _WORDS:
            by_rule.setdefault(f"{_WORDS[how]} {weight}".strip(), []).append(name)
    return "; ".join(
        [*(f"{', '.join(names)}: {rule}" for rule, names in by_rule.items()), "all others: of the last window"]
    )


def groups(readings: Sequence[Reading], points: int) -> list[Sequence[Reading]]:
    """Neighbours that become one point: as many in each as are needed for at most `points`, the newest group last."""
    size = max(1, -(-len(readings) // points))
    return [readings[at : at + size] for at in range(0, len(readings), size)]
