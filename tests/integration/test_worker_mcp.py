"""A real worker's MCP server, as the official client sees it: over HTTP and through `streamapp mcp`, on both wires."""

import asyncio
import os
import sys
import time
from pathlib import Path

import mcp_types as types
import pytest
from jsonschema import Draft202012Validator
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from streamapp.client import StreamClient
from streamapp.errors import UnknownKeyError
from streamapp.operations.catalogue import OPERATIONS
from tests.fakes.agent_app import KEYS, MODULE, calls, fill
from tests.fakes.processes import Topics, Worker, started
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

CALLS = calls(*KEYS)


def text_of(result: types.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


def proxy(worker: Worker) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "streamapp", "mcp", "--url", f"http://127.0.0.1:{worker.port}"],
        env={**os.environ, "STREAMAPP_CONFIG": os.devnull},
    )


async def calls_every_tool(client: Client) -> None:
    tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == [operation.name for operation in OPERATIONS] == list(CALLS)
    answers = {}
    for tool in tools:
        result = await client.call_tool(tool.name, CALLS[tool.name])
        assert not result.is_error, f"{tool.name}: {text_of(result)}"
        Draft202012Validator(tool.output_schema or {}).validate(result.structured_content)
        assert result.structured_content["freshness"]["missing_partitions"] == []
        answers[tool.name] = result.structured_content
    current = answers["get_current"]
    assert [item["key"] for item in current["items"]] == KEYS
    assert [item["value"]["close"] for item in current["items"]] == [102.0 + n for n in range(8)]
    assert [item["key"] for item in answers["get_top"]["items"]] == KEYS[:-4:-1]
    assert {found["key"] for found in answers["find_keys"]["keys"]} == set(KEYS)
    points = answers["get_windows"]["points"]
    assert [(point["start"], point["value"]["close"]) for point in points] == [
        (START + MINUTE, 101.0),
        (START + 2 * MINUTE, 102.0),
    ]
    assert answers["wait_for"]["held"] is True


async def watches(client: Client, app: UserApp) -> None:
    """A wait that a later trade ends, and word of a changed resource."""
    given = {"table": "candles", "key": KEYS[1], "condition": "close >= 500", "timeout_ms": 60_000}
    waiting = asyncio.create_task(client.call_tool("wait_for", given))
    uri = f"table://candles/{KEYS[1]}"
    async with asyncio.timeout(60), client.listen(resource_subscriptions=[uri]) as listening:
        price = 200.0
        await anext(aiter(listening))  # the first word comes without a change
        heard = asyncio.ensure_future(anext(aiter(listening)))
        while not heard.done() and price < 450:
            price += 1
            await asyncio.to_thread(app.send, trade("S1", START + 3 * MINUTE, price=price))
            await asyncio.wait({heard}, timeout=0.5)
        assert str((await heard).uri) == uri
    assert not waiting.done()
    await asyncio.to_thread(app.send, trade("S1", START + 3 * MINUTE + 1, price=501.0))
    result = await waiting
    assert not result.is_error, text_of(result)
    assert result.structured_content["held"] is True
    assert result.structured_content["item"]["value"]["close"] == 501.0
    content = (await client.read_resource(uri)).contents[0]
    assert isinstance(content, types.TextResourceContents)
    assert '"close":501.0' in content.text


async def client_reads(worker: Worker) -> None:
    async with StreamClient(f"http://127.0.0.1:{worker.port}") as client:
        current = await client.get_current("candles", KEYS[5])
        assert current.items[0].value["close"] == 107.0
        with pytest.raises(UnknownKeyError) as unknown:
            await client.get_current("candles", "x:S55")
        assert set(unknown.value.nearest) <= set(KEYS)


def test_official_client_calls_every_tool_of_a_cluster(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, MODULE)
    first, second = app.worker("first"), app.worker("second")
    with started(first, second):
        first.until_ready()
        second.until_ready()
        app.until_shared(first, second)
        fill(app, first)

        async def ask() -> None:
            for mode in ("2026-07-28", "legacy"):
                async with Client(f"http://127.0.0.1:{first.port}/mcp", mode=mode) as client:
                    await calls_every_tool(client)
            async with Client(stdio_client(proxy(second))) as client:
                await calls_every_tool(client)
            async with Client(f"http://127.0.0.1:{second.port}/mcp", mode="2026-07-28") as client:
                await watches(client, app)
            await client_reads(first)

        asyncio.run(ask())
        assert first.metric("streamapp_operation_calls_total", operation="get_top", outcome="ok") == 2
        assert second.metric("streamapp_operation_calls_total", operation="get_top", outcome="ok") == 1
        began = time.monotonic()
        assert first.terminate() == 0
        assert time.monotonic() - began < 30
