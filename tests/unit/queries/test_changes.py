"""Whom a change is told to, and what it costs the others."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from typing import Any

import pytest

from streamapp.errors import BadParameterError, RateLimitedError
from streamapp.operations.conditions import Condition, parse, parse_bounded
from streamapp.queries.changes import ChangeHub, Subscription
from streamapp.queries.model import FieldInfo

FIELDS = [FieldInfo("close", "number")]


def hub(conflated: list[int] | None = None, **bounds: int) -> ChangeHub:
    told = [] if conflated is None else conflated
    return ChangeHub(**{"subscribers_max": 1_000, "pending_max": 10, **bounds}, on_conflated=told.append)


def pending(changes: ChangeHub, *those: Subscription) -> list[list[tuple[str, int]]]:
    for table in {one.table for one in those}:
        changes.pass_on(table)
    return [list(one.pending) for one in those]


def test_change_reaches_those_of_its_key_its_prefixes_and_all_keys() -> None:
    changes = hub()
    of_all, of_a, of_b = (changes.subscribe("t", key) for key in (None, "ab", "b"))
    begins, others, longer = (changes.subscribe("t", prefix=prefix) for prefix in ("a", "b", "abc"))
    elsewhere = changes.subscribe("u", "ab")
    changes.listener("t")("ab", 7)
    told = pending(changes, of_all, of_a, of_b, begins, others, longer, elsewhere)
    assert told == [[("ab", 7)], [("ab", 7)], [], [("ab", 7)], [], [], []]


def test_change_of_one_key_asks_no_subscriber_of_another() -> None:
    changes = hub()
    those = [changes.subscribe("t", f"k{number}") for number in range(100)]
    asked: list[str | None] = []

    class Key(str):
        """A key that notes whom it is compared with."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            asked.append(str(other))
            return str.__eq__(self, str(other))

    changes.listener("t")(Key("k5"), 0)
    changes.pass_on("t")
    assert [len(one.pending) for one in those].count(1) == 1
    assert len(asked) < 8


def test_a_change_is_noted_once_however_many_follow_and_never_where_nobody_does() -> None:
    changes = hub()
    those = [changes.subscribe("t", "a") for _ in range(50)]
    changed = changes.listener("t")
    for _ in range(3):
        changed("a", 0)
        changed("nobody's", 0)
    assert changes._by_table["t"].changed == {("a", 0): 3}
    assert all(not one.pending for one in those), "whoever makes a change goes through no subscriber"
    changes.pass_on("t")
    assert [one.pending for one in those] == [{("a", 0): 3}] * 50


def test_condition_is_judged_once_for_all_who_set_it_and_queues_nothing_that_does_not_meet_it() -> None:
    changes = hub()
    asked: list[str] = []
    values = {"low": {"close": 1.0}, "high": {"close": 100.0}}

    def value_of(key: str, start: int) -> Mapping[str, Any]:
        asked.append(key)
        return values[key]

    def above(text: str) -> Condition:
        return parse(text, FIELDS)

    those = [changes.subscribe("t", condition=above("close > 50"), value_of=value_of) for _ in range(3)]
    those.append(changes.subscribe("t", condition=above("close > 500"), value_of=value_of))
    changed = changes.listener("t")
    changed("low", 0)
    changed("high", 0)
    assert pending(changes, *those) == [[("high", 0)], [("high", 0)], [("high", 0)], []]
    assert asked == ["low", "high"]


def test_condition_has_a_bounded_length() -> None:
    assert parse_bounded("close > 5", FIELDS).holds({"close": 6})
    with pytest.raises(BadParameterError, match="at most 300 characters"):
        parse_bounded("close > " + "5" * 400, FIELDS)


def test_those_who_left_hear_nothing_and_nobody_is_listened_to() -> None:
    changes = hub()
    kept = [
        changes.subscribe("t", "a"),
        changes.subscribe("t", "a"),
        changes.subscribe("t"),
        changes.subscribe("t", prefix="a"),
    ]
    changed = changes.listener("t")
    assert changes.listened_to("t")
    changes.unsubscribe(kept[0])
    changed("a", 1)
    assert [len(waiting) for waiting in pending(changes, *kept)] == [0, 1, 1, 1]
    for one in kept[1:]:
        changes.unsubscribe(one)
    assert not changes.listened_to("t")
    listeners = changes._by_table["t"]
    assert not listeners.by_key, "keys that nobody follows cost nothing"
    assert not listeners.by_prefix
    changed("a", 1)
    assert not listeners.changed


def test_subscriber_that_waits_for_too_much_falls_behind_and_every_change_is_counted() -> None:
    conflated: list[int] = []
    changes = hub(conflated, subscribers_max=1, pending_max=1)
    one = changes.subscribe("t")
    changed = changes.listener("t")
    changed("a", 0)
    changed("a", 0)
    changes.pass_on("t")
    assert (one.pending, one.behind, sum(conflated)) == ({("a", 0): 2}, False, 1)
    changed("b", 0)
    changes.pass_on("t")
    assert (one.pending, one.behind) == ({}, True), "it must look up what has changed: nothing may be left out"
    assert sum(conflated) == 4
    with pytest.raises(RateLimitedError):
        changes.subscribe("t", "a")


async def test_subscribers_are_woken_in_slices_and_others_get_turns_in_between() -> None:
    changes = hub(subscribers_max=10_000)
    woken: list[int] = []
    turns: list[int] = []

    def busy(number: int) -> None:
        until = asyncio.get_running_loop().time() + 0.001
        while asyncio.get_running_loop().time() < until:
            pass
        woken.append(number)

    for number in range(80):
        changes.subscribe("t", "a").notify = lambda number=number: busy(number)  # type: ignore[misc]
    changes.listener("t")("a", 0)
    async with asyncio.timeout(30):
        while len(woken) < 80:
            await asyncio.sleep(0)
            turns.append(len(woken))
    assert sorted(woken) == list(range(80))
    steps = [after - before for before, after in itertools.pairwise(turns)]
    assert max(steps) <= 20, "the event loop must not be held until everybody was told"


async def test_subscribers_rest_between_slices_while_the_lanes_have_a_backlog() -> None:
    spent: dict[bool, float] = {}
    for crowded in (False, True):
        changes = ChangeHub(
            subscribers_max=100, pending_max=10, on_conflated=lambda count: None, crowded=lambda now=crowded: now
        )
        woken: list[int] = []

        def busy(woken: list[int] = woken) -> None:
            until = time.thread_time() + 0.001
            while time.thread_time() < until:
                pass
            woken.append(1)

        for _ in range(80):
            changes.subscribe("t", "a").notify = busy
        changes.listener("t")("a", 0)
        begin, worked = time.monotonic(), time.thread_time()
        async with asyncio.timeout(60):
            while len(woken) < 80:  # noqa: ASYNC110 - the turns of the loop are what is looked at
                await asyncio.sleep(0.001)
        worked = time.thread_time() - worked
        spent[crowded] = (time.monotonic() - begin) / worked
    assert spent[True] > 3.0, "four fifths of the time are the lanes'"
