from typing import Any

import numpy as np
import pytest

from streamapp.columns.values import numbered, values_of


@pytest.mark.parametrize(
    ("texts", "different", "numbers"),
    [([], [], []), (["b", "a", "b", "", "a"], ["b", "a", ""], [0, 1, 0, 2, 1])],
    ids=repr,
)
def test_texts_are_numbered_in_the_order_in_which_they_first_come(
    texts: list[str], different: list[str], numbers: list[int]
) -> None:
    known, places = numbered(iter(texts))
    assert (known, places.tolist(), places.dtype) == (different, numbers, np.uint32)


@pytest.mark.parametrize(
    "found",
    [
        [None, None], ["b", "a", "b"], ["b", None, "", None, "b"], [None, "a"], [1.5, None, -0.0], [1, 2],
        [True, None, False], [None, (1 << 63) - 1, -(1 << 63)],
    ],
    ids=repr,
)  # fmt: skip
def test_a_column_holds_what_it_was_made_of(found: list[Any]) -> None:
    column = values_of(found)
    assert column is not None
    assert column.at(np.arange(len(found))) == found
    assert list(map(type, column.at(np.arange(len(found))))) == list(map(type, found))


@pytest.mark.parametrize(
    "found", [[1, 1.5], [1.5, 1], [1, True], [True, 1.5], ["a", 1], [1 << 63], [b"a"], [object()]], ids=repr
)
def test_no_column_is_made_of_what_it_could_not_give_back(found: list[Any]) -> None:
    assert values_of(found) is None
