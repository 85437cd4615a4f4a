"""Copies of partitions that others own: they answer while the owner is gone, and make its successor quick."""

from pathlib import Path

import pytest

from tests.fakes.processes import Topics, started, until
from tests.fakes.user_apps import START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [f"S{number}" for number in range(16)]
ENV = {"STREAMAPP_STANDBY_REPLICAS": "1", "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "20000"}


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> UserApp:
    return UserApp(Topics(kafka), tmp_path)


def path_of(key: str) -> str:
    return f"/v1/tables/candles/keys/x:{key}"


def test_copy_answers_for_a_dead_owner_marked_stale_and_takes_over_without_restoring(app: UserApp) -> None:
    first, second = app.worker("first", env=ENV), app.worker("second", env=ENV)
    with started(first, second):
        first.until_ready()
        partitions = list(range(app.topics.partitions(app.trades)))
        until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
        first.until_ready()
        second.until_ready()
        app.send(*(trade(key) for key in KEYS), *(trade(key, START + 1) for key in KEYS))
        app.drained(first)
        of_first = [
            key for key in KEYS if first.get(path_of(key))["freshness"]["partition"] in first.assigned(app.trades)
        ]
        assert of_first
        assert all("stale" not in worker.get(path_of(key))["freshness"] for worker in (first, second) for key in KEYS)
        # what the copy holds is what was durable
        offsets = {key: first.get(path_of(key))["freshness"]["offset"] for key in of_first}
        restored_before = second.metric("streamapp_restore_records_total")
        first.kill()

        def complete() -> bool:
            answers = [second.try_get(path_of(key)) for key in of_first]
            return all(answer is not None and answer["value"]["count"] == 2 for answer in answers)

        until("the copies to answer", complete, hint=lambda: second.last_words)
        answer = second.get(path_of(of_first[0]))
        if second.assigned(app.trades) != partitions:
            assert answer["freshness"].get("stale") is True
            assert answer["freshness"]["lag"] is None
        until(
            "the second to have all", lambda: second.assigned(app.trades) == partitions, hint=lambda: second.last_words
        )
        second.until_ready()
        for key in KEYS:
            answer = second.get(path_of(key))
            assert (answer["value"]["count"], "stale" in answer["freshness"]) == (2, False)
        assert all(second.get(path_of(key))["freshness"]["offset"] == offset for key, offset in offsets.items())
        app.send(*(trade(key, START + 2) for key in KEYS))
        app.drained(second)
        assert {second.get(path_of(key))["value"]["count"] for key in KEYS} == {3}
        assert second.metric("streamapp_restore_records_total") - restored_before <= len(of_first), "next to nothing"

        # the dead one comes back and becomes a copy, or an owner again, of what it had
        first.start().until_ready()
        until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
        first.until_ready()
        second.until_ready()
        assert {worker.get(path_of(key))["value"]["count"] for worker in (first, second) for key in KEYS} == {3}
