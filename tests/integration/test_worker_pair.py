"""Two workers share a table; either answers for all of it."""

from pathlib import Path

import pytest

from tests.fakes.processes import Topics, Worker, started, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [f"S{number}" for number in range(16)]
FORWARDED = "streamapp_forwarded_reads_total"


def assigned(worker: Worker, topic: str) -> list[int]:
    document = worker.try_get("/v1/status")
    return document["worker"]["assigned"].get(topic, []) if document else []


def test_either_worker_answers_for_all_keys_and_one_is_enough(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path)
    first, second = app.worker("first"), app.worker("second")
    with started(first, second):
        first.until_ready()
        second.until_ready()
        partitions = list(range(app.topics.partitions(app.trades)))
        until(
            "both to have a share",
            lambda: (
                assigned(first, app.trades)
                and assigned(second, app.trades)
                and sorted(assigned(first, app.trades) + assigned(second, app.trades)) == partitions
            ),
            hint=first.log[-2_000:] + second.log[-2_000:],
        )
        first.until_ready()
        second.until_ready()
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
            assert answers[0]["freshness"]["partition"] in assigned(owner, app.trades)
        assert set(owners.values()) == {first, second}
        for worker in (first, second):
            assert worker.keys("candles") == keys
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
        until("the other to take over", lambda: assigned(first, app.trades) == partitions, hint=first.log[-2_000:])
        first.until_ready()
        before_reads = first.metric(FORWARDED)
        assert first.keys("candles") == keys
        assert [first.get(f"/v1/tables/candles/keys/x:{key}")["value"]["close"] for key in KEYS] == [
            number + 2 for number in range(1, len(KEYS) + 1)
        ]
        assert first.metric(FORWARDED) == before_reads
        assert all(item["value"]["count"] == 1 for key in keys for item in first.windows("candles", key))
