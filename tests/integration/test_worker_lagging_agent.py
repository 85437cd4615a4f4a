"""An agent that is behind the tables on its topic, and a worker that is killed meanwhile."""

import re
from pathlib import Path

import pytest

from streamapp.kafka.topics import TopicSpec
from tests.fakes.processes import Topics, until
from tests.fakes.user_apps import UserApp, trade

TRADES = 30
STALLED_AT = 10

SLOW = """
import asyncio
import os

from streamapp import Count, StreamApp, Trade

app = StreamApp(APP)
trades = app.topic(TRADES, value_type=Trade)
app.latest_table("counts", source=trades, aggregate=Count())


@app.agent(trades)
async def slow(stream):
    async for trade in stream:
        while trade.price == int(os.environ.get("STALLED_AT", "-1")):
            await asyncio.sleep(1)
        print(f"saw {trade.trade_id} in {os.getpid()}")
"""


@pytest.mark.timeout(400)
def test_agent_gets_what_it_had_not_done_though_the_tables_were_past_it(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, SLOW)
    app.topics.create(TopicSpec(app.trades, 1))
    place = (app.trades, 0)
    with app.worker(env={"STALLED_AT": str(STALLED_AT + 1)}) as worker:
        worker.until_ready()
        app.send(*(trade(price=n + 1, trade_id=f"t{n}") for n in range(TRADES)))
        until(
            "the group to be where the agent is",
            lambda: app.topics.committed(app.id, app.trades)[place] == STALLED_AT,
            hint=lambda: worker.last_words,
        )
        until(
            "the table to have counted all",
            lambda: worker.try_get("/v1/tables/counts/keys/x:BTC-USD")["value"] == {"count": TRADES},
            hint=lambda: worker.last_words,
        )
        changelog = f"{app.id}-counts-changelog"
        until(
            "a checkpoint of it", lambda: app.topics.ends(changelog)[changelog, 0] >= 3, hint=lambda: worker.last_words
        )
        worker.kill()
    with app.worker() as worker:
        worker.line(f"saw t{TRADES - 1} in {worker.pid}")
        seen = re.findall(rf"saw (t\d+) in {worker.pid}\b", worker.log)
        assert seen == [f"t{n}" for n in range(STALLED_AT, TRADES)]
        assert worker.get("/v1/tables/counts/keys/x:BTC-USD")["value"] == {"count": TRADES}
