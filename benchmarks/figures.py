"""Arithmetic on measured values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def quantile(values: Sequence[float], fraction: float) -> float:
    """The nearest-rank quantile: the smallest value that at least `fraction` of all values do not exceed.

    Raises:
        ValueError: there are no values, or the fraction is not within 0 to 1.
    """
    if not values or not 0 <= fraction <= 1:
        raise ValueError(f"expected values and a fraction within 0..1, got {len(values)} values and {fraction}")
    ranked = sorted(values)
    return ranked[max(0, math.ceil(fraction * len(ranked)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value; the mean of the two in the middle where their number is even."""
    if not values:
        raise ValueError("expected at least one value")
    ranked = sorted(values)
    half = len(ranked) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2


@dataclass(frozen=True)
class Spread:
    """What several rounds of one measurement gave."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values), len(values))

    def as_json(self) -> dict[str, float]:
        """Median, min and max, with four significant digits, and how many rounds they are of."""
        return {
            "median": significant(self.median),
            "min": significant(self.least),
            "max": significant(self.most),
            "rounds": self.rounds,
        }


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many significant digits; more would be noise."""
    if value == 0 or not math.isfinite(value):
        return value
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return int(rounded) if places <= 0 else rounded


def latency_summary(taken_ms: Sequence[float]) -> dict[str, Any]:
    """Median, p90, p99 and maximum of latencies in milliseconds, and of how many."""
    return {
        "p50_ms": significant(quantile(taken_ms, 0.5)),
        "p90_ms": significant(quantile(taken_ms, 0.9)),
        "p99_ms": significant(quantile(taken_ms, 0.99)),
        "max_ms": significant(max(taken_ms)),
        "samples": len(taken_ms),
    }
