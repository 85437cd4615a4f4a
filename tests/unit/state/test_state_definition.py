"""Event times in all their forms, and what makes a definition another one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamapp.errors import ConfigurationError, RecordError
from streamapp.state.definition import event_time_ms
from streamapp.windows.basic import Count, Sum
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.fold import Fold
from streamapp.windows.sessions import Session
from tests.fakes.crashes import definition


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1_790_000_040_123, 1_790_000_040_123),
        (1_790_000_040.123, 1_790_000_040_123),
        (0.0004, 0),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01.5+01:00", 1_500),
        ("1970-01-01T00:00:01", 1_000),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
        (datetime(2026, 9, 21, 14, 14, 0, 999_999, tzinfo=UTC), 1_790_000_040_999),
    ],
)
def test_event_times_become_milliseconds(value: object, expected: int):
    assert event_time_ms(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1 << 53,
        -0.6,
        float("nan"),
        float("inf"),
        1e300,
        "",
        "yesterday",
        "1969-12-31T23:59:59Z",
        None,
        True,
        [],
        b"1",
    ],
)
def test_what_is_no_event_time_is_refused(value: object):
    with pytest.raises(RecordError) as problem:
        event_time_ms(value)
    assert problem.value.reason == "bad_event_time"


def test_the_fingerprint_follows_the_meaning_of_the_state_and_not_its_keeping():
    table = definition(Tumbling(10, 0, 100), Count())
    same = [definition(Tumbling(10, 5, 1_000), Count()), replace(table, description="else", publish_final=False)]
    other = [
        definition(Tumbling(20, 0, 100), Count()),
        definition(Hopping(10, 10, 0, 100), Count()),
        definition(Session(10, 0, 100), Count()),
        definition(None, Count()),
        definition(Tumbling(10, 0, 100), Count("price")),
        definition(Tumbling(10, 0, 100), Sum("price")),
        definition(Tumbling(10, 0, 100), Count(), 2),
        definition(Tumbling(10, 0, 100), Count(), rekey=lambda record: "x", rekey_name="venue"),
    ]
    assert {one.fingerprint for one in same} == {table.fingerprint}
    assert len({one.fingerprint for one in [table, *other]}) == 1 + len(other)


def test_declarations_that_cannot_work_are_refused():
    with pytest.raises(ConfigurationError, match="merge"):
        definition(Session(10, 0, 100), Fold(0, lambda state, record: state + 1))
    with pytest.raises(ConfigurationError, match="one source"):
        definition(Tumbling(10, 0, 100), Count(), 2, rekey=lambda record: "x")
    with pytest.raises(ConfigurationError, match="name"):
        replace(definition(None, Count()), name="a/b")
