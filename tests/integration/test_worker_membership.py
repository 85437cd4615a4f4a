"""Who is in the group: a worker that comes back at once, one that leaves, two that claim to be the same."""

import signal
import time
from pathlib import Path

import pytest

from tests.fakes.processes import Topics, Worker, started, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [f"S{number}" for number in range(12)]
#: far beyond what anything here takes, so that whatever had to wait for it fails
LONG_SESSION = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "45000"}
REVOKING = "Revoking previously assigned partitions"
#: less than the session, with room for a loaded machine
SOON_S = 30.0


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> UserApp:
    return UserApp(Topics(kafka), tmp_path)


def seconds_until_ready(worker: Worker) -> float:
    begin = time.monotonic()
    worker.start().until_ready()
    return time.monotonic() - begin


def _until_revoking(worker: Worker, before: int) -> None:
    until("the revocation", lambda: worker.log.count(REVOKING) > before, hint=lambda: worker.last_words)


def test_killed_worker_is_back_before_its_session_ends(app: UserApp) -> None:
    with app.worker(env=LONG_SESSION) as worker:
        worker.until_ready()
        app.send(*(trade(key, START + minute * MINUTE) for minute in range(3) for key in KEYS))
        app.drained(worker)
        worker.kill()
        assert seconds_until_ready(worker) < SOON_S
        assert worker.log.count("(generation 1)") == 2, "the same member of the same generation: nobody else notices"
        app.send(*(trade(key, START + 3 * MINUTE) for key in KEYS))
        app.drained(worker)
        for key in KEYS:
            assert [item["value"]["count"] for item in worker.windows("candles", f"x:{key}")] == [1] * 4


def test_stopped_worker_leaves_and_the_other_takes_over_at_once(app: UserApp) -> None:
    first, second = app.worker("first", env=LONG_SESSION), app.worker("second", env=LONG_SESSION)
    with started(first, second):
        first.until_ready()
        partitions = list(range(app.topics.partitions(app.trades)))
        until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
        begin = time.monotonic()
        assert second.terminate() == 0
        until(
            "the first to have all", lambda: first.assigned(app.trades) == partitions, SOON_S, lambda: first.last_words
        )
        first.until_ready()
        assert time.monotonic() - begin < SOON_S
        assert app.topics.members(app.id) == 1
        assert first.terminate() == 0
        assert app.topics.members(app.id) == 0


def test_stop_in_the_middle_of_a_rebalance_ends_as_any_other(app: UserApp) -> None:
    first, second = app.worker("first", env=LONG_SESSION), app.worker("second", env=LONG_SESSION)
    with started(first, second):
        first.until_ready()
        second.until_ready()
        stays, leaves = first, second
        for stops in range(1, 4):
            app.send(*(trade(key) for key in KEYS))
            until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
            assert stays.terminate() == 0, stays.last_words
            leaves.until_ready()
            before = leaves.log.count(REVOKING)
            stays.start()  # its coming makes the other revoke, join and get its assignment, which now falls into its stop
            _until_revoking(leaves, before)
            begin = time.monotonic()
            assert leaves.terminate() == 0, leaves.last_words
            assert leaves.log.count("left the group") == stops, "what it does not leave waits for its session to end"
            stays.until_ready()
            assert time.monotonic() - begin < SOON_S
            leaves.start().until_ready()
            stays, leaves = leaves, stays
        until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
        app.drained(first)
        for key in KEYS:
            assert [item["value"]["count"] for item in first.windows("candles", f"x:{key}")] == [3]


def test_second_worker_of_one_identity_takes_it_and_the_first_stops(app: UserApp) -> None:
    env = {**LONG_SESSION, "STREAMAPP_GROUP_INSTANCE_ID": f"{app.id}-same"}
    first, second = app.worker("first", env=env), app.worker("second", env=env)
    with started(first):
        first.until_ready()
        # under one identity the second is taken for the first come back, at another place
        with started(second):
            assert first.wait(SOON_S) != 0
            assert "another worker has joined the group" in first.log
            second.until_ready()
            app.send(*(trade(key) for key in KEYS))
            app.drained(second)
            assert app.topics.members(app.id) == 1
            assert second.log.count("Joined group") <= 2, "it keeps its place"


def test_worker_that_was_stopped_past_its_session_answers_nothing_old_and_comes_back(app: UserApp) -> None:
    """The broker forgets a worker that stands still; the other counts on, and what the first wakes up with is worthless."""
    first, second = app.worker("first"), app.worker("second")  # a session of 6 s
    path = f"/v1/tables/candles/keys/x:{KEYS[0]}"
    with started(first, second):
        first.until_ready()
        partitions = list(range(app.topics.partitions(app.trades)))
        until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
        first.until_ready()
        second.until_ready()
        app.send(*(trade(key) for key in KEYS))
        app.drained(first)
        # records that it has merged and not yet made durable are the ones that a late checkpoint would spoil
        first.signal(signal.SIGSTOP)
        try:
            app.send(*(trade(key, START + 1) for key in KEYS))
            until(
                "the other to have all",
                lambda: second.assigned(app.trades) == partitions,
                hint=lambda: second.last_words,
            )
            app.drained(second)
            counts = {key: second.get(f"/v1/tables/candles/keys/x:{key}")["value"]["count"] for key in KEYS}
            assert counts == dict.fromkeys(KEYS, 2)
        finally:
            first.signal(signal.SIGCONT)
        seen = []

        def answered() -> bool:
            try:
                status, document = first.ask(path)
            except OSError:
                return False
            seen.append((status, document.get("code"), document.get("value", {}).get("count")))
            return status == 200

        until("the first to answer again", answered, hint=lambda: first.last_words)
        assert all(status == 503 or count == 2 for status, _, count in seen), seen
        # the first may still tell of what it had before; the second has to have let go of its half
        until(
            "both to have a share again",
            lambda: first.assigned(app.trades) and 0 < len(second.assigned(app.trades)) < len(partitions),
        )
        first.until_ready()
        second.until_ready()
        app.send(*(trade(key, START + 2) for key in KEYS))
        app.drained(second)
        for worker in (first, second):
            assert {key: worker.get(f"/v1/tables/candles/keys/x:{key}")["value"]["count"] for key in KEYS} == counts | {
                key: 3 for key in KEYS
            }
        assert first.running
