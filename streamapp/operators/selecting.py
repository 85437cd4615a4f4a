"""Operators that choose or change values one at a time: map, filter, changes, crossings of a threshold."""

from collections.abc import Callable
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.operators.operator import Emissions, Operator, OperatorState


class _Map(Operator):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def initial(self) -> OperatorState:
        return None

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        return None, [(time_ms, self.function(value))]


class _Filter(_Map):
    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        return None, [(time_ms, value)] if self.function(value) else []


def map_(function: Callable[[Any], Any]) -> Operator:
    """Every value through a function.

    in    1   2   3
    out   2   4   6        map_(lambda n: n * 2)
    """
    return _Map(function)


def filter_(keep: Callable[[Any], object]) -> Operator:
    """Only the values for which the function is true.

    in    1   2   3
    out   1       3        filter_(lambda n: n % 2)
    """
    return _Filter(keep)


class _Distinct(Operator):
    def __init__(self, by: Callable[[Any], Any] | None) -> None:
        self.by = by

    def initial(self) -> OperatorState:
        return []

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        # A list of one, so that a first None is told from no value yet.
        now = [value if self.by is None else self.by(value)]
        return now, [] if now == state else [(time_ms, value)]


def distinct_until_changed(by: Callable[[Any], Any] | None = None) -> Operator:
    """A value only where it differs from the one before.

        in    a   a   b   b   a
        out   a       b       a

    Args:
        by: compare what this makes of the value (it is kept in the state); without it, the value itself.
    """
    return _Distinct(by)


class _Threshold(Operator):
    def __init__(self, above: float, below: float, by: Callable[[Any], float] | None) -> None:
        self.above, self.below, self.by = above, below, by

    def initial(self) -> OperatorState:
        return None

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        level = value if self.by is None else self.by(value)
        if state is None:
            # The first value only places the state: nothing has been crossed yet.
            return ("high" if level >= self.above else "low"), []
        if state == "low" and level >= self.above:
            return "high", [(time_ms, {"crossed": "up", "value": value})]
        if state == "high" and level <= self.below:
            return "low", [(time_ms, {"crossed": "down", "value": value})]
        return state, []


def threshold(above: float, below: float | None = None, *, by: Callable[[Any], float] | None = None) -> Operator:
    """Crossings of a threshold with hysteresis: up at `above`, down again only at `below`.

        in    1    5    9    6    9    2    5        above=8, below=3
        out             up             down          (6 is under `above`, but not down at `below`)

    Outputs are `{"crossed": "up" | "down", "value": the value}` and alternate. The first value never counts as a crossing.

    Args:
        above: reaching this from the low side is a crossing up.
        below: falling to this from the high side is a crossing down; not greater than `above`, equal to it by default.
        by: the number to compare, of a value that is not one itself.

    Raises:
        ConfigurationError: `below` is greater than `above`.
    """
    lower = above if below is None else below
    if not lower <= above:
        raise ConfigurationError(f"threshold: below must not be greater than above ({above!r}), got {below!r}")
    return _Threshold(above, lower, by)


class _Significant(Operator):
    def __init__(self, absolute: float | None, relative: float | None, by: Callable[[Any], float] | None) -> None:
        self.absolute, self.relative, self.by = absolute, relative, by

    def initial(self) -> OperatorState:
        return None

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        level = value if self.by is None else self.by(value)
        if state is not None:
            change = abs(level - state)
            enough = (self.absolute is not None and change >= self.absolute) or (
                self.relative is not None and change > 0 and change >= self.relative * abs(state)
            )
            if not enough:
                return state, []
        return level, [(time_ms, value)]


def significant_change(
    *, absolute: float | None = None, relative: float | None = None, by: Callable[[Any], float] | None = None
) -> Operator:
    """A value only where it has moved far enough from the one emitted last; the first always.

        in    100  101  103  104  110      absolute=3
        out   100       103       110      (104 is compared with 103, not with what came just before)

    Args:
        absolute: the least difference, above 0.
        relative: the least difference as a part of the last emitted magnitude (0.01 is 1 %), above 0. With
            both, either will do.
        by: the number to compare, of a value that is not one itself.

    Raises:
        ConfigurationError: neither is given, or one is not above 0.
    """
    given = [bound for bound in (absolute, relative) if bound is not None]
    if not given or not all(bound > 0 for bound in given):
        raise ConfigurationError(
            f"significant_change: give absolute= or relative=, above 0; got {absolute!r} and {relative!r}"
        )
    return _Significant(absolute, relative, by)
