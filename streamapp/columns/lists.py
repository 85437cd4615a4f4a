"""Columns seen as lists, for the code that takes one record after the other; what nobody looks at is never made."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from streamapp.columns.values import Array


class ArrayList(Sequence[int]):
    """An array of integers as a sequence of Python's own; `array` is the array."""

    def __init__(self, array: "Array") -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            found: list[int] = self.array[index].tolist()
            return found
        value: int = self.array.item(index)
        return value

    def __iter__(self) -> Iterator[int]:
        values: list[int] = self.array.tolist()
        return iter(values)


class TextList(Sequence[str]):
    """Numbers of texts as the texts."""

    def __init__(self, numbers: "Array", texts: Sequence[str]) -> None:
        self._numbers = numbers
        self._texts = texts

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._texts[number] for number in self._numbers[index].tolist()]
        number: int = self._numbers.item(index)
        return self._texts[number]

    def __iter__(self) -> Iterator[str]:
        texts = self._texts
        return iter([texts[number] for number in self._numbers.tolist()])


class OnDemand(Sequence[Any]):
    """Objects that are made when they are asked for: one by one by index, all at once when iterated.

    Args:
        length: how many there are.
        everything: makes all of them.
        one: makes the one at an index, where that costs less than making all.
    """

    def __init__(
        self, length: int, everything: Callable[[], Sequence[Any]], one: Callable[[int], Any] | None = None
    ) -> None:
        self._length = length
        self._everything = everything
        self._one = one
        self._made: Sequence[Any] | None = None
        self._single: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._length

    def all(self) -> Sequence[Any]:
        """All of them; made once."""
        if self._made is None:
            self._made = self._everything()
            self._single.clear()
        return self._made

    def __getitem__(self, index: Any) -> Any:
        if self._made is not None:
            return self._made[index]
        if self._one is None or isinstance(index, slice):
            return self.all()[index]
        if index not in self._single:
            if len(self._single) * 4 > self._length:
                return self.all()[index]  # most will be wanted: one pass costs less
            self._single[index] = self._one(index)
        return self._single[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.all())
