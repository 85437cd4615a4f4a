"""The example's agent, with its scripted model, and with a vendor's SDK whose vendor is a script."""

import asyncio
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.queries.model import FeedInfo
from tests.fakes.messages_api import API_KEY, MessagesApi
from tests.fakes.queries import FakeQueries
from tests.unit.mcp_server.conftest import BTC, START, Serve

EXAMPLE = Path(__file__).parents[3] / "examples" / "agent.py"
AGENT = runpy.run_path(str(EXAMPLE), run_name="agent")


async def test_agent_answers_and_says_whether_the_number_is_fresh(
    serve: Serve, queries: FakeQueries, clock: ManualClock
) -> None:
    url = await serve()
    answer = await AGENT["ask"](url)
    assert answer.startswith("coinbase:BTC-USD trades at 101.5; it is fresh: the view is at most 12 ms behind")
    clock.advance(1_000)
    queries.feed_infos = [FeedInfo("coinbase", False, "disconnected", "", START, 0)]
    assert "its feed is DOWN" in await AGENT["ask"](url)


async def test_agent_calls_no_old_view_fresh(serve: Serve, queries: FakeQueries) -> None:
    url = await serve()
    queries.staleness_ms = 600_000
    answer = await AGENT["ask"](url)
    assert "it is NOT fresh: the view is at most 600000 ms behind" in answer


async def test_a_vendors_model_is_given_the_tools_and_what_they_say(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "get_current", "input": {"table": "latest", "keys": [BTC]}},
        {"type": "tool_use", "id": "toolu_2", "name": "describe_table", "input": {"table": "no-such"}},
    ]
    api = MessagesApi([asks, [{"type": "text", "text": "101.5, and fresh."}]])
    url = await serve()
    async with api.serve() as vendor:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", vendor)
        monkeypatch.setenv("ANTHROPIC_API_KEY", API_KEY)
        assert await AGENT["ask"](url, "some-model") == "101.5, and fresh."
    first, second = api.requests
    assert {"get_current", "wait_for"} <= {tool["name"] for tool in first["tools"]}
    question, asked, answered = second["messages"]
    assert question == {"role": "user", "content": AGENT["QUESTION"]}
    assert [block["type"] for block in asked["content"]] == ["text", "tool_use", "tool_use"]
    current, unknown = answered["content"]
    assert "101.5" in current["content"]
    assert not current["is_error"]
    assert "no-such" in unknown["content"]
    assert unknown["is_error"]


async def test_agent_without_a_worker_says_so_in_one_line(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), url), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        said, complained = await process.communicate()
    assert (process.returncode, said) == (1, b"")
    assert complained.decode().splitlines() == [
        f"expected a worker at {url}, but nothing listens there: `streamapp demo` starts one"
    ]


@pytest.mark.parametrize(
    ("of_item", "of_answer", "said"),
    [
        ({}, {}, "it is fresh"),
        ({"feed_connected": None}, {}, "it is fresh"),
        ({"feed_connected": False}, {}, "DOWN"),
        ({}, {"feeds_down": ["coinbase"]}, "DOWN"),
        ({}, {"feeds_down": ["kraken"]}, "it is fresh"),
        ({}, {"restoring": True}, "NOT known to be fresh"),
        ({"stale": True}, {}, "NOT fresh"),
        ({}, {"staleness_ms": None}, "NOT fresh"),
        ({}, {"staleness_ms": 10_001}, "NOT fresh"),
    ],
)
def test_everything_that_makes_a_number_old_has_a_say(
    of_item: dict[str, Any], of_answer: dict[str, Any], said: str
) -> None:
    item = {"key": BTC, "freshness": {"feed_connected": True, "stale": False, **of_item}}
    answer = {"staleness_ms": 12, "age_ms": 5, "restoring": False, "feeds_down": [], **of_answer}
    assert said in AGENT["verdict"](item, answer)
