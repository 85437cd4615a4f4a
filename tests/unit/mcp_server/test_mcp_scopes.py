"""Tokens that open single keys, and limits, over both wires of the protocol."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.views.auth import new_token
from tests.unit.mcp_server.conftest import BTC, ETH, Serve
from tests.unit.mcp_server.test_mcp_over_http import WIRES, text_of

SCOPES = [f"read/latest/{BTC}", "read/candles_1m/coinbase:BTC-"]
ACCEPTS = {"Accept": "application/json, text/event-stream"}
BEGIN = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
CALL = {"name": "get_current", "arguments": {"table": "latest", "keys": [BTC]}}


@contextlib.asynccontextmanager
async def client_of(url: str, token: str, mode: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
        async with Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client:
            yield client


@WIRES
async def test_tools_and_resources_show_what_is_open_alone(serve: Serve, mode: str) -> None:
    token, entry = new_token("narrow", SCOPES)
    async with client_of(await serve(api_tokens=entry), token, mode) as client:
        tables = (await client.call_tool("list_tables", {})).structured_content["tables"]
        assert [table["name"] for table in tables] == ["candles_1m", "latest"]
        found = (await client.call_tool("find_keys", {"query": "coinbase"})).structured_content["keys"]
        assert [one["key"] for one in found] == [BTC]
        for table in ("latest", "signals", "nothing"):
            refused = await client.call_tool("get_current", {"table": table, "keys": [ETH]})
            assert refused.is_error
            assert "error forbidden" in text_of(refused)
            assert "nearest" not in text_of(refused)
        listed, cursor = [], None
        while True:
            page = await client.list_resources(cursor=cursor)
            listed += [str(resource.uri) for resource in page.resources]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert listed == [f"table://candles_1m/{BTC}", f"table://latest/{BTC}"]
        for uri in (f"table://latest/{ETH}", "table://latest/coinbase%3AETH-USD", f"table://signals/{BTC}"):
            with pytest.raises(MCPError, match="forbidden"):
                await client.read_resource(uri)
        brief = (await client.get_prompt("brief_me", {"subject": "ETH"})).messages[0].content
        assert isinstance(brief, types.TextContent)
        assert ETH not in brief.text


async def follow(client: Client, mode: str, uri: str) -> None:
    if mode == "legacy":
        await client.session.subscribe_resource(uri)
    else:
        async with client.listen(resource_subscriptions=[f"table://latest/{BTC}", uri]):
            pass


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@WIRES
async def test_changes_of_what_may_not_be_read_are_not_followed(serve: Serve, metrics: Metrics, mode: str) -> None:
    token, entry = new_token("narrow", SCOPES)
    async with client_of(await serve(api_tokens=entry), token, mode) as client:
        for uri in (f"table://latest/{ETH}", "table://latest/coinbase%3aETH-USD", f"table://signals/{BTC}"):
            with pytest.raises(MCPError, match="forbidden"):
                await follow(client, mode, uri)
    assert metrics.mcp_subscriptions._value.get() == 0


async def test_session_of_a_token_serves_no_other(serve: Serve) -> None:
    wide, wide_entry = new_token("wide", ["read"])
    narrow, narrow_entry = new_token("narrow", SCOPES)
    url = f"{await serve(api_tokens=f'{wide_entry},{narrow_entry}')}/mcp"
    async with aiohttp.ClientSession(headers=ACCEPTS) as session:
        begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": BEGIN}
        async with session.post(url, json=begin, headers={"Authorization": f"Bearer {wide}"}) as answer:
            name = answer.headers["Mcp-Session-Id"]
        headers = {"Mcp-Session-Id": name, "Mcp-Protocol-Version": "2025-06-18", "Authorization": f"Bearer {narrow}"}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": CALL}
        async with session.post(url, json=call, headers=headers) as answer:
            assert answer.status == 404
        async with session.get(url, headers=headers) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2026-07-28"])
async def test_batch_is_refused_as_a_whole(serve: Serve, metrics: Metrics, version: str) -> None:
    """Several calls in one request would be one request to the limits."""
    token, entry = new_token("laptop", ["read"])
    url = f"{await serve(api_tokens=entry)}/mcp"
    headers = {"Authorization": f"Bearer {token}", "Mcp-Protocol-Version": version, **ACCEPTS}
    calls = [{"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": CALL} for number in range(3)]
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, json=calls) as answer:
            assert answer.status == 400
    assert not [sample for family in metrics.operation_calls.collect() for sample in family.samples]


@WIRES
async def test_too_many_calls_are_an_answer_that_a_model_can_act_on(
    serve: Serve, clock: ManualClock, metrics: Metrics, mode: str
) -> None:
    token, entry = new_token("busy", ["read"])
    url = await serve(api_tokens=entry, limit_requests_per_s=0.5, limit_burst=8)
    async with client_of(url, token, mode) as client:
        for _ in range(9):
            result = await client.call_tool(CALL["name"], CALL["arguments"])  # type: ignore[arg-type]
            if result.is_error:
                break
        assert "error rate_limited" in text_of(result)
        assert "retry after: 2 s" in text_of(result)
        assert "wait for the seconds given" in text_of(result)
        with pytest.raises(MCPError, match="rate_limited") as refused:
            await client.read_resource(f"table://latest/{BTC}")
        assert refused.value.error.data == {"retry_after_s": 2}
        clock.advance(2_000)
        assert not (await client.call_tool(CALL["name"], CALL["arguments"])).is_error  # type: ignore[arg-type]
    assert metrics.refused_calls.labels("busy", "requests")._value.get() >= 2


async def test_values_read_cost_what_they_are(serve: Serve, clock: ManualClock, metrics: Metrics) -> None:
    token, entry = new_token("greedy", ["read"])
    url = await serve(api_tokens=entry, token_limits="greedy:::5")
    async with client_of(url, token, "2026-07-28") as client:
        given: dict[str, Any] = {"table": "candles_1m", "key": BTC, "from_ms": 0}
        assert not (await client.call_tool("get_windows", given)).is_error
        refused = await client.call_tool("get_windows", given)
        assert refused.is_error
        assert "5 values per minute" in text_of(refused)
        assert "retry after: 12 s" in text_of(refused)
        clock.advance(12_000)
        assert not (await client.call_tool("get_windows", given)).is_error
    assert metrics.refused_calls.labels("greedy", "cost")._value.get() == 1


async def test_origin_and_host_are_checked_with_a_good_token_too(serve: Serve) -> None:
    token, entry = new_token("laptop", ["read"])
    url = f"{await serve(api_tokens=entry)}/mcp"
    good = {"Authorization": f"Bearer {token}", **ACCEPTS}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": BEGIN})
    async with aiohttp.ClientSession(headers=good) as session:
        for headers, status in (
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": "evil.example"}, 403),
            ({"Origin": "http://localhost.evil.example"}, 403),
            ({"Origin": "http://localhost"}, 200),
            ({}, 200),
        ):
            for method in ("POST", "GET", "DELETE"):
                sent = {"Content-Type": "application/json", **headers}
                async with session.request(
                    method, url, data=body if method == "POST" else None, headers=sent
                ) as answer:
                    assert (answer.status == 403) == (status == 403), (method, headers)


@WIRES
async def test_tool_call_leaves_a_line_in_the_audit(serve: Serve, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    caplog.set_level(logging.INFO, "streamapp.audit")
    token, entry = new_token("narrow", SCOPES)
    async with client_of(await serve(api_tokens=entry, audit="log"), token, mode) as client:
        await client.call_tool("get_current", {"table": "latest", "keys": [BTC]})
        await client.call_tool("get_current", {"table": "latest", "keys": [ETH]})
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "streamapp.audit"]
    told = [(line["caller"], line["operation"], line["keys"], line["outcome"]) for line in lines if "operation" in line]
    assert told == [("narrow", "get_current", [BTC], "ok"), ("narrow", "get_current", [ETH], "forbidden")]
    assert token not in caplog.text
