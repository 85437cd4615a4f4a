"""One attribute of many records as an array."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from streamapp.importing import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]


@dataclass(slots=True)
class Values:
    """One column of a chunk.

    Attributes:
        values: numbers, or for text the place in `texts`; anything where `nulls` is true.
        nulls: bool per row.
        texts: the texts of the chunk, for a column of text; else None.
    """

    values: "Array"
    nulls: "Array"
    texts: list[str] | None = None

    def at(self, places: "Array") -> list[Any]:
        """What stands at these rows, as Python's own values."""
        found: list[Any] = self.values[places].tolist()
        nulls, texts = self.nulls[places], self.texts
        if not nulls.any():
            return found if texts is None else list(map(texts.__getitem__, found))
        return [
            None if null else value if texts is None else texts[value]
            for value, null in zip(found, nulls.tolist(), strict=True)
        ]


def numbered(texts: Iterable[str]) -> "tuple[list[str], Array]":
    """The different texts, in the order in which they first come, and the place of each text among them, uint32."""
    known: dict[str, int] = {}
    numbers = [known.setdefault(text, len(known)) for text in texts]
    return list(known), np.array(numbers, np.uint32)


def values_of(found: Sequence[Any]) -> Values | None:
    """A column of these values; None where they are not of one type that a column can hold.

    Whole numbers beyond 64 bits, and values of several types, are such that no column says what the records say.
    """
    kinds = set(map(type, found))
    nulls = np.zeros(len(found), np.bool_)
    if type(None) in kinds:
        kinds.discard(type(None))
        nulls = np.fromiter((value is None for value in found), np.bool_, len(found))
        if kinds <= {float, int}:
            found = [0 if value is None else value for value in found]
            kinds |= {int} if not kinds else set()
    if kinds == {str}:
        if not nulls.any():
            texts, numbers = numbered(found)
        else:
            numbers = np.zeros(len(found), np.uint32)
            texts, numbers[~nulls] = numbered(value for value in found if value is not None)
        return Values(numbers, nulls, texts)
    try:
        if kinds == {float}:
            return Values(np.array(found, np.float64), nulls)
        if kinds == {bool}:
            return Values(np.array(found, np.bool_), nulls)
        return Values(np.array(found, np.int64), nulls) if kinds == {int} else None
    except OverflowError:
        return None
