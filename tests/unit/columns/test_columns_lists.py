"""Columns seen as lists equal the lists, and nothing is made twice."""

import numpy as np

from streamapp.columns.lists import ArrayList, OnDemand, TextList


def test_arrays_and_numbered_texts_read_like_lists() -> None:
    numbers = ArrayList(np.array([5, 7, 9], np.int64))
    texts = TextList(np.array([1, 0, 1], np.uint32), ["a", "b"])
    assert list(numbers) == [5, 7, 9]
    assert numbers[1:] == [7, 9]
    assert type(numbers[0]) is int
    assert list(texts) == ["b", "a", "b"]
    assert texts[:2] == ["b", "a"]
    assert texts[2] == "b"


def test_what_only_comes_whole_is_made_once_however_it_is_asked_for() -> None:
    made: list[int] = []

    def everything() -> list[int]:
        made.append(1)
        return list(range(1_000))

    found = OnDemand(1_000, everything)
    assert not made
    assert [found[index] for index in range(200)] == list(range(200))
    assert list(found)[999] == 999
    assert len(made) == 1


def test_a_few_are_made_one_by_one_and_many_at_once() -> None:
    single: list[int] = []
    whole: list[int] = []

    def one(index: int) -> int:
        single.append(index)
        return index * 10

    def everything() -> list[int]:
        whole.append(1)
        return [index * 10 for index in range(100)]

    found = OnDemand(100, everything, one)
    assert [found[index] for index in (3, 3, 4)] == [30, 30, 40]
    assert single == [3, 4]
    assert not whole
    assert [found[index] for index in range(60)] == [index * 10 for index in range(60)]
    assert len(whole) == 1
    assert len(single) < 30
