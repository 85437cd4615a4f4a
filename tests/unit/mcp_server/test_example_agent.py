"""The example's agent, with its scripted model."""

import runpy
from pathlib import Path

from streamapp.clock import ManualClock
from streamapp.queries.model import FeedInfo
from tests.fakes.queries import FakeQueries
from tests.unit.mcp_server.conftest import START, Serve

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
