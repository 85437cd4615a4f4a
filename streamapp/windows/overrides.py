"""Whose word counts where a subclass redefines one of several methods that say the same thing.

An aggregate says in up to three ways what records amount to: one by one (`add`), by expressions, by reductions. A subclass
that redefines one of them says something new, and what it inherits of the others is out of date. So the class that comes
first in the order in which Python looks methods up has the word; of what one class says, the quickest counts.

`merge` is no such way: whatever redefines it is held to the same law, that partials merge to what `add` reaches.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from streamapp.windows.aggregate import Aggregate, Json, Order, State

if TYPE_CHECKING:
    from streamapp.importing import pl
    from streamapp.windows.reductions import Reduction

_SINGLY = ("add", "add_all")
#: what makes a state bounded belongs to the expressions that it was made for
_BY_EXPRESSIONS = ("expressions", "_columns", "compact")

AddAll = Callable[[State, Iterator[Any], Iterator[Order | None], int], tuple[int, Exception | None]]


def reductions_of(aggregate: Aggregate, source: int) -> "Sequence[Reduction] | None":
    """The aggregate's reductions, where they count; None where there are none or a subclass has redefined another way."""
    said = _place(aggregate, "reductions")
    return None if said > _place(aggregate, *_SINGLY, *_BY_EXPRESSIONS) else aggregate.reductions(source)


def expressions_of(aggregate: Aggregate, source: int) -> "list[pl.Expr] | None":
    """The aggregate's expressions, of its reductions where these count; None where records are to be taken one by one."""
    reductions = reductions_of(aggregate, source)
    if reductions is not None:
        # of these and no others, as tables share partials whose reductions are alike
        return [reduction.expression().alias(f"__slot{index}") for index, reduction in enumerate(reductions)]
    said = _place(aggregate, "reductions", "expressions", "_columns")
    return None if said > _place(aggregate, *_SINGLY) else aggregate.expressions(source)


def add_all_of(aggregate: Aggregate) -> AddAll:
    """What adds many records: the aggregate's own way, or call by call where a subclass has redefined the single step."""
    if _place(aggregate, "add") < _place(aggregate, "add_all"):
        return partial(Aggregate.add_all, aggregate)
    return aggregate.add_all


def reader_of(aggregate: Aggregate, name: str) -> Callable[[State, tuple[int, int] | None], Json]:
    """What reads one field of the result: the aggregate's short way, or by the result where a subclass has redefined it."""
    if _place(aggregate, "result") < _place(aggregate, "reader_of"):
        return Aggregate.reader_of(aggregate, name)
    return aggregate.reader_of(name)


def _place(aggregate: Aggregate, *names: str) -> int:
    """Where in the line of its classes, its own first, one of these methods is defined."""
    line = type(aggregate).__mro__
    return next(place for place, kind in enumerate(line) if not vars(kind).keys().isdisjoint(names))
