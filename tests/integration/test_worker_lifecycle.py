"""Starting, stopping and starting again: what is ready, what is replayed, what is refused."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.processes import Streamapp, Topics, Worker, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

KEYS = [f"S{number}" for number in range(12)]


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> UserApp:
    return UserApp(Topics(kafka), tmp_path)


def fill(app: UserApp, minutes: int = 5) -> None:
    app.send(*(trade(key, START + minute * MINUTE + 7, price=minute + 1) for minute in range(minutes) for key in KEYS))


def answer_of(worker: Worker, path: str) -> tuple[int, Any] | None:
    """Status and document, None while nobody answers."""
    try:
        return worker.ask(path)
    except OSError:
        return None


def test_sigterm_commits_everything_and_a_restart_replays_nothing(app: UserApp) -> None:
    with app.worker() as worker:
        worker.until_ready()
        fill(app)
        until("all merged", lambda: worker.applied == 5 * len(KEYS))
        assert worker.terminate() == 0
        assert app.topics.committed(app.id, app.trades) == app.topics.ends(app.trades)
        assert "Traceback" not in worker.log

        worker.start().until_ready()
        app.send(trade(KEYS[0], START + 9 * MINUTE))
        app.drained(worker)
        assert worker.applied == 1
        assert worker.metric("streamapp_restore_records_total") == 0
        assert [item["value"]["count"] for item in worker.windows("candles", f"x:{KEYS[0]}")] == [1] * 6
        # Ctrl-C is as good
        worker.signal(signal.SIGINT)
        assert worker.wait() == 0


def test_lost_disk_is_restored_from_the_changelog_and_unready_until_then(app: UserApp) -> None:
    with app.worker() as worker:
        worker.until_ready()
        fill(app)
        app.drained(worker)
        before = {key: [item["value"] for item in worker.windows("candles", f"x:{key}")] for key in KEYS}
        worker.kill()
        worker.lose_disk()

        worker.start()
        # the group waits for the dead member first, so the worker cannot be ready yet
        status, document = until("an answer", lambda: answer_of(worker, "/health/ready"))
        assert (status, document["code"]) == (503, "restoring")
        status, document = worker.ask(f"/v1/tables/candles/keys/x:{KEYS[0]}")
        assert (status, document["code"]) == (503, "restoring")
        assert answer_of(worker, "/health/live") == (200, {"status": "live"})

        worker.until_ready()
        after = {key: [item["value"] for item in worker.windows("candles", f"x:{key}")] for key in KEYS}
        assert after == before
        assert worker.metric("streamapp_restore_records_total", table="candles") >= 5 * len(KEYS)
        assert worker.applied == 0


def test_recreated_source_topic_stops_the_worker_and_a_rebuild_mends_it(app: UserApp, tmp_path: Path) -> None:
    with app.worker() as worker:
        worker.until_ready()
        fill(app)
        app.drained(worker)
        assert worker.terminate() == 0
        app.topics.delete(app.trades)
        with app.worker("fresh") as other:  # another disk is no way around it
            assert other.wait() != 0
            assert f"the topic {app.trades} was re-created" in other.log
            assert "streamapp tables rebuild candles" in other.log
        app.send(trade(KEYS[0], price=7))
        worker.start()
        assert worker.wait() != 0
        assert "streamapp tables rebuild candles" in worker.log

        until("the group to be empty", lambda: not app.topics.members(app.id))
        environment = {"STREAMAPP_KAFKA_BROKERS": app.topics.brokers, "STREAMAPP_DATA_DIR": str(worker.data_dir)}
        rebuild = Streamapp(
            "rebuild", tmp_path, "tables", "rebuild", "candles", "--app", app.id, "--yes", env=environment
        )
        with rebuild:
            assert rebuild.wait() == 0, rebuild.log
        worker.start().until_ready()
        app.drained(worker)
        assert worker.keys("candles") == [f"x:{KEYS[0]}"]
        assert worker.get(f"/v1/tables/candles/keys/x:{KEYS[0]}")["value"]["close"] == 7
