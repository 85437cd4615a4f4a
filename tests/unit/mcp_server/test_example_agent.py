"""The example's agent, with its scripted model."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.queries.model import FeedInfo
from tests.fakes.queries import FakeQueries
from tests.unit.mcp_server.conftest import BTC, START, Serve

AGENT = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "agent.py"), run_name="agent")


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
