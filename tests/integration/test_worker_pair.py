"""Two workers share a table; either answers for all of it."""

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.processes import Topics, Worker, started, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [f"S{number}" for number in range(16)]
FORWARDED = "streamapp_forwarded_reads_total"


def key_counts(worker: Worker) -> dict[str, int | None]:
    """How many keys each table has, as a worker tells it."""
    return {table["name"]: table["keys"] for table in worker.get("/v1/tables")["tables"]}


def test_either_worker_answers_for_all_keys_and_one_is_enough(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path)
    first, second = app.worker("first"), app.worker("second")
    with started(first, second):
        first.until_ready()
        second.until_ready()
        partitions = list(range(app.topics.partitions(app.trades)))
        app.until_shared(first, second)
        app.send(*(trade(key, START + m * MINUTE, price=n + m) for m in range(3) for n, key in enumerate(KEYS, 1)))
        app.drained(first)

        keys = sorted(f"x:{key}" for key in KEYS)
        owners = {}
        for key in keys:
            path = f"/v1/tables/candles/keys/{key}"
            before = [worker.metric(FORWARDED) for worker in (first, second)]
            answers = [worker.get(path) for worker in (first, second)]
            after = [worker.metric(FORWARDED) for worker in (first, second)]
            assert answers[0]["value"] == answers[1]["value"]
            hops = [now - then for now, then in zip(after, before, strict=True)]
            assert sorted(hops) == [0, 1], f"{key}: one of the two asks the other, once: {hops}"
            owner = owners[key] = first if hops[0] == 0 else second
            assert answers[0]["freshness"]["partition"] in owner.assigned(app.trades)
        assert set(owners.values()) == {first, second}
        for worker in (first, second):
            assert worker.keys("candles") == keys
            assert key_counts(worker)["candles"] == worker.get("/v1/tables/candles")["keys"] == len(keys)
            top = worker.get("/v1/tables/candles/top", by="close", limit=5)
            assert [item["key"] for item in top["items"]] == [f"x:{key}" for key in KEYS[::-1][:5]]
            assert top["missing_partitions"] == []
            several = worker.get("/v1/tables/candles/values?keys=" + ",".join(keys))
            assert [item["key"] for item in several["items"]] == keys
            starts = {
                key: [item["window"]["start"] for item in worker.windows("candles", key, limit=2)] for key in keys
            }
            assert starts == {key: [START, START + MINUTE, START + 2 * MINUTE] for key in keys}
            status, document = worker.ask("/v1/tables/candles/keys/x:NOBODY")
            assert (status, document["code"]) == (404, "unknown_key")

        assert second.terminate() == 0
        until("the other to take over", lambda: first.assigned(app.trades) == partitions, hint=lambda: first.last_words)
        first.until_ready()
        before_reads = first.metric(FORWARDED)
        assert first.keys("candles") == keys
        assert key_counts(first)["candles"] == len(keys)
        assert [first.get(f"/v1/tables/candles/keys/x:{key}")["value"]["close"] for key in KEYS] == [
            number + 2 for number in range(1, len(KEYS) + 1)
        ]
        assert first.metric(FORWARDED) == before_reads
        assert all(item["value"]["count"] == 1 for key in keys for item in first.windows("candles", key))


def events(worker: Worker, path: str, enough: Callable[[list[dict[str, Any]]], bool], send: Callable[[], None]) -> Any:
    """The events of a stream, `kind` and `data`, until there are enough; `send` is called after the first of them."""
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=60)
    found: list[dict[str, Any]] = []
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        kind = ""
        while not enough(found):
            line = response.readline().decode().strip()
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append({"kind": kind, "data": json.loads(line.removeprefix("data: "))})
                if len(found) == 1:
                    send()
    finally:
        connection.close()
    return found


def test_changes_and_gathers_cover_both_workers_and_name_what_a_dead_one_had(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path)
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "30000"}  # the dead one stays the owner while it is asked for
    first, second = app.worker("first", env), app.worker("second", env)
    with started(first, second):
        first.until_ready()
        second.until_ready()
        until(
            "both to have a share",
            lambda: first.assigned(app.trades) and second.assigned(app.trades),
            hint=lambda: first.last_words + second.log[-2_000:],
        )
        for worker in (first, second):
            worker.until_ready()
        app.send(*(trade(key, START) for key in KEYS))
        app.drained(first)
        keys = {f"x:{key}" for key in KEYS}
        by_owner = {
            worker: [
                key
                for key in sorted(keys)
                if first.get(f"/v1/tables/candles/keys/{key}")["freshness"]["partition"] in worker.assigned(app.trades)
            ]
            for worker in (first, second)
        }
        theirs = by_owner[second][0]

        # one key of the other worker
        seen = events(
            first,
            f"/v1/tables/candles/changes?key={theirs}",
            lambda found: any(one["kind"] == "change" and one["data"]["value"]["close"] == 7 for one in found),
            lambda: app.send(trade(theirs[2:], START + 5, price=7.0)),
        )
        assert seen[0]["kind"] == "snapshot"
        assert {one["data"]["key"] for one in seen} == {theirs}

        # all keys, from either worker
        for number, worker in enumerate((first, second)):
            price = 20.0 + number

            def all_changed(found: list[dict[str, Any]], price: float = price) -> bool:
                return {one["data"]["key"] for one in found if one["data"]["value"]["close"] == price} == keys

            seen = events(
                worker,
                "/v1/tables/candles/changes",
                all_changed,
                lambda number=number, price=price: app.send(  # type: ignore[misc]
                    *(trade(key, START + 10 + number, price=price) for key in KEYS)
                ),
            )
            assert {one["data"]["key"] for one in seen if one["kind"] == "snapshot"} == keys

        lost = second.assigned(app.trades)
        second.kill()
        status, document = first.ask(f"/v1/tables/candles/keys/{theirs}")
        assert (status, document["code"]) == (503, "owner_unreachable")
        status, document = first.ask("/v1/tables/candles/changes", key=theirs)
        assert (status, document["code"]) == (503, "owner_unreachable")
        for path, parameters in (("top", {"by": "close"}), ("keys", {})):
            page = first.get(f"/v1/tables/candles/{path}", **parameters)
            assert page["missing_partitions"] == lost
            found = {item if isinstance(item, str) else item["key"] for item in page["items"]}
            assert found <= set(by_owner[first])
            assert found
        assert set(key_counts(first).values()) == {None}, "a part of the keys is no number of keys"
        several = first.get(f"/v1/tables/candles/values?keys={by_owner[first][0]},{theirs}")
        assert [item.get("error", {}).get("code") for item in several["items"]] == [None, "owner_unreachable"]
