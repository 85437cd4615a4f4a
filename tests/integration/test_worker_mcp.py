"""A real worker's MCP server, as the official client sees it: over HTTP and through `streamapp mcp`, on both wires."""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from jsonschema import Draft202012Validator
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from streamapp.client import StreamClient
from streamapp.errors import UnknownKeyError
from streamapp.operations.catalogue import OPERATIONS
from tests.fakes.processes import Topics, Worker, started, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

MODULE = """
from datetime import timedelta

from streamapp import Candle, StreamApp, Trade, tumbling
from streamapp.agents.signals import Signals

app = StreamApp(APP)
trades = app.topic(TRADES, value_type=Trade)
candles = app.window_table(
    "candles",
    source=trades,
    window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10), retention=timedelta(days=1)),
    aggregate=Candle(),
)
app.latest_table("signals", source=candles, aggregate=Signals())
"""
KEYS = [f"x:S{number}" for number in range(8)]
CALLS: dict[str, dict[str, Any]] = {
    "list_tables": {},
    "describe_table": {"table": "candles"},
    "get_current": {"table": "candles", "keys": KEYS},
    "get_windows": {"table": "candles", "key": KEYS[3], "max_points": 2},
    "get_top": {"table": "candles", "by": "close", "limit": 3},
    "find_keys": {"query": "s"},
    "compare": {"table": "candles", "keys": KEYS[:3]},
    "get_signals": {},
    "get_feed_health": {},
    "summarize_state": {"budget_tokens": 300},
    "wait_for": {"table": "candles", "key": KEYS[0], "condition": "close > 0"},
}


ONE_KEY: dict[str, dict[str, Any]] = {"get_windows": {}, "wait_for": {"condition": "close > 0"}}


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
        (START + MINUTE, 104.0),
        (START + 2 * MINUTE, 105.0),
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
        partitions = list(range(app.topics.partitions(app.trades)))

        def assigned(worker: Worker) -> list[int]:
            document = worker.try_get("/v1/status")
            return document["worker"]["assigned"].get(app.trades, []) if document else []

        until(
            "both to have a share",
            lambda: assigned(first) and assigned(second) and sorted(assigned(first) + assigned(second)) == partitions,
            hint=lambda: first.last_words + second.log[-2_000:],
        )
        first.until_ready()
        second.until_ready()
        app.send(*(trade(f"S{n}", START + m * MINUTE, price=100.0 + n + m) for m in range(3) for n in range(len(KEYS))))
        app.drained(first)

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


@contextlib.contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """A bridge's heartbeat, for as long as the context lasts."""
    over = threading.Event()

    def beats() -> None:
        while not over.wait(0.3):
            beat()

    beat()
    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def test_every_answer_says_that_the_feed_is_down(kafka: str, tmp_path: Path) -> None:
    """First the feed ends, then the bridge with it: only its heartbeat's absence can tell that."""
    venue = f"v{uuid.uuid4().hex[:8]}"
    key = f"{venue}:A"
    app = UserApp(Topics(kafka), tmp_path, MODULE)

    def says(state: str) -> None:
        status = {"venue": venue, "symbol": None, "state": state, "detail": "", "event_time": START}
        app.topics.produce("feed-status", [(venue, json.dumps(status).encode())])

    async def told(worker: Worker) -> dict[str, tuple[bool, int | None]]:
        """Whether each tool says that the venue is down, and how far it is behind."""
        found = {}
        given = {**CALLS, **{name: {"table": "candles", "key": key, **more} for name, more in ONE_KEY.items()}}
        given |= {
            "get_current": {"table": "candles", "keys": [key]},
            "compare": {"table": "candles", "keys": [key, key + "x"]},
        }
        async with Client(f"http://127.0.0.1:{worker.port}/mcp") as client:
            for name, arguments in given.items():
                result = await client.call_tool(name, arguments)
                assert not result.is_error, text_of(result)
                freshness = result.structured_content["freshness"]
                down = venue in freshness["feeds_down"]
                lines = text_of(result).splitlines()
                assert down == (venue in lines[0 if name == "summarize_state" else -1]), name
                found[name] = (down, freshness["staleness_ms"])
        return found

    with app.worker(env={"STREAMAPP_FEED_TIMEOUT_MS": "4000"}) as worker:
        worker.until_ready()
        app.send(trade("A", START, price=5.0, venue=venue))
        app.drained(worker)

        path = f"/v1/tables/candles/keys/{key}"
        with beating(lambda: says("connected")):
            until(
                "the feed to be known as live", lambda: (worker.get(path)["freshness"]["feed"] or {}).get("connected")
            )
            asyncio.run(told(worker))  # the first one waits for imports
            before = asyncio.run(told(worker))
        assert not any(down for down, _ in before.values()), before
        last_word = time.monotonic()
        until(
            "staleness to grow before anybody calls the feed down",
            lambda: worker.get(path)["freshness"]["staleness_ms"] > 1_000,
        )
        until("the silence to be noticed", lambda: not worker.get(path)["freshness"]["feed"]["connected"])
        assert time.monotonic() - last_word > 3
        after = asyncio.run(told(worker))
        assert all(down for down, _ in after.values()), after
        assert (after["get_current"][1] or 0) >= 4_000
