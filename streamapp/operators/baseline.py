"""Judging a value against those before it."""

import math
from collections.abc import Callable
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.operators.operator import Emissions, Operator, OperatorState

FLAT = 1e-12
"""A baseline whose deviation is at most this part of its greatest magnitude counts as constant: that is rounding."""


class _Baseline(Operator):
    def __init__(self, length: int, by: Callable[[Any], float | None] | None) -> None:
        self.length, self.by = length, by

    def initial(self) -> OperatorState:
        return []

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        level = value if self.by is None else self.by(value)
        if level is None or not math.isfinite(level):
            return state, []
        after = [*state, level][-self.length :]
        if len(state) < self.length:
            return after, []
        mean = math.fsum(state) / self.length
        stddev = math.sqrt(math.fsum((past - mean) ** 2 for past in state) / (self.length - 1))
        if stddev <= FLAT * max(map(abs, state)):
            return after, []
        z = (level - mean) / stddev
        return after, [(time_ms, {"z": z, "value": level, "mean": mean, "stddev": stddev, "of": value})]


def against_baseline(length: int, *, by: Callable[[Any], float | None] | None = None) -> Operator:
    """Each value's z-score against the `length` values before it, from the first that has as many.

        in    3 4 3 4 3 9             length 5
                        └─ judged against 3 4 3 4 3: mean 3.4, stddev 0.55, z = 10.2

    Outputs are `{"z", "value", "mean", "stddev", "of"}`: z = (value - mean) / stddev, stddev of the sample, `of` what came
    in. A value joins the baseline after it was judged. A constant baseline has no scale to judge by, so it gives no output,
    whatever the value. None and what is not finite are skipped.

    Args:
        length: how many values make a baseline, at least 2.
        by: the number to judge, of a value that is not one itself.
    """
    if length < 2:
        raise ConfigurationError(f"against_baseline: length must be at least 2, got {length!r}")
    return _Baseline(length, by)
