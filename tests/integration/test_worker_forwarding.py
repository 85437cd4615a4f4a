"""Re-keyed tables: added to a group which has been running without them, and with fewer keys than partitions."""

import asyncio
import random
import signal
from pathlib import Path

import orjson
import pytest

from streamapp.engine.forwarding import decode
from streamapp.kafka.partitioner import partition_for
from streamapp.kafka.topics import TopicSpec
from tests.fakes.processes import Topics, Worker, until
from tests.fakes.user_apps import START, UserApp

RECORDS = 6_000
#: what cannot be compressed makes records large, so that a fetch brings some of them only; and the queue holds no more than
#: some, however long the worker takes to begin with the first chunk
PADDING_BYTES = 1_000
QUEUE_MAX_RECORDS = 1_000
#: behind the first chunk, which is acknowledged by then, and before the last is sent
CRASH_AT = 4_000

MEASURED = """
from datetime import timedelta

from pydantic import BaseModel
from streamapp import Count, StreamApp, tumbling


class Measured(BaseModel):
    place: str
    at: int


app = StreamApp(APP)
measured = app.topic(TRADES, value_type=Measured)
"""

WITHOUT = (
    MEASURED
    + """
app.latest_table("all", source=measured, time="at", aggregate=Count())
"""
)

WITH = (
    WITHOUT
    + """
import os
import signal

calls = 0


def place_of(record):
    global calls
    calls += 1
    if calls == int(os.environ.get("CRASH_AT", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return record.place


app.latest_table("by_place", source=measured, time="at", key=place_of, aggregate=Count())
"""
)

WINDOWED = (
    MEASURED
    + """
second = tumbling(timedelta(seconds=1))
app.window_table("by_place", source=measured, window=second, time="at", key="place", aggregate=Count())
"""
)


def _counts(worker: Worker) -> dict[str, int]:
    keys = worker.keys("by_place")
    return {key: worker.get(f"/v1/tables/by_place/keys/{key}")["value"]["count"] for key in keys}


def _told(app: UserApp, source: tuple[str, int]) -> int:
    """How far the group's commit says that the table has come."""
    commit = asyncio.run(app.topics.admin.commits(app.id, [source]))[source]
    assert commit is not None
    named = decode(commit.metadata).get("by_place")
    return named.next_offset if named is not None else 0


@pytest.mark.timeout(400)
def test_new_rekeyed_table_counts_all_though_its_first_forwarding_was_killed(kafka: str, tmp_path: Path) -> None:
    app, draw = UserApp(Topics(kafka), tmp_path, WITHOUT), random.Random(5)
    app.topics.create(TopicSpec(app.trades, 1))
    with app.worker() as before:
        before.until_ready()
        app.topics.produce(
            app.trades,
            [
                (
                    f"k{n % 5}",
                    orjson.dumps({"place": f"p{n % 7}", "at": START + n, "note": draw.randbytes(PADDING_BYTES).hex()}),
                )
                for n in range(RECORDS)
            ],
        )
        app.drained(before)
        before.terminate()
    (tmp_path / f"{app.module}.py").write_text(f"APP, TRADES = {app.id!r}, {app.trades!r}\n{WITH}", encoding="utf-8")
    source, rekeyed = (app.trades, 0), (f"{app.id}-by_place-rekey", 0)
    with app.worker(
        env={"CRASH_AT": str(CRASH_AT), "STREAMAPP_BATCH_QUEUE_MAX_RECORDS": str(QUEUE_MAX_RECORDS)}
    ) as killed:
        assert killed.wait() == -signal.SIGKILL, killed.last_words
    assert app.topics.committed(app.id, app.trades) == {source: RECORDS}, "the group is past what was not forwarded"
    assert 0 < app.topics.ends(rekeyed[0])[rekeyed] < RECORDS, "so that some is forwarded and some is not"
    with app.worker() as worker:
        worker.until_ready()
        wanted = {f"p{place}": len(range(place, RECORDS, 7)) for place in range(7)}
        until(
            "all is counted", lambda: _counts(worker) == wanted, hint=lambda: f"{_counts(worker)} {worker.last_words}"
        )
        until("a commit tells it", lambda: _told(app, source) == RECORDS, hint=lambda: worker.last_words)
        ended = app.topics.count(rekeyed[0])
        worker.kill()
        worker.start().until_ready()
        until("all is counted", lambda: _counts(worker) == wanted, hint=lambda: worker.last_words)
        assert app.topics.count(rekeyed[0]) == ended, "what is told to be forwarded is not forwarded again"


@pytest.mark.timeout(400)
def test_windows_of_a_single_key_close_when_every_source_partition_has_passed_or_is_silent(
    kafka: str, tmp_path: Path
) -> None:
    app = UserApp(Topics(kafka), tmp_path, WINDOWED)
    app.topics.create(TopicSpec(app.trades, 4))

    def produce(partition: int, place: str, at_ms: int) -> None:
        value = orjson.dumps({"place": place, "at": START + at_ms})
        app.topics.produce(app.trades, [("any", value)], partition)

    def finals() -> dict[int, int]:
        found = app.topics.values(f"{app.id}-by_place-final")
        return {final["window_start"] - START: final["value"]["count"] for final in found if final["key"] == "one"}

    with app.worker(env={"STREAMAPP_REKEY_MARKER_INTERVAL_MS": "100"}) as worker:
        worker.until_ready()
        for partition in range(3):
            produce(partition, "one", 100 * partition)
        others = [f"other-{n}" for n in range(100)]
        elsewhere = next(key for key in others if partition_for(key.encode(), 4) != partition_for(b"one", 4))
        for partition in range(3):
            produce(partition, elsewhere, 5_000)
        app.drained(worker)
        assert finals() == {}, "the fourth partition has not said anything yet"
        produce(3, elsewhere, 999)
        produce(3, "one", 900)
        app.drained(worker)
        assert finals() == {}, "it has not passed the window's end"
        produce(3, elsewhere, 1_000)
        until("the window's final record", lambda: finals() == {0: 4}, hint=lambda: worker.last_words)
        produce(0, "one", 500)  # late, by what its own partition has sent under other keys
        until(
            "the late record",
            lambda: [late["event_time"] for late in app.topics.values(f"{app.id}-by_place-late")] == [START + 500],
            hint=lambda: worker.last_words,
        )
        produce(1, "one", 7_000)
        app.drained(worker)
        assert finals() == {0: 4}
        worker.terminate()
    with app.worker(env={"STREAMAPP_REKEY_MARKER_INTERVAL_MS": "100", "STREAMAPP_IDLE_TIMEOUT_MS": "500"}) as worker:
        worker.until_ready()
        until("silence to close the rest", lambda: finals() == {0: 4, 7_000: 1}, hint=lambda: worker.last_words)
        assert worker.metric("streamapp_rekey_markers_total", table="by_place") > 0


@pytest.mark.timeout(400)
def test_what_a_worker_that_sleeps_has_not_forwarded_makes_the_values_of_others_stale(
    kafka: str, tmp_path: Path
) -> None:
    app = UserApp(Topics(kafka), tmp_path, WITH)
    app.topics.create(TopicSpec(app.trades, 2))
    patient = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "60000"}
    places = [f"p{n}" for n in range(20)]

    def produce(partition: int) -> None:
        app.topics.produce(
            app.trades, [("any", orjson.dumps({"place": place, "at": START})) for place in places], partition
        )

    with app.worker("one", env=patient) as one, app.worker("two", env=patient) as two:
        app.until_shared(one, two)
        for partition in range(2):
            produce(partition)
        app.drained(one)
        mine = one.assigned(app.trades)[0]
        here = next(place for place in places if partition_for(place.encode(), 2) == mine)
        path = f"/v1/tables/by_place/keys/{here}"
        fresh = one.until_value(
            path,
            lambda found: (
                found["value"]["count"] == 2
                and found["freshness"]["lag"] == 0
                and found["freshness"]["staleness_ms"] < 10_000
            ),
        )
        two.signal(signal.SIGSTOP)
        try:
            produce(1 - mine)
            stale = one.until_value(
                path,
                lambda found: found["freshness"]["lag"] == len(places) and found["freshness"]["staleness_ms"] > 12_000,
            )
            assert stale["value"] == fresh["value"]
            status, body = one.ask(path, max_staleness_ms=10_000)
            assert (status, body["code"]) == (409, "stale")
        finally:
            two.signal(signal.SIGCONT)
        one.until_value(
            path,
            lambda found: (
                found["value"]["count"] == 3
                and found["freshness"]["lag"] == 0
                and found["freshness"]["staleness_ms"] < 10_000
            ),
        )
