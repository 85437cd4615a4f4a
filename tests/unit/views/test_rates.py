"""Limits of requests and of values read, over HTTP."""

from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import ConfigurationError
from streamapp.metrics import Metrics
from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.settings import Settings
from streamapp.views.application import application
from streamapp.views.auth import new_token
from tests.fakes.queries import FakeQueries
from tests.unit.views.conftest import BTC, MakeClient
from tests.unit.views.test_point_reads import Server, get

KEY = f"/v1/tables/candles_1m/keys/{BTC}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_one_caller_too_many_waits_as_told_and_others_go_on(
    make_client: MakeClient, clock: ManualClock, metrics: Metrics
) -> None:
    busy, busy_entry = new_token("busy", ["read"])
    other, other_entry = new_token("other", ["read"])
    client = await make_client(api_tokens=f"{busy_entry},{other_entry}", limit_requests_per_s=2, limit_burst=3)
    for method, path in (("GET", KEY), ("HEAD", "/v1/tables"), ("GET", "/v1/tables/nothing")):
        assert (await client.client.request(method, path, headers=bearer(busy))).status != 429
    status, body, headers = await client.get(KEY, headers=bearer(busy))
    assert (status, body["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
    assert (await client.get(KEY, headers=bearer(other)))[0] == 200
    clock.advance(1_000 * int(headers["Retry-After"]))
    assert (await client.get(KEY, headers=bearer(busy)))[0] == 200
    assert metrics.refused_calls.labels("busy", "requests")._value.get() == 1


async def test_quick_way_counts_a_request_once_and_refuses_alike(queries: FakeQueries, clock: ManualClock) -> None:
    token, entry = new_token("busy", ["read"])
    settings = Settings(api_tokens=entry, limit_requests_per_s=1, limit_burst=4)
    server = Server(application(queries, settings, metrics=Metrics(), clock=clock), quick=True)
    await server.start()
    try:
        authorization = f"Authorization: Bearer {token}"
        for path, expected in ((KEY, 200), (KEY + "x", 404), (KEY, 200), (KEY + "x", 404), (KEY, 429), (KEY, 429)):
            status, _, _ = await server.ask(get(path, authorization))
            assert f" {expected} " in status, path
        assert server.answered == 2
    finally:
        await server.runner.cleanup()


async def test_quick_way_counts_values(queries: FakeQueries, clock: ManualClock) -> None:
    token, entry = new_token("busy", ["read"])
    settings = Settings(api_tokens=entry, limit_cost_per_min=2)
    server = Server(application(queries, settings, metrics=Metrics(), clock=clock), quick=True)
    await server.start()
    try:
        statuses = [(await server.ask(get(KEY, f"Authorization: Bearer {token}")))[0] for _ in range(3)]
        assert [status.split()[1] for status in statuses] == ["200", "200", "429"]
    finally:
        await server.runner.cleanup()


@pytest.mark.parametrize(
    ("path", "cost"),
    [
        (KEY, 1),
        (f"{KEY}/windows", 5),
        (f"{KEY}/windows?limit=2", 2),
        (f"/v1/tables/candles_1m/values?keys={BTC},coinbase:ETH-USD,none", 3),
        ("/v1/tables/candles_1m/keys", 3),
        ("/v1/tables/candles_1m/top?by=close&limit=1", 3),
        ("/v1/tables", 0),
    ],
)
async def test_read_costs_the_values_that_it_takes(
    make_client: MakeClient, clock: ManualClock, path: str, cost: int
) -> None:
    token, entry = new_token("busy", ["read"])
    client = await make_client(api_tokens=entry, token_limits="busy:::60")
    assert (await client.get(path, headers=bearer(token)))[0] == 200
    left = 0
    while (await client.get(KEY, headers=bearer(token)))[0] == 200:
        left += 1
    assert left == 60 - cost


async def test_callers_without_tokens_share_one_limit_where_there_is_one(make_client: MakeClient) -> None:
    client = await make_client(token_limits="anonymous:1:2:0")
    assert [(await client.get(KEY))[0] for _ in range(3)] == [200, 200, 429]
    free = await make_client()
    assert {(await free.get(KEY))[0] for _ in range(50)} == {200}


async def test_health_and_metrics_pages_of_others_are_not_counted(make_client: MakeClient) -> None:
    token, entry = new_token("busy", ["read"])
    client = await make_client(api_tokens=entry, limit_requests_per_s=0.001, limit_burst=1)
    for _ in range(5):
        assert (await client.get("/health/live", headers=bearer(token)))[0] == 200
    assert (await client.get(KEY, headers=bearer(token)))[0] == 200
    assert (await client.get(KEY, headers=bearer(token)))[0] == 429


async def test_forwarded_read_is_counted_by_the_first_worker_alone(make_client: MakeClient) -> None:
    _, entry = new_token("busy", ["read/latest"])
    client = await make_client(api_tokens=entry, limit_requests_per_s=0.001, limit_burst=1)
    peer = {HOP_HEADER: hop_token(Settings(api_tokens=entry))}
    assert [(await client.get(KEY, headers=peer))[0] for _ in range(3)] == [200] * 3


async def test_operation_is_limited_as_every_other_read(make_client: MakeClient) -> None:
    token, entry = new_token("busy", ["read"])
    client = await make_client(api_tokens=entry, limit_requests_per_s=1, limit_burst=1)
    options: dict[str, Any] = {"json": {}, "headers": bearer(token)}
    assert (await client.request("POST", "/v1/operations/list_tables", **options))[0] == 200
    status, body, headers = await client.request("POST", "/v1/operations/list_tables", **options)
    assert (status, body["code"], headers["Retry-After"]) == (429, "rate_limited", "1")


def test_limit_of_an_unknown_token_is_a_mistake() -> None:
    _, entry = new_token("busy", ["read"])
    with pytest.raises(ConfigurationError, match="no token is called"):
        application(FakeQueries(), Settings(api_tokens=entry, token_limits="bussy:1:1:1"))
