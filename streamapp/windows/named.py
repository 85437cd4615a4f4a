"""Several aggregates of the same records side by side, each under a name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from streamapp.errors import ConfigurationError
from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State
from streamapp.windows.basic import Count, Mean
from streamapp.windows.fold import Fold
from streamapp.windows.overrides import expressions_of, reductions_of

if TYPE_CHECKING:
    from streamapp.importing import pl
    from streamapp.windows.reductions import Reduction

Part = TypeVar("Part")


class Named(Aggregate):
    """Aggregates under names: `Named({"n": Count(), "p": Mean("price")})` gives `{"n": 5, "p": 1.2}`.

    An aggregate of several fields gives one field each, joined by an underscore: `{"c": Candle()}` gives `c_open` and so on.

    Args:
        members: name to aggregate, at least one; names are identifiers.

    Raises:
        ConfigurationError: no member, a bad name, or two fields of the same name.
    """

    kind = "named"

    def __init__(self, members: Mapping[str, Aggregate]) -> None:
        if not members:
            raise ConfigurationError("Named: expected at least one aggregate, got none")
        for name, member in members.items():
            if not isinstance(name, str) or not name.isidentifier() or not isinstance(member, Aggregate):
                raise ConfigurationError(
                    f"Named: expected identifiers and aggregates, such as {{'n': Count()}}; got {name!r}: {member!r}"
                )
        self.members = dict(members)
        self._spans: list[tuple[Aggregate, int, int]] = []
        self.slots = 0
        for member in self.members.values():
            self._spans.append((member, self.slots, self.slots + member.slots))
            self.slots += member.slots
        # Those that run a user's function go first: if one raises, no other member has counted the record yet.
        spans = sorted(self._spans, key=lambda span: not isinstance(span[0], Fold | Named))
        self._adds = [(member.add, slice(start, end)) for member, start, end in spans]
        self._labels = [
            {field.name: name if len(member.fields) == 1 else f"{name}_{field.name}" for field in member.fields}
            for name, member in self.members.items()
        ]
        self.fields: tuple[OutputField, ...] = tuple(
            replace(field, name=labels[field.name], weight=labels.get(field.weight, ""))
            for member, labels in zip(self.members.values(), self._labels, strict=True)
            for field in member.fields
        )
        self.fields = tuple(map(self._weighted, self.fields))
        names = [field.name for field in self.fields]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"Named: two fields share a name among {sorted(names)}; rename a member")
        self.ordered = any(member.ordered for member in self.members.values())

    def _weighted(self, field: OutputField) -> OutputField:
        """A mean is weighted by the number of its values, where a member beside it counts them."""
        mean = self.members.get(field.name)
        if not isinstance(mean, Mean):
            return field
        counts = (
            name for name, one in self.members.items() if isinstance(one, Count) and one.field in (None, mean.field)
        )
        weight = next(counts, "")
        return replace(field, combine="mean", weight=weight) if weight else field

    def inputs(self, source: int) -> tuple[str, ...]:
        """All that any member reads."""
        return tuple(dict.fromkeys(name for member in self.members.values() for name in member.inputs(source)))

    def required(self, source: int) -> tuple[str, ...]:
        """All that any member requires."""
        return tuple(dict.fromkeys(name for member in self.members.values() for name in member.required(source)))

    def initial(self) -> State:
        """The members' states, one after the other."""
        return [value for member in self.members.values() for value in member.initial()]

    def add(self, state: State, record: object, order: Order, source: int = 0) -> None:
        """Show the record to every member; all take it or, if one raises, none."""
        parts = []
        for add, span in self._adds:
            part = state[span]
            add(part, record, order, source)
            parts.append((span, part))
        for span, part in parts:
            state[span] = part

    def merge(self, into: State, other: State) -> None:
        """Merge member by member; all do or, if one raises, none."""
        merged: State = []
        for member, start, end in self._spans:
            part = into[start:end]
            member.merge(part, other[start:end])
            merged += part
        into[:] = merged

    def compact(self, state: State) -> None:
        """Compact member by member."""
        for member, start, end in self._spans:
            part = state[start:end]
            member.compact(part)
            state[start:end] = part

    @property
    def selective(self) -> bool:
        """Whether all members may be."""
        return all(member.selective for member in self.members.values())

    def visible(self, state: State) -> bool:
        """Whether any member has something to show."""
        return any(member.visible(state[start:end]) for member, start, end in self._spans)

    def reductions(self, source: int) -> "Sequence[Reduction] | None":
        """Those of the members, where all have some."""
        return _joined(reductions_of(member, source) for member in self.members.values())

    def _columns(self, source: int) -> "list[pl.Expr] | None":
        return _joined(expressions_of(member, source) for member in self.members.values())

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The members' fields under their names."""
        return {
            labels.get(name, name): value
            for (member, start, end), labels in zip(self._spans, self._labels, strict=True)
            for name, value in member.result(state[start:end], window).items()
        }

    def parameters(self) -> Sequence[object]:
        """Names and fingerprints of the members."""
        return tuple((name, member.fingerprint()) for name, member in self.members.items())


def _joined(parts: Iterable[Sequence[Part] | None]) -> list[Part] | None:
    """The parts one after the other; None where one of them is."""
    found: list[Part] = []
    for part in parts:
        if part is None:
            return None
        found += part
    return found
