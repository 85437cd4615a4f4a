"""Whom a change is told to, and what it costs the others."""

import pytest

from streamapp.errors import RateLimitedError
from streamapp.queries.changes import ChangeHub, Subscription


def hub(conflated: list[int] | None = None, **bounds: int) -> ChangeHub:
    told = [] if conflated is None else conflated
    return ChangeHub(**{"subscribers_max": 1_000, "pending_max": 10, **bounds}, on_conflated=lambda: told.append(1))


def test_change_reaches_those_of_its_key_and_those_of_all_keys() -> None:
    changes = hub()
    of_all, of_a, of_b = (changes.subscribe("t", key) for key in (None, "a", "b"))
    elsewhere = changes.subscribe("u", "a")
    changes.listener("t")("a", 7)
    assert [list(one.pending) for one in (of_all, of_a, of_b, elsewhere)] == [[("a", 7)], [("a", 7)], [], []]


def test_change_of_one_key_asks_no_subscriber_of_another() -> None:
    changes = hub()
    for number in range(100):
        changes.subscribe("t", f"k{number}")
    asked: list[str | None] = []

    class Key(str):
        """A key that notes whom it is compared with."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            asked.append(str(other))
            return str.__eq__(self, str(other))

    changes.listener("t")(Key("k5"), 0)
    assert len(asked) < 5


def test_those_who_left_hear_nothing_and_nobody_is_listened_to() -> None:
    changes = hub()
    kept: list[Subscription] = [changes.subscribe("t", "a"), changes.subscribe("t", "a"), changes.subscribe("t", None)]
    changed = changes.listener("t")
    assert changes.listened_to("t")
    changes.unsubscribe(kept[0])
    changed("a", 1)
    assert [len(one.pending) for one in kept] == [0, 1, 1]
    for one in kept[1:]:
        changes.unsubscribe(one)
    assert not changes.listened_to("t")
    assert not changes._by_table["t"].by_key, "keys that nobody follows cost nothing"


def test_conflated_changes_are_counted_and_subscribers_bounded() -> None:
    conflated: list[int] = []
    changes = hub(conflated, subscribers_max=1, pending_max=1)
    subscription = changes.subscribe("t", None)
    changed = changes.listener("t")
    changed("a", 0)
    changed("a", 0)
    changed("b", 0)
    assert (subscription.pending, subscription.lost, len(conflated)) == ({("b", 0): 1}, 1, 1)
    with pytest.raises(RateLimitedError):
        changes.subscribe("t", "a")
