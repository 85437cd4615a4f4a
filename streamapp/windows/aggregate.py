"""What an aggregate is: a flat state, one record added at a time or many by column, partial states that merge.

An `Aggregate` holds parameters only; every state is a plain list, so that it can be packed, logged and compared as it
is. The two lanes meet in that list: `add` changes it record by record, `expressions` builds the same slots for a frame.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from streamapp.importing import pl
    from streamapp.windows.reductions import Reduction

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonType = Literal["number", "integer", "string", "boolean", "object", "array", "any"]
Combine = Literal["last", "first", "max", "min", "sum", "mean"]
State: TypeAlias = list[Any]
Order: TypeAlias = tuple[int, int, int]
"""Event time in ms, the sequence or -1, the offset on the source topic; unique within a key, compared in turn."""

TIME, SEQUENCE, OFFSET, WINDOW = "__time", "__sequence", "__offset", "__window"
"""Columns that the frames of the vectorised lane carry beside the inputs; a null sequence is -1."""


@dataclass(frozen=True, slots=True)
class OutputField:
    """One field of an aggregate's result, as the table's schema describes it.

    Attributes:
        name: its key in the result.
        type: its JSON type.
        unit: what it is measured in (`ms`, `price`, `1/s`), or empty for a pure number or text.
        nullable: whether the result may hold null there.
        description: one line for people.
        combine: what stands for the values of several windows in a row, where fewer points are asked for: the `last` one,
            the `first`, the greatest (`max`), the least (`min`), their `sum`, or their `mean`, weighted by `weight`.
        weight: the field that says how much each window counts in a `mean`.
    """

    name: str
    type: JsonType = "number"
    unit: str = ""
    nullable: bool = True
    description: str = ""
    combine: Combine = "last"
    weight: str = ""


class Aggregate(ABC):
    """A summary of the records of one key (and window) that is built up piece by piece.

    Laws that every aggregate keeps, and that the property tests check:

    * `merge` is associative and commutative and `initial()` is its identity, so partials may be merged in any grouping;
      an aggregate with `ordered` true has no `merge` and must be given its records one by one, in order of offset.
    * a row of `expressions` equals the state that `add` reaches over the same records (floating sums to 1e-9). A subclass
      that redefines `add` alone has no columns, until it says anew what they are (see `overrides`).
    * `add` either takes a record wholly or raises before it has changed anything, a user's own functions apart.

    Input values are finite numbers, text or None; a record whose input is None is skipped unless said otherwise.

    Attributes:
        slots: the length of every state; slots hold numbers, text, bytes, None or lists of these, all msgpack-able.
        fields: what `result` returns, in order.
        ordered: whether the order of `add` calls matters and `merge` does not exist.
        looks_at_order: whether `add` looks at the order that it is given.
        narrow: whether it takes records that hold no more than `inputs`.
    """

    slots: int
    fields: tuple[OutputField, ...]
    ordered: bool = False
    looks_at_order: bool = True
    narrow: bool = False
    kind: ClassVar[str] = ""

    @abstractmethod
    def inputs(self, source: int) -> tuple[str, ...]:
        """The record attributes that are read from source number `source`."""

    def required(self, source: int) -> tuple[str, ...]:
        """Those of `inputs` that must hold no null in a frame for `expressions` to be right.

        A batch with a null in one of them goes through `add`, which skips such a record (see `lane.aggregate_frame`).
        """
        return self.inputs(source)

    @abstractmethod
    def initial(self) -> State:
        """A fresh state: what no record at all amounts to."""

    @abstractmethod
    def add(self, state: State, record: object, order: Order, source: int = 0) -> None:
        """Count one record in, in place.

        Args:
            state: of `slots` values; changed.
            record: anything with the attributes that `inputs(source)` names.
            order: the record's place among those of its key, see `Order`.
            source: which of the table's source topics it came from.
        """

    def add_all(
        self, state: State, records: Iterator[Any], orders: Iterator[Order | None], source: int = 0
    ) -> tuple[int, Exception | None]:
        """Count records in, one after the other, until there are no more or one is refused.

        Args:
            state: changed.
            records: of one key; consumed up to the refused one, that included.
            orders: the order of each; anything where `looks_at_order` is false.
            source: as in `add`.

        Returns:
            How many were taken, and what the next one raised, or None.
        """
        taken, add = 0, self.add
        try:
            for record, order in zip(records, orders, strict=False):
                add(state, record, order, source)  # type: ignore[arg-type]
                taken += 1
        except Exception as problem:  # a user's code, or a value that this aggregate cannot use
            return taken, problem
        return taken, None

    @abstractmethod
    def merge(self, into: State, other: State) -> None:
        """Count another partial in, in place; `other` is not changed and shares nothing with `into` afterwards."""

    @abstractmethod
    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The fields that a reader sees; JSON-safe, so a number that is not finite is None.

        Args:
            state: not changed.
            window: start and end in ms, or None for a table without windows.
        """

    def reader_of(self, name: str) -> Callable[[State, tuple[int, int] | None], Json]:
        """What reads one of `fields` alone, to rank many keys by it: the same as `result(state, window).get(name)`.

        Override it where the rest of the result costs much.
        """
        # None for a state that has no such field (yet): of a user's fold each may have others
        return lambda state, window: self.result(state, window).get(name)

    def expressions(self, source: int = 0) -> "list[pl.Expr] | None":
        """One polars aggregation per slot, named `__slot0`, `__slot1`, ..., or None where only the record lane exists.

        They are meant for `frame.group_by(key, "__window").agg(...)`, where the frame holds `inputs(source)` and
        `__time`, `__sequence` (null as -1), `__offset`, sorted by these three, and no null in `required(source)`.
        """
        columns = self._columns(source)
        if columns is None:
            return None
        return [column.alias(f"__slot{index}") for index, column in enumerate(columns)]

    def reductions(self, source: int) -> "Sequence[Reduction] | None":
        """One reduction per slot, where all can be said so: the quickest way to a partial; None where they cannot.

        They hold under the same conditions as `expressions`, which are made of them unless a subclass says others.
        """
        return None

    def _columns(self, source: int) -> "list[pl.Expr] | None":
        """The expressions without their names; overridden where there are some and no reductions."""
        reductions = self.reductions(source)
        return None if reductions is None else [reduction.expression() for reduction in reductions]

    def compact(self, state: State) -> None:  # noqa: B027 - most aggregates have nothing to do here
        """Bring a state that came from `expressions` to its bounded form, in place; only sketches need it."""

    @property
    def selective(self) -> bool:
        """Whether `visible` may ever say no."""
        return type(self).visible is not Aggregate.visible

    def visible(self, state: State) -> bool:
        """Whether readers see this key at all; False hides a key that holds working state but no value yet."""
        return True

    def parameters(self) -> Sequence[object]:
        """What, beside `kind`, tells this definition from another; each with a stable `repr`."""
        return ()

    def fingerprint(self) -> str:
        """Stable text of kind and parameters: stored state of another fingerprint cannot be continued."""
        return f"{self.kind or type(self).__name__.lower()}({', '.join(map(repr, self.parameters()))})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parameters()))})"


def lesser(one: Any, other: Any) -> Any:
    """The lesser of two values; what is not a number (pydantic reads `NaN`) hides no other one."""
    return one if other >= one or other != other else other


def greater(one: Any, other: Any) -> Any:
    """The greater of two values; what is not a number hides no other one."""
    return one if other <= one or other != other else other


def finite(value: float | None) -> float | None:
    """`value`, or None where JSON has no form for it."""
    return value if value is not None and math.isfinite(value) else None


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, or None where it is not defined or not finite."""
    return finite(numerator / denominator) if denominator else None
