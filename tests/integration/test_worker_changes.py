"""Streams of changes of real workers: filtered, and resumed after a kill -9, on the same worker and on another one."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest

from streamapp.queries.positions import decode
from tests.fakes.ports import HOST
from tests.fakes.processes import Topics, Worker, started, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [f"S{number}" for number in range(16)]
Place = tuple[str, int]


class Stream:
    """A stream of changes, read by a thread as a browser reads it.

    Attributes:
        has: the newest value that was told of each key and window.
        kinds: of the events, in order.
        resumed: what snapshots said of why they were sent.
        last_id: what a browser would come back with.
    """

    def __init__(self, worker: Worker, *, last_id: str = "", after: Self | None = None, **filters: str) -> None:
        # what an earlier stream had is there before the first event comes: laid over it later, it would hide newer values
        self.has: dict[Place, Any] = dict(after.has) if after else {}
        last_id = after.last_id if after else last_id
        self.kinds: list[str] = []
        self.resumed: set[str] = set()
        self.last_id = last_id
        self._http = http.client.HTTPConnection(HOST, worker.port, timeout=60)
        query = "?" + urlencode(filters) if filters else ""
        self._http.request(
            "GET", f"/v1/tables/candles/changes{query}", headers={"Last-Event-ID": last_id} if last_id else {}
        )
        self._answer = self._http.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _read(self) -> None:
        kind, identity = "", self.last_id
        try:
            for raw in self._answer:
                name, _, value = raw.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    identity = value
                elif name == "data" and kind in ("snapshot", "change"):
                    body = json.loads(value)
                    self.has[body["key"], body["window"]["start"]] = body["value"]
                    self.kinds.append(kind)
                    self.resumed |= {body["resumed"]} if "resumed" in body else set()
                elif not raw.strip():
                    self.last_id = identity
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass  # the worker was killed, or the test closed it


def standing(worker: Worker) -> dict[Place, Any]:
    """Every window of every key, by reading."""
    return {
        (f"x:{key}", item["window"]["start"]): item["value"]
        for key in KEYS
        for item in worker.windows("candles", f"x:{key}")
    }


def differing(stream: Stream, expected: dict[Place, Any]) -> dict[Place, Any]:
    """What the stream has otherwise than expected: (has, expected) of each place."""
    return {
        place: (stream.has.get(place), expected.get(place))
        for place in stream.has.keys() | expected.keys()
        if stream.has.get(place) != expected.get(place)
    }


def is_settled(identity: str, partitions: int) -> bool:
    """Whether an id is of all partitions, and all that it says was told had been durable."""
    told = decode(identity)
    return told is not None and len(told) == partitions and all(one.applied == one.durable for one in told.values())


def send(app: UserApp, worker: Worker, minute: int, keys: list[str] = KEYS) -> None:
    app.send(*(trade(key, START + minute * MINUTE, price=float(minute + 1)) for key in keys))
    app.drained(worker)


def test_client_goes_on_after_kill_9_and_misses_nothing(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path)
    with app.worker(env={"STREAMAPP_SSE_HEARTBEAT_MS": "200"}) as worker:
        worker.until_ready()
        send(app, worker, 0)
        with Stream(worker) as before:
            until("the snapshots", lambda: len(before.has) == len(KEYS))
            send(app, worker, 1)
            until("the changes", lambda: len(before.has) == 2 * len(KEYS), hint=lambda: f"{before.kinds}")
            # what is told and not durable yet is told again, with what it has become
            app.send(*(trade(key, START + MINUTE + 1, price=7.0) for key in KEYS[:4]))
            until("the latest ones", lambda: sum(value["close"] == 7.0 for value in before.has.values()) == 4)
            worker.kill()
        assert before.last_id
        app.send(*(trade(key, START + MINUTE + 2, price=9.0) for key in KEYS[:3]))
        app.send(trade(KEYS[0], START + 2 * MINUTE, price=11.0))
        worker.start().until_ready()
        app.drained(worker)
        expected = standing(worker)

        with Stream(worker, after=before) as after:
            until(
                "what has changed",
                lambda: after.has == expected,
                hint=lambda: f"{after.kinds} {after.resumed} {differing(after, expected)}",
            )
            assert set(after.kinds) == {"change"}, "a client that says where it was needs no snapshot"
            assert len(after.kinds) <= len(KEYS) + 1, "what was durable when it was told is not told again"
        with Stream(worker, last_id=before.last_id, key=f"x:{KEYS[0]}") as narrow:
            until("its own", lambda: len(narrow.has) == 2)
            assert narrow.has == {
                place: value for place, value in expected.items() if place[0] == f"x:{KEYS[0]}" and place[1] > START
            }
        with Stream(worker, last_id="AAAA" + before.last_id[4:]) as lost:
            until("the snapshots", lambda: len(lost.kinds) == len(KEYS))
            assert (set(lost.kinds), lost.resumed) == ({"snapshot"}, {"unknown_id"})
        with Stream(worker, prefix="x:S1", condition="close > 8 and count >= 1") as few:
            send(app, worker, 3, ["S1", "S2", "S12"])
            app.send(trade("S1", START + 3 * MINUTE + 5, price=50.0), trade("S2", START + 3 * MINUTE + 5, price=50.0))
            app.drained(worker)
            wanted = ("x:S1", START + 3 * MINUTE)
            until("the one that meets it", lambda: few.has.get(wanted, {}).get("close") == 50.0)
            assert {key for key, _ in few.has} == {"x:S1"}
            assert all(value["close"] > 8 for value in few.has.values())


def test_client_goes_on_at_another_worker_after_its_own_was_killed(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path)
    env = {"STREAMAPP_SSE_HEARTBEAT_MS": "200"}
    first, second = app.worker("first", env=env), app.worker("second", env=env)
    with started(first, second):
        first.until_ready()
        partitions = list(range(app.topics.partitions(app.trades)))
        until("both to have a share", lambda: first.assigned(app.trades) and second.assigned(app.trades))
        first.until_ready()
        second.until_ready()
        send(app, first, 0)
        with Stream(first) as before:
            until("the snapshots", lambda: len(before.has) == len(KEYS))
            send(app, first, 1)
            until("the changes", lambda: len(before.has) == 2 * len(KEYS), hint=lambda: f"{before.kinds}")
            until(
                "an id that says that all of it is durable",
                lambda: is_settled(before.last_id, len(partitions)),
                hint=lambda: f"{decode(before.last_id)}",
            )
            first.kill()
        send(app, second, 2, KEYS[:2])
        until(
            "the second to have all", lambda: second.assigned(app.trades) == partitions, hint=lambda: second.last_words
        )
        second.until_ready()
        app.drained(second)
        expected = standing(second)
        with Stream(second, after=before) as after:
            until(
                "what has changed",
                lambda: after.has == expected,
                hint=lambda: f"{after.kinds} {after.resumed} {differing(after, expected)}",
            )
            assert set(after.kinds) == {"change"}, f"{after.resumed}"
            assert len(after.kinds) <= len(KEYS) + 2
