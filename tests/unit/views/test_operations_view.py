"""The operations over plain HTTP, and the summary as one GET."""

import pytest

from tests.unit.views.conftest import BTC, CheckedClient, MakeClient


async def test_operations_are_listed_with_their_schemas(client: CheckedClient) -> None:
    status, body, _ = await client.get("/v1/operations")
    assert status == 200
    names = [operation["name"] for operation in body["operations"]]
    assert names[0] == "list_tables"
    assert len(names) == 11
    assert body["operations"][2]["input_schema"]["required"] == ["table", "keys"]


async def test_operation_answers_and_refuses_like_a_read(client: CheckedClient) -> None:
    path = "/v1/operations/get_current"
    status, body, _ = await client.request("POST", path, json={"table": "latest", "keys": [BTC]})
    assert (status, body["items"][0]["value"]["price"]) == (200, 101.5)
    for given, code in (
        ({"table": "latest", "keys": ["x:NO"]}, (404, "unknown_key")),
        ({"table": "latest", "keys": [BTC], "max_staleness_ms": 1}, (409, "stale")),
        ({"table": "latest"}, (400, "bad_parameter")),
    ):
        status, body, _ = await client.request("POST", path, json=given)
        assert (status, body["code"]) == code
    status, body, _ = await client.request("POST", "/v1/operations/nothing", json={})
    assert (status, body["parameter"]) == (400, "operation")


async def test_body_must_be_a_json_object(client: CheckedClient, make_client: MakeClient) -> None:
    path = "/v1/operations/list_tables"
    for data, kind in ((b"[]", "application/json"), (b"{", "application/json"), (b"{}", "text/plain")):
        status, body, _ = await client.request("POST", path, data=data, headers={"Content-Type": kind})
        assert (status, body["code"]) == (400, "bad_parameter"), data
    small = await make_client(max_body_bytes=64)
    status, body, _ = await small.request("POST", path, data=b" " * 100, headers={"Content-Type": "application/json"})
    assert (status, body["code"]) == (413, "too_large")


async def test_context_is_the_summary(client: CheckedClient) -> None:
    status, body, _ = await client.get(f"/v1/context?tables=latest&keys={BTC}&budget_tokens=200&style=text")
    assert status == 200
    assert f"{BTC} 101.5" in body["summary"]
    assert body["tokens"] <= 200
    status, again, _ = await client.get(f"/v1/context?tables=latest&keys={BTC}&cursor={body['cursor']}")
    assert (status, again["delta"]) == (200, True)
    assert BTC not in again["summary"]
    for query in ("budget_tokens=1", "style=poem", "cursor=!", "nothing=1", "budget_tokens=x"):
        status, body, _ = await client.get(f"/v1/context?{query}")
        assert (status, body["code"]) == (400, "bad_parameter"), query


@pytest.mark.parametrize("name", ["keys", "tables"])
async def test_context_of_nothing_is_not_taken_for_one_of_everything(client: CheckedClient, name: str) -> None:
    for given in ("", ",", f"{BTC},"):
        status, body, _ = await client.get(f"/v1/context?{name}={given}")
        assert (status, body["code"]) == (400, "bad_parameter"), given
        assert body["parameter"].startswith(name)
