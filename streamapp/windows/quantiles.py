"""Quantiles in bounded memory, with a bound on the relative error: DDSketch.

Source: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 12 (2019). A value x > 0 counts in the bin ceil(log_gamma(x)), gamma = (1 + a) / (1 - a), so a sketch is
a set of counters: partials merge exactly, in any order. The library maps values to bins and answers the quantiles; the state
holds its bins sparsely, so that it can be packed as it is.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

from streamapp.errors import ConfigurationError
from streamapp.importing import pl
from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State
from streamapp.windows.attributes import attribute_name, read_as, with_placeholders

ZERO, KEYS, COUNTS, NEGATIVE_KEYS, NEGATIVE_COUNTS = range(5)


class Quantiles(Aggregate):
    """Quantiles of an attribute, each within a relative `accuracy` of a true one.

    The q-quantile of n values is the one at rank q * (n - 1), rounded down. Fields are `p50`, `p99`, `p99_9` and so on.
    Beyond `bins` different bins a sign's smallest magnitudes share one bin and lose the guarantee; the default of 2,048
    at 1 % spans 17 decimal orders of magnitude.

    Args:
        field: the attribute.
        quantiles: each from 0 to 1, ascending.
        accuracy: the bound on the relative error, above 0 and below 1.
        bins: how many bins are kept per sign, at least 2.
    """

    kind = "quantiles"
    slots = 5

    def __init__(
        self, field: str, quantiles: Sequence[float] = (0.5, 0.9, 0.99), *, accuracy: float = 0.01, bins: int = 2048
    ) -> None:
        if not quantiles or any(not 0 <= q <= 1 for q in quantiles) or list(quantiles) != sorted(set(quantiles)):
            raise ConfigurationError(f"Quantiles: expected ascending numbers from 0 to 1, got {quantiles!r}")
        if not 0 < accuracy < 1 or bins < 2:
            raise ConfigurationError(
                f"Quantiles: accuracy must be between 0 and 1 and bins at least 2, got {accuracy!r} and {bins!r}"
            )
        self.field = attribute_name("Quantiles", "field", field)
        self.quantiles = tuple(float(q) for q in quantiles)
        self.accuracy = accuracy
        self.bins = bins
        self._mapping = LogarithmicMapping(accuracy)
        self._key = self._mapping.key
        self._tiny, self._huge = self._mapping.min_possible, self._mapping.max_possible
        self._names = tuple(f"p{q * 100:.10g}".replace(".", "_") for q in self.quantiles)
        self.fields = tuple(
            OutputField(name, description=f"{q:g}-quantile, within {accuracy:g} of its value")
            for name, q in zip(self._names, self.quantiles, strict=True)
        )
        read_as(self, field=self.field)

    def inputs(self, source: int) -> tuple[str, ...]:
        """The attribute."""
        return (self.field,)

    def required(self, source: int) -> tuple[str, ...]:
        """None: the lane skips nulls by itself."""
        return ()

    def initial(self) -> State:
        """No value: zeros, then bins and counts of the positive and of the negative values, bins ascending."""
        return [0, [], [], [], []]

    @with_placeholders
    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Count one value in its bin."""
        value = record.field
        if value is None:
            return
        if value > self._tiny:
            at = KEYS
        elif value < -self._tiny:
            at, value = NEGATIVE_KEYS, -value
        else:
            state[ZERO] += 1
            return
        key = self._key(value if value < self._huge else self._huge)
        keys, counts = state[at], state[at + 1]
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            counts[index] += 1
            return
        keys.insert(index, key)
        counts.insert(index, 1)
        if len(keys) > self.bins:
            self._collapse(keys, counts)

    def merge(self, into: State, other: State) -> None:
        """Add the counts bin by bin."""
        into[ZERO] += other[ZERO]
        for at in (KEYS, NEGATIVE_KEYS):
            if not other[at]:
                continue
            total = dict(zip(into[at], into[at + 1], strict=True))
            for key, count in zip(other[at], other[at + 1], strict=True):
                total[key] = total.get(key, 0) + count
            keys = sorted(total)
            into[at], into[at + 1] = keys, [total[key] for key in keys]
        self.compact(into)

    def compact(self, state: State) -> None:
        """Keep to the number of bins."""
        for at in (KEYS, NEGATIVE_KEYS):
            if len(state[at]) > self.bins:
                self._collapse(state[at], state[at + 1])

    def _collapse(self, keys: list[int], counts: list[int]) -> None:
        # The greatest `bins` of all keys ever seen survive whatever the order, and all below share the last of them: a key
        # only moves up, and never past that one. So this merges exactly, too.
        excess = len(keys) - self.bins
        counts[: excess + 1] = [sum(counts[: excess + 1])]
        del keys[:excess]

    def _columns(self, source: int) -> "list[pl.Expr]":
        value = pl.col(self.field) * 1.0
        multiplier = 1 / math.log1p(2 * self.accuracy / (1 - self.accuracy)) * math.log(2)

        def runs(magnitude: "pl.Expr") -> "list[pl.Expr]":
            clipped = magnitude.filter(magnitude > self._tiny).clip(upper_bound=self._huge)
            run = (clipped.log(2.0) * multiplier).ceil().cast(pl.Int64).sort().rle()
            return [run.struct.field("value"), run.struct.field("len")]

        return [(value.abs() <= self._tiny).sum(), *runs(value), *runs(-value)]

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The quantiles, null for no value."""
        stores = []
        for at in (KEYS, NEGATIVE_KEYS):
            store = DenseStore()
            for key, count in zip(state[at], state[at + 1], strict=True):
                store.add(key, count)
            stores.append(store)
        sketch = BaseDDSketch(self._mapping, stores[0], stores[1], state[ZERO])
        return {
            name: sketch.get_quantile_value(quantile)
            for name, quantile in zip(self._names, self.quantiles, strict=True)
        }

    def parameters(self) -> Sequence[object]:
        """The attribute, the quantiles, the accuracy and the bins."""
        return (self.field, self.quantiles, self.accuracy, self.bins)
