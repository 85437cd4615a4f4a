"""`streamapp mcp` as a desktop client starts it: a process that speaks on its standard streams."""

import asyncio
import os
import sys

import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from streamapp.operations.catalogue import OPERATIONS
from tests.fakes.ports import unused_port
from tests.fakes.queries import FakeQueries, latest
from tests.unit.mcp_server.conftest import BTC, Serve
from tests.unit.mcp_server.test_mcp_over_http import CALLS, text_of


def command(url: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "streamapp", "mcp", "--url", url],
        env={**os.environ, "STREAMAPP_CONFIG": os.devnull},
    )


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_tool_answers_through_the_proxy(serve: Serve, queries: FakeQueries, mode: str) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def heard(message: object) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.put_nowait(str(message.params.uri))

    url = await serve(mcp_notify_ms=20)
    async with Client(stdio_client(command(url)), mode=mode, message_handler=heard) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [one.name for one in OPERATIONS]
        for name, given in CALLS.items():
            result = await client.call_tool(name, given)
            assert not result.is_error, text_of(result)
            assert result.structured_content["freshness"]["feeds_down"] == ["kraken"]
        unknown = await client.call_tool("get_current", {"table": "latest", "keys": ["coinbase:BTC-US"]})
        assert unknown.is_error
        assert BTC in text_of(unknown)
        uri = f"table://latest/{BTC}"
        assert next(str(one.uri) for one in (await client.list_resources()).resources) == f"table://candles_1m/{BTC}"
        if mode == "auto":
            async with asyncio.timeout(30), client.listen(resource_subscriptions=[uri]) as listening:
                changing = asyncio.create_task(change(queries))
                async for one in listening:
                    assert str(one.uri) == uri
                    break
                changing.cancel()


async def change(queries: FakeQueries) -> None:
    for number in range(10_000):
        queries.put("latest", BTC, latest(200.0 + number))
        await asyncio.sleep(0.02)


async def test_unreachable_worker_is_told_to_the_model() -> None:
    async with Client(stdio_client(command(f"http://127.0.0.1:{unused_port()}"))) as client:
        result = await client.call_tool("list_tables", {})
        assert result.is_error
        assert "no worker answers" in text_of(result)
