"""What a worker does with records that are late, poisonous or from the future."""

import base64
import time
from collections.abc import Iterator

import orjson
import pytest

from streamapp.kafka.topics import TopicSpec
from tests.fakes.processes import Topics, Worker
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LARGEST = 20_000


@pytest.fixture(scope="module")
def running(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[UserApp, Worker]]:
    """One worker for the module's tests; each uses keys of its own, and times that move on."""
    topics = Topics(kafka)
    app = UserApp(topics, tmp_path_factory.mktemp("records"))
    topics.create(TopicSpec(app.trades, 2, config={"max.message.bytes": "2000000"}))
    with app.worker(env={"STREAMAPP_MAX_RECORD_BYTES": str(LARGEST)}) as worker:
        worker.until_ready()
        yield app, worker


def test_poison_becomes_one_dead_letter_each_and_the_partition_goes_on(running: tuple[UserApp, Worker]) -> None:
    app, worker = running
    good = orjson.dumps(trade("POISON"))
    key = b"x:POISON"
    poison: list[tuple[str, bytes | None, bytes | None]] = [
        ("undecodable", key, b'{"venue": "x", '),
        ("undecodable", key, b"\xff\xfe\x00"),
        ("wrong_schema", key, orjson.dumps(trade("POISON", price="5"))),  # type: ignore[arg-type]
        ("wrong_schema", key, orjson.dumps(trade("POISON", price=-1))),
        ("wrong_schema", key, orjson.dumps(trade("POISON", time=-1))),
        ("wrong_schema", key, b"[1, 2]"),
        ("oversized", key, orjson.dumps(trade("POISON", trade_id="9" * LARGEST))),
        ("null_value", key, None),
        ("missing_key", None, good),
        ("undecodable_key", b"\xff\xff", good),
    ]
    begin = app.topics.ends(app.trades)[app.trades, 0]
    records: list[tuple[bytes | None, bytes | None]] = [(key, good)]
    for _, bad_key, bad_value in poison:
        records += [(bad_key, bad_value), (key, good)]
    # all into one partition, which is not the key's: what matters here is what follows what
    app.topics.produce(app.trades, records, partition=0)
    app.drained(worker)

    letters = [letter for letter in app.topics.letters(app.trades) if letter["offset"] >= begin]
    assert [(letter["offset"], letter["reason"]) for letter in sorted(letters, key=lambda found: found["offset"])] == [
        (begin + 1 + 2 * number, reason) for number, (reason, _, _) in enumerate(poison)
    ]
    for letter in letters:
        number = (letter["offset"] - begin - 1) // 2
        value = poison[number][2] or b""
        assert base64.b64decode(letter["value_base64"]) == value[:LARGEST]
        assert (letter["partition"], letter["id"]) == (0, f"{app.trades}-0-{letter['offset']}")
    for reason, count in (("wrong_schema", 4), ("oversized", 1)):
        assert worker.metric("streamapp_dead_letters_total", topic=app.trades, reason=reason) == count
    merged = worker.metric("streamapp_records_applied_total", table="candles")
    assert merged == len(poison) + 1


def test_late_record_is_set_aside_and_the_closed_window_stays(running: tuple[UserApp, Worker]) -> None:
    app, worker = running
    key, begin = "x:LATE", START + 10 * MINUTE
    app.send(
        trade("LATE", begin, price=10),
        trade("LATE", begin + MINUTE + 9_999, price=11),
        trade("LATE", begin + 1, price=12),  # the window is over, its grace is not
        trade("LATE", begin + MINUTE + 10_000, price=13),
    )
    app.drained(worker)
    before = worker.windows("candles", key)
    assert [(item["value"]["count"], item["window"]["final"]) for item in before] == [(2, True), (2, False)]
    counted = worker.metric("streamapp_late_records_total", table="candles")

    app.send(trade("LATE", begin + 2, price=99), trade("LATE", begin + MINUTE + 5, price=14))
    app.drained(worker)
    after = worker.windows("candles", key)
    assert after[0]["value"] == before[0]["value"]
    assert after[1]["value"]["count"] == 3
    assert worker.metric("streamapp_late_records_total", table="candles") == counted + 1
    (late,) = (late for late in app.topics.values(f"{app.id}-candles-late") if late["key"] == key)
    assert late["missed_windows"] == [begin]
    assert late["event_time"] == begin + 2
    assert late["record"]["price"] == 99
    finals = [final for final in app.topics.values(f"{app.id}-candles-final") if final["key"] == key]
    assert [final["value"] for final in finals] == [before[0]["value"]]


def test_far_future_timestamp_closes_no_window(running: tuple[UserApp, Worker]) -> None:
    app, worker = running
    key, begin = "x:FUTURE", START + 20 * MINUTE
    tomorrow = int(time.time() * 1000) + 86_400_000
    app.send(trade("FUTURE", begin), trade("FUTURE", tomorrow), trade("FUTURE", begin + 1))
    app.drained(worker)
    (window,) = worker.windows("candles", key)
    assert (window["value"]["count"], window["window"]["final"]) == (2, False)
    (letter,) = (found for found in app.topics.letters(app.trades) if found["reason"] == "future_event_time")
    assert orjson.loads(base64.b64decode(letter["value_base64"]))["event_time"] == tomorrow
