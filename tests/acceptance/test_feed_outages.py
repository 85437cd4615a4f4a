"""What an agent is told when a feed dies, and then the bridge: real ones, killed, and every tool asked."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from streamapp.settings import Settings
from tests.fakes.agent_app import MODULE, calls
from tests.fakes.bridge_runs import clean_topics
from tests.fakes.ports import unused_port
from tests.fakes.processes import Streamapp, Topics, Worker, started, until
from tests.fakes.user_apps import UserApp

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

KEY, OTHER = "coinbase:BTC-USD", "coinbase:ETH-USD"
PATH = f"/v1/tables/candles/keys/{KEY}"
TIMEOUT_MS = 4_000
#: how long after a kill a word of before it may still arrive, or pass between two looks
ON_ITS_WAY_S = 1.0
#: to ask all tools once, on a loaded machine
ASKING_S = 10.0
CALLS = calls(KEY, OTHER)


async def told(worker: Worker) -> dict[str, tuple[bool, int | None]]:
    """What each tool says: whether the feed is down, and how old its newest value is."""
    found = {}
    async with Client(f"http://127.0.0.1:{worker.port}/mcp") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == list(CALLS), "every tool is asked"
        for name in names:
            result = await client.call_tool(name, CALLS[name])
            assert not result.is_error, (name, result.content)
            freshness = result.structured_content["freshness"]
            down = "coinbase" in freshness["feeds_down"]
            lines = result.content[0].text.splitlines()
            assert down == ("coinbase" in lines[0 if name == "summarize_state" else -1]), (name, lines)
            found[name] = (down, freshness["staleness_ms"])
    return found


def freshness(worker: Worker) -> dict[str, Any]:
    status, answer = worker.ask(PATH)
    return answer["freshness"] if status == 200 else {}


def connected(worker: Worker) -> bool:
    return bool((freshness(worker).get("feed") or {}).get("connected"))


def until_down(worker: Worker, since: float) -> None:
    """From the time-out on every tool says it, and how old the value is; staleness has grown all the while."""
    ages = []
    while connected(worker):
        ages.append(freshness(worker).get("staleness_ms", 0))
        assert time.monotonic() - since < TIMEOUT_MS / 1_000 + ASKING_S, ages
        time.sleep(0.05)
    noticed_s = time.monotonic() - since
    assert noticed_s < TIMEOUT_MS / 1_000 + 1.0, f"{noticed_s:.1f} s"
    # counted from the kill and not from an earlier look: a last good word may have been on its way between the two
    if ages:
        assert ages[-1] >= (noticed_s - ON_ITS_WAY_S) * 1_000, ages
    asked_s = time.monotonic() - since
    answers = asyncio.run(told(worker))
    assert all(down for down, _ in answers.values()), answers
    age_ms = answers["get_current"][1]
    assert age_ms is not None
    assert age_ms >= max(1, (asked_s - ON_ITS_WAY_S) * 1_000)
    print(f"the feed was known to be down {noticed_s:.2f} s after the kill; its value is {age_ms} ms old")


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[UserApp]:
    asyncio.run(clean_topics(Settings(kafka_brokers=kafka)))
    yield UserApp(Topics(kafka), tmp_path, MODULE.replace("TRADES", repr("trades")))  # where the bridge writes to
    asyncio.run(clean_topics(Settings(kafka_brokers=kafka)))


def test_every_tool_says_that_the_feed_is_down_when_venue_or_bridge_were_killed(app: UserApp, tmp_path: Path) -> None:
    port = unused_port()
    venue = Streamapp("venue", tmp_path, "simulate", "--port", str(port), "--symbols", "2", "--rate", "200")
    feed = ("bridge", "--feed", "coinbase", "--url", f"ws://127.0.0.1:{port}", "--symbols", "BTC-USD,ETH-USD")
    bridge = Streamapp("bridge", tmp_path, *feed, env={"STREAMAPP_KAFKA_BROKERS": app.topics.brokers})
    worker = app.worker(env={"STREAMAPP_FEED_TIMEOUT_MS": str(TIMEOUT_MS)})
    with venue, started(worker):
        venue.line("listening on")
        with bridge:
            worker.until_ready()
            until("the feed to be live", lambda: connected(worker), hint=lambda: bridge.last_words)
            asyncio.run(told(worker))  # the first one waits for imports
            assert not any(down for down, _ in asyncio.run(told(worker)).values())

            venue.kill()
            until_down(worker, time.monotonic())

            venue.start()
            until("the feed to be live again", lambda: connected(worker), hint=lambda: bridge.last_words)
            assert not any(down for down, _ in asyncio.run(told(worker)).values())

            bridge.kill()
            until_down(worker, time.monotonic())
