"""Variance, standard deviation and Parkinson's volatility: how far values lie apart.

The moments are kept as count, mean and M2 (the sum of squared deviations from the mean), which does not cancel as a sum of
squares does. One value is added by Welford's update (B. P. Welford, "Note on a method for calculating corrected sums of
squares and products", Technometrics 4, 1962); two partials are merged by the pairwise rule of Chan, Golub and LeVeque
("Updating formulae and a pairwise algorithm for computing sample variances", 1979):

    M2 = M2a + M2b + (mean_b - mean_a)^2 * n_a * n_b / (n_a + n_b)
"""

import math
from collections.abc import Sequence
from typing import Any

from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State, finite, greater, lesser
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders
from streamapp.windows.reductions import Average, Greatest, Least, Reduction, Rows, SquaredDeviations


def moments(field: str) -> Sequence[Reduction]:
    """Count, mean and M2 of a group in which every record has the attribute."""
    return Rows(), Average(field), SquaredDeviations(field)


def merge_moments(into: State, other: State, at: int) -> None:
    """Chan's rule on the count, mean and M2 at slots `at` to `at + 2`."""
    count, added = into[at], other[at]
    if not added:
        return
    if not count:
        into[at : at + 3] = other[at : at + 3]
        return
    total = count + added
    delta = other[at + 1] - into[at + 1]
    into[at] = total
    # Weighted from the larger side, so that equal means stay as they are to the last digit.
    into[at + 1] = into[at + 1] + delta * (added / total) if added < count else other[at + 1] - delta * (count / total)
    into[at + 2] += other[at + 2] + delta * delta * count * added / total


def sample_variance(count: int, m2: float) -> float | None:
    """M2 / (n - 1), or None below two values."""
    return finite(m2 / (count - 1)) if count > 1 else None


def sample_stddev(count: int, m2: float) -> float | None:
    """The square root of the sample's variance, or None below two values."""
    variance = sample_variance(count, m2)
    return None if variance is None else math.sqrt(max(variance, 0.0))


class Variance(Aggregate):
    """The sample's variance (divided by n - 1) of an attribute; null below two values.

    Args:
        field: the attribute.
    """

    kind = "variance"
    slots = 3
    fields: tuple[OutputField, ...] = (OutputField("variance", description="sample variance; null below two values"),)

    def __init__(self, field: str) -> None:
        self.field = attribute_name(type(self).__name__, "field", field)
        read_as(self, field=self.field)

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute."""
        return (self.field,)

    def initial(self) -> State:
        """Count, mean and M2, all zero."""
        return [0, 0.0, 0.0]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Welford's update."""
        value = record.field
        if value is None:
            return
        count, mean, m2 = state
        count += 1
        delta = value - mean
        mean += delta / count
        state[:] = count, mean, m2 + delta * (value - mean)

    def merge(self, into: State, other: State) -> None:
        """Chan's rule."""
        merge_moments(into, other, 0)

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        return moments(self.field)

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`variance`."""
        return {"variance": sample_variance(state[0], state[2])}

    def parameters(self) -> Sequence[object]:
        """The attribute."""
        return (self.field,)


class StdDev(Variance):
    """The sample's standard deviation of an attribute; null below two values.

    Args:
        field: the attribute.
    """

    kind = "stddev"
    fields = (OutputField("stddev", description="sample standard deviation; null below two values"),)

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`stddev`."""
        return {"stddev": sample_stddev(state[0], state[2])}


def parkinson(high: float | None, low: float | None) -> float | None:
    """sqrt(ln(high / low)^2 / (4 ln 2)), or None where a price is missing or not positive.

    Source: M. Parkinson, "The extreme value method for estimating the variance of the rate of return", The Journal of
    Business 53 (1980). It takes prices as a driftless Brownian motion and gives the volatility of one window, not of a year.
    """
    if high is None or low is None or low <= 0:
        return None
    return finite((math.log(high) - math.log(low)) / (2 * math.sqrt(math.log(2))))


class RealizedVolatility(Aggregate):
    """Parkinson's range-based volatility of a price over the window, see `parkinson`.

    A sum of squared returns would need every record in order; the range needs its two ends only and merges in any order.

    Args:
        field: the attribute that holds the price.
    """

    kind = "parkinson"
    slots = 2
    fields = (OutputField("volatility", description="Parkinson's volatility, sqrt(ln(high/low)^2 / (4 ln 2))"),)

    def __init__(self, field: str = "price") -> None:
        self.field = attribute_name("RealizedVolatility", "field", field)
        read_as(self, field=self.field)

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute."""
        return (self.field,)

    def required(self, source: int) -> tuple[str, ...]:
        """None: least and greatest skip nulls by themselves."""
        return ()

    def initial(self) -> State:
        """No range."""
        return [None, None]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Widen the range."""
        value = record.field
        if value is None:
            return
        value += 0.0  # raises here, and not in the reader's face, if it is no number
        high = state[0]
        if high is None:
            state[:] = value, value
        elif value > high:
            state[0] = value
        elif not value >= state[1]:
            if value < state[1]:
                state[1] = value
            elif value == value:  # the extremes are no numbers as yet, and hide none
                state[:] = value, value

    def merge(self, into: State, other: State) -> None:
        """Widen the range."""
        if other[0] is None:
            return
        if into[0] is None:
            into[:] = other
            return
        into[:] = greater(into[0], other[0]), lesser(into[1], other[1])

    def reductions(self, source: int) -> "Sequence[Reduction]":
        """See `Aggregate`."""
        # text has extremes as well; it is refused, as `add` does
        return [Greatest(self.field, numbers=True), Least(self.field, numbers=True)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """`volatility`."""
        return {"volatility": parkinson(state[0], state[1])}

    def parameters(self) -> Sequence[object]:
        """The attribute."""
        return (self.field,)


Parkinson = RealizedVolatility
