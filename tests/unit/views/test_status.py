from streamapp.clock import ManualClock
from streamapp.queries.model import FeedInfo, WorkerInfo
from streamapp.views.status import Throughput
from tests.fakes.queries import FakeQueries
from tests.unit.views.conftest import CheckedClient, MakeClient


async def test_live_says_so_even_while_restoring(client: CheckedClient, queries: FakeQueries) -> None:
    queries.worker_info = WorkerInfo(False, ["latest-0"], {}, {}, 0)
    assert (await client.get("/health/live"))[:2] == (200, {"status": "live"})


async def test_ready_refuses_while_restoring_and_says_what(client: CheckedClient, queries: FakeQueries) -> None:
    assert (await client.get("/health/ready"))[:2] == (200, {"status": "ready"})
    queries.worker_info = WorkerInfo(
        False, [f"latest-{number}" for number in range(25)], {}, {}, 0, "waiting for Kafka"
    )
    status, body, headers = await client.get("/health/ready")
    assert (status, body["code"], headers["Retry-After"]) == (503, "restoring", "1")
    assert "waiting for Kafka" in body["detail"]
    assert "latest-19 and 5 more" in body["detail"]


async def test_a_further_condition_can_withhold_readiness(make_client: MakeClient) -> None:
    reasons = ["the disk is full"]
    client = await make_client(health=lambda: reasons[0] if reasons else None)
    status, body, _ = await client.get("/health/ready")
    assert (status, body["detail"]) == (503, "the disk is full")
    reasons.clear()
    assert (await client.get("/health/ready"))[0] == 200


async def test_status_shows_feeds_lag_and_throughput(
    client: CheckedClient, queries: FakeQueries, clock: ManualClock
) -> None:
    queries.feed_infos = [FeedInfo("coinbase", False, "disconnected", "closed by peer", 17, 3, {"BTC-USD": 3})]
    queries.worker_info = WorkerInfo(True, (), {"trades": [0, 1]}, {"trades": 4}, 1_000)
    _, body, _ = await client.get("/v1/status")
    assert body["worker"]["records_per_s"] is None
    assert body["feeds"][0]["detail"] == "closed by peer"
    clock.advance(2_000)
    queries.worker_info = WorkerInfo(True, (), {"trades": [0, 1]}, {"trades": 4}, 6_000)
    _, body, _ = await client.get("/v1/status")
    assert body["worker"]["records_per_s"] == 2_500
    assert body["worker"]["lag"] == {"trades": 4}


def test_throughput_forgets_what_is_long_past_and_survives_a_restart() -> None:
    clock = ManualClock()
    throughput = Throughput(clock, window_ms=1_000)
    count = 0
    for _ in range(50):
        clock.advance(100)
        count += 100
        throughput.rate(count)
    for _ in range(30):
        clock.advance(100)
        rate = throughput.rate(count)
    assert rate == 0
    assert len(throughput._samples) < 20
    clock.advance(100)
    assert throughput.rate(5) is None


async def test_metrics_speak_both_text_formats(client: CheckedClient) -> None:
    _, text, headers = await client.get("/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    assert "# HELP streamapp_requests_total" in text
    async with client.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    ) as response:
        assert (await response.text()).endswith("# EOF\n")
