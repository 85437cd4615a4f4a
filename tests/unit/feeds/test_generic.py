"""A feed by configuration only."""

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from streamapp.errors import ConfigurationError
from streamapp.feeds import generic
from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, DedupKey, SendText, TopicRecord, VenueError
from tests.fakes.feed_frames import NOW_MS, feed, gaps, protocol, reasons, records


class Reading(BaseModel):
    model_config = ConfigDict(strict=True)

    device: str
    celsius: float = Field(allow_inf_nan=False, gt=-274)
    event_time: int
    note: str | None = None

    @field_validator("device")
    @classmethod
    def _known(cls, value):
        if value == "bomb":
            raise RuntimeError("a validator that fails badly")
        return value


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setattr(generic, "load_model", lambda path: Reading if path == "plant.Reading" else LOAD(path))


LOAD = generic.load_model

READINGS = {
    "name": "plant",
    "model": "plant.Reading",
    "topic": "readings",
    "key": "{feed}:{device}",
    "records": "$.data[*]",
    "where": {"$.type": "reading"},
    "sequence": "$.n",
    "dedup": ["device", "event_time"],
    "fields": {
        "device": "$.id",
        "celsius": {"path": "$.t", "kind": "number"},
        "event_time": {"path": "$.ts", "kind": "s"},
    },
}


def readings(**changes):
    return protocol("generic", "line-1", "line-2", url="ws://sensors.test", **{**READINGS, **changes})


def reading(number, device="a", **changes):
    return {"id": device, "t": "21.5", "ts": 1700000000.5, "n": number, **changes}


def frame(*data):
    return {"type": "reading", "data": list(data)}


def test_generic_frame_becomes_records_of_the_model():
    first, second = feed(readings(), frame(reading(1), reading(2, "b", t=3)))

    assert json.loads(first.value) == {"device": "a", "celsius": 21.5, "event_time": 1700000000500, "note": None}
    assert (first.topic, first.key, first.venue, first.symbol) == ("readings", b"plant:a", "plant", "plant:a")
    assert first.event_time == 1700000000500
    assert first.dedup == DedupKey("readings|plant:a", "a|1700000000500", 1)
    assert second.key == b"plant:b"


def test_generic_values_always_validate_against_the_model():
    for event in feed(readings(), frame(reading(1), reading(2, t=-3.25))):
        assert Reading.model_validate_json(event.value)


def test_generic_gap_is_a_jump_of_the_sequence_per_key():
    events = feed(readings(), frame(reading(1), reading(7, "b"), reading(2), reading(5), reading(3)))

    assert gaps(events) == [("plant:a", 3, 5)]
    assert len(records(events)) == 5


def test_generic_other_frames_are_ignored_and_errors_reported():
    subject = readings(heartbeat={"$.type": "beat"}, error="$.error.text")

    events = feed(subject, {"type": "hello"}, {"type": "beat"}, {"error": {"text": "no such line"}}, frame(), [], 3)

    assert events == [IGNORED, SIGN_OF_LIFE, VenueError("plant", None, "no such line"), IGNORED, IGNORED, IGNORED]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"t": "warm"}, "bad_number"),
        ({"t": "NaN"}, "bad_number"),
        ({"t": -300}, "bad_number"),
        ({"t": []}, "wrong_type"),
        ({"id": 5}, "wrong_type"),
        ({"ts": -1}, "bad_time"),
        ({"ts": 1e300}, "bad_time"),
        ({"n": "x"}, "bad_number"),
        ({"n": 1.5}, "bad_number"),
        ({"id": "bomb"}, "wrong_schema"),
    ],
)
def test_generic_bad_element_is_rejected_and_the_rest_of_the_frame_goes_on(changes, reason):
    events = feed(readings(), frame(reading(1, **changes), reading(1)))

    assert reasons(events) == [reason]
    assert len(records(events)) == 1
    assert json.loads(events[0].raw) == reading(1, **changes)


def test_generic_missing_field_is_named():
    element = reading(1)
    del element["t"]

    (event,) = feed(readings(), frame(element))

    assert event.reason == "missing_field"
    assert "celsius" in event.error


def test_generic_can_yield_the_built_in_trades():
    subject = protocol(
        "generic",
        url="ws://venue.test",
        name="acme",
        model="streamapp.records.models.Trade",
        topic="trades",
        sequence="$.i",
        dedup=["trade_id"],
        fields={
            "symbol": {"path": "$['sym']", "kind": "upper"},
            "price": {"path": "$.p[0]", "kind": "number"},
            "size": {"path": "$.p[1]", "kind": "number"},
            "side": {"path": "$.s", "map": {"B": "buy", "S": "sell"}, "optional": True},
            "trade_id": {"path": "$.i", "kind": "text"},
            "event_time": {"path": "$.t", "kind": "iso"},
        },
    )
    subject.resume("X-Y", "4")

    events = feed(subject, {"sym": "x-y", "p": ["1.5", 2], "s": "B", "i": 7, "t": "2024-01-01T00:00:00.9999Z"})

    assert gaps(events) == [("X-Y", 5, 7)]
    assert records(events) == [
        {
            "venue": "acme",
            "symbol": "X-Y",
            "price": 1.5,
            "size": 2.0,
            "side": "buy",
            "trade_id": "7",
            "sequence": None,
            "event_time": 1704067200999,
            "ingest_time": NOW_MS,
        }
    ]
    assert events[-1].key == b"acme:X-Y"


def test_generic_paths_beyond_names_and_indices_are_rfc_9535():
    subject = readings(records="$..items[?@.id == 'b']", where={})

    assert [record["device"] for record in records(feed(subject, {"x": {"items": [reading(1), reading(2, "b")]}}))] == [
        "b"
    ]


def test_generic_field_may_come_from_the_whole_frame():
    subject = readings(fields={**READINGS["fields"], "note": {"path": "$.batch", "of": "frame"}})

    assert records(feed(subject, {**frame(reading(1)), "batch": "b7"}))[0]["note"] == "b7"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("ms", 1700000000123, 1700000000123),
        ("s", 1700000000, 1700000000000),
        ("s", 1001.001, 1001001),
        ("us", "1700000000123999", 1700000000123),
        ("ns", 1700000000123999999, 1700000000123),
        ("iso", "2024-01-01T00:00:00+01:00", 1704063600000),
    ],
)
def test_generic_time_units_become_milliseconds_rounded_down(kind, value, expected):
    fields = {**READINGS["fields"], "event_time": {"path": "$.ts", "kind": kind}}

    assert records(feed(readings(fields=fields), frame(reading(1, ts=value))))[0]["event_time"] == expected


def test_generic_messages_and_pings_are_sent():
    subject = readings(
        open=['{"sub":{symbols}}', {"one": "{symbol}"}], ping={"message": '{"t":{now_ms}}', "every_ms": 1000}
    )

    assert subject.open_messages(5) == ['{"sub":["line-1", "line-2"]}', '{"one":"line-1"}', '{"one":"line-2"}']
    assert subject.tick(1004) == []
    assert subject.tick(1005) == [SendText('{"t":1005}')]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nowhere.Model"}, "cannot import"),
        ({"model": "json.dumps"}, "expected a pydantic model"),
        ({"records": "$[["}, "JSONPath"),
        ({"fields": {"colour": "$.c"}}, "no field 'colour'"),
        ({"fields": {"device": {"path": "$.a", "value": 1}}}, "exactly one of"),
        ({"key": None}, "give the option key"),
        ({"key": "{colour}"}, "no field 'colour'"),
        ({"key": "{device!r}"}, "not supported"),
        ({"dedup": ["colour"]}, "no field 'colour'"),
        ({"topic": "a b"}, "topic"),
    ],
)
def test_generic_configuration_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        readings(**changes)


def test_generic_stored_records_are_known_by_what_tells_repeats():
    subject = readings()
    events = feed(subject, {"type": "reading", "data": [reading(1), reading(2, "b")]})
    sent = [event for event in events if isinstance(event, TopicRecord)]
    assert subject.topics == ("readings",)
    assert [subject.record_id("readings", event.value) for event in sent] == [event.dedup.record_id for event in sent]
    assert len({event.dedup.record_id for event in sent}) == 2
    others = (b"{", b'{"device": "bomb", "celsius": 1.0, "event_time": 1}', b'{"device": "a"}')
    assert [subject.record_id("readings", value) for value in others] == [None] * 3
    assert subject.record_id("trades", sent[0].value) is None
    assert readings(dedup=[]).record_id("readings", sent[0].value) is None
