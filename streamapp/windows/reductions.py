"""What a slot of a state is of a whole group of records: said once, worked out in either of two ways.

An aggregate whose slots can all be said so names them as a list of reductions. *By arrays* (numpy) they cost microseconds,
which pays from some ten records on; *by expressions* (polars) some milliseconds whatever the batch, but they know nulls and
booleans. What no column can hold, values of mixed types, is for neither. Both come to what the aggregate's `add` reaches
record by record, floating sums to 1e-9.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamapp.columns.values import Values
from streamapp.importing import np, pl
from streamapp.windows.aggregate import OFFSET, SEQUENCE, TIME

if TYPE_CHECKING:
    from streamapp.columns.values import Array


class NotByArraysError(Exception):
    """Arrays cannot tell what this reduction is of these values; expressions, or the records one by one, can."""


class Groups:
    """Records in order of their group, and within it of event time, sequence and offset. There is at least one.

    Args:
        column: the attribute of this name, of all records as they came; raises `NotByArraysError` where there is none.
        order: places of the records in their new order.
        begins: where each group begins.
        ordered: filled with the attributes in order, each made once for all that hand in the same mapping.
    """

    def __init__(
        self, column: Callable[[str], Values], order: "Array", begins: "Array", ordered: dict[str, tuple[Values, bool]]
    ) -> None:
        self._column = column
        self._order = order
        self._ordered = ordered
        self.begins = begins
        self.lasts = np.append(begins[1:], len(order)) - 1
        self.counts = self.lasts - begins + 1

    def column(self, name: str) -> Values:
        """An attribute of all records, in order."""
        return self._found(name)[0]

    def has_nulls(self, name: str) -> bool:
        """Whether a record has no such attribute."""
        return self._found(name)[1]

    def _found(self, name: str) -> tuple[Values, bool]:
        known = self._ordered.get(name)
        if known is None:
            column = self._column(name)
            found = Values(column.values[self._order], column.nulls[self._order], column.texts)
            known = self._ordered[name] = found, bool(found.nulls.any())
        return known

    def numbers(self, name: str) -> "Array":
        """An attribute as doubles, 0 where there is none.

        Raises:
            NotByArraysError: it holds something else than numbers.
        """
        column = self.column(name)
        if not _is_numeric(column):
            raise NotByArraysError(name)
        values: Array = column.values.astype(np.float64, copy=self.has_nulls(name))
        if self.has_nulls(name):
            values[column.nulls] = 0.0
        return values

    def total(self, values: "Array") -> list[Any]:
        """The sum of each group."""
        with np.errstate(over="ignore", invalid="ignore"):
            found: list[Any] = np.add.reduceat(values, self.begins).tolist()
        return found


def _is_numeric(column: Values) -> bool:
    return column.texts is None and column.values.dtype != np.bool_


class Reduction(ABC):
    """What one slot is of each group. Equal ones, by `repr`, mean the same."""

    @abstractmethod
    def of(self, groups: Groups) -> Sequence[Any]:
        """One value per group.

        Raises:
            NotByArraysError: by expressions it can be had, or not at all.
        """

    @abstractmethod
    def expression(self) -> "pl.Expr":
        """The same, for a frame that is grouped and sorted."""


@dataclass(frozen=True)
class Rows(Reduction):
    """The number of records."""

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        found: list[int] = groups.counts.tolist()
        return found

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return pl.len()


@dataclass(frozen=True)
class Always(Reduction):
    """A constant."""

    value: Any

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        return [self.value] * len(groups.begins)

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return pl.lit(self.value)


@dataclass(frozen=True)
class Present(Reduction):
    """The number of records that have an attribute."""

    field: str

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        nulls = groups.column(self.field).nulls
        present = np.add.reduceat((~nulls).astype(np.int64), groups.begins)
        found: list[int] = present.tolist()
        return found

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return pl.col(self.field).count()


@dataclass(frozen=True)
class Total(Reduction):
    """The sum of an attribute as a double; those that have none count as 0. Whole numbers would overflow silently."""

    field: str

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        return groups.total(groups.numbers(self.field))

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return (pl.col(self.field) * 1.0).sum()


@dataclass(frozen=True)
class TotalOfProducts(Reduction):
    """The sum of the products of two attributes that every record has."""

    field: str
    other: str

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return groups.total(groups.numbers(self.field) * groups.numbers(self.other))

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return (pl.col(self.field) * (pl.col(self.other) * 1.0)).sum()


@dataclass(frozen=True)
class TotalWhere(Reduction):
    """The sum of an attribute over the records in which another one is a certain word."""

    field: str
    by: str
    word: str

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        by = groups.column(self.by)
        if by.texts is None:
            raise NotByArraysError(self.by)
        values = groups.numbers(self.field)
        if not by.texts:  # of no record: all are null
            return groups.total(np.zeros_like(values))
        chosen = np.array([text == self.word for text in by.texts])
        if groups.has_nulls(self.by):
            chosen = chosen[np.where(by.nulls, 0, by.values)] & ~by.nulls
        else:
            chosen = chosen[by.values]
        return groups.total(np.where(chosen, values, 0.0))

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return pl.when(pl.col(self.by) == self.word).then(pl.col(self.field) * 1.0).otherwise(0.0).sum()


@dataclass(frozen=True)
class _Picked(Reduction):
    """One of the values of an attribute, as it is.

    Attributes:
        field: the attribute.
        numbers: whether it is numbers that are meant, as doubles: others are then refused, as `value + 0.0` does one by one.
    """

    field: str
    numbers: bool = False

    def _values(self, groups: Groups) -> Values:
        if not self.numbers:
            return groups.column(self.field)
        return Values(groups.numbers(self.field), groups.column(self.field).nulls)

    def _column(self) -> "pl.Expr":
        column = pl.col(self.field)
        return column * 1.0 if self.numbers else column


class _Extreme(_Picked):
    """The least or the greatest value of an attribute; what is not a number (pydantic reads `NaN`) hides no other one."""

    def _of(self, groups: Groups, reduce: Any) -> Sequence[Any]:
        column = self._values(groups)
        if not _is_numeric(column) or groups.has_nulls(self.field):
            raise NotByArraysError(self.field)
        found: list[Any] = reduce.reduceat(column.values, groups.begins).tolist()
        return found


class Least(_Extreme):
    """The least value of an attribute, of the records that have it; None where none has."""

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        return self._of(groups, np.fmin)

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return self._column().min()


class Greatest(_Extreme):
    """The greatest value of an attribute, of the records that have it; None where none has."""

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        return self._of(groups, np.fmax)

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return self._column().max()


class FirstOf(_Picked):
    """An attribute of the first record of the group."""

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        return self._values(groups).at(groups.begins)

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return self._column().first()


class LastOf(_Picked):
    """An attribute of the last record of the group."""

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        return self._values(groups).at(groups.lasts)

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return self._column().last()


@dataclass(frozen=True)
class Average(Reduction):
    """The arithmetic mean of an attribute that every record has."""

    field: str

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        found: list[float] = _means(groups, groups.numbers(self.field)).tolist()
        return found

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        values = pl.col(self.field) * 1.0
        # a sum may be beyond a double where the mean is not
        return pl.when(values.mean().is_finite()).then(values.mean()).otherwise((values / pl.len()).sum())


@dataclass(frozen=True)
class SquaredDeviations(Reduction):
    """The sum of the squared deviations of an attribute, which every record has, from its mean in the group."""

    field: str

    def of(self, groups: Groups) -> Sequence[Any]:
        """See `Reduction`."""
        values = groups.numbers(self.field)
        with np.errstate(over="ignore", invalid="ignore"):
            apart = values - np.repeat(_means(groups, values), groups.counts)
            return groups.total(apart * apart)

    def expression(self) -> "pl.Expr":
        """See `Reduction`."""
        return (pl.col(self.field) * 1.0).var(ddof=0) * pl.len()


def _means(groups: Groups, values: "Array") -> "Array":
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.add.reduceat(values, groups.begins) / groups.counts
        finite = np.isfinite(found)
        if not finite.all():  # a sum may be beyond a double where the mean is not
            parts = values / np.repeat(groups.counts, groups.counts)
            found = np.where(finite, found, np.add.reduceat(parts, groups.begins))
    return found


#: the place of the first or of the last record, as `Order` has it
FIRST_ORDER = (FirstOf(TIME), FirstOf(SEQUENCE), FirstOf(OFFSET))
LAST_ORDER = (LastOf(TIME), LastOf(SEQUENCE), LastOf(OFFSET))
