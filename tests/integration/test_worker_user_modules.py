"""Modules as users write them: run by Faust's own command, with agents, and with every kind of table."""

import random
from collections import Counter
from pathlib import Path

import orjson
import pytest

from streamapp.kafka.topics import BUILTIN_TOPICS, TopicSpec
from tests.fakes.processes import Topics, Worker, until
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PRICES = """\
from datetime import timedelta
from streamapp import Candle, StreamApp, Trade, tumbling

app = StreamApp("prices")
trades = app.topic("trades", value_type=Trade)
candles = app.window_table("candles", source=trades, window=tumbling(timedelta(minutes=1), grace=timedelta(seconds=10),
                           retention=timedelta(days=1)), aggregate=Candle())

@app.agent(trades)                      # plain Faust agents go on working
async def big(stream):
    async for trade in stream:
        if trade.size > 10:
            print(trade)
"""

FRAGILE = """
from streamapp import Count, StreamApp, Trade

app = StreamApp(APP)
trades = app.topic(TRADES, value_type=Trade)
counts = app.latest_table("counts", source=trades, aggregate=Count())


@app.agent(trades)
async def fragile(stream):
    async for trade in stream:
        if trade.price == 13:
            raise ValueError("thirteen")
        print(f"saw {trade.trade_id}")
"""

EVERY_KIND = """
from datetime import timedelta

from pydantic import BaseModel
from streamapp import Count, Fold, Mean, StreamApp, session, tumbling


class Measured(BaseModel):
    place: str
    value: float
    at: int


def step(state, record):
    state["total"] += record.value
    state["last"] = record.value
    return state


app = StreamApp(APP)
measured = app.topic(TRADES, value_type=Measured)
minute = tumbling(timedelta(minutes=1), grace=timedelta(seconds=10))
app.window_table("by_place", source=measured, key="place", time="at", window=minute,
                 aggregate={"n": Count(), "mean": Mean("value")})
app.window_table("visits", source=measured, time="at", aggregate=Count(),
                 window=session(timedelta(seconds=30), grace=timedelta(seconds=10)))
app.latest_table("folded", source=measured, time="at", aggregate=Fold({"total": 0.0, "last": None}, step))
"""

FROM_NOW_ON = """
from streamapp import Count, StreamApp, Trade

app = StreamApp(APP)
trades = app.topic(TRADES, value_type=Trade)
app.latest_table("all_of_it", source=trades, aggregate=Count())
app.latest_table("from_now_on", source=trades, aggregate=Count(), start="latest")
app.latest_table("by_symbol_from_now_on", source=trades, aggregate=Count(), key="symbol", start="latest")
"""


def test_smallest_module_runs_as_it_is_written(kafka: str, tmp_path: Path) -> None:
    topics = Topics(kafka)
    # its names are fixed, so whatever has them is older
    topics.delete("trades", *(f"prices-candles-{kind}" for kind in ("changelog", "final", "late")))
    topics.create(*BUILTIN_TOPICS(topics.settings))
    (tmp_path / "prices.py").write_text(PRICES)
    with Worker(kafka, tmp_path, module="prices") as worker:
        worker.until_ready()
        trades = [trade("BTC-USD", START + n, price=100 + n, size=n, trade_id=f"t{n}") for n in range(1, 13)]
        topics.produce("trades", [("x:BTC-USD", orjson.dumps(one)) for one in trades])
        topics.until_drained("prices", "trades", hint=lambda: worker.last_words)
        candle = worker.get("/v1/tables/candles/keys/x:BTC-USD")
        assert (candle["value"]["open"], candle["value"]["close"], candle["value"]["count"]) == (101, 112, 12)
        worker.line("trade_id='t12'")
        assert "trade_id='t11'" in worker.log
        assert "trade_id='t10'" not in worker.log
        assert worker.terminate() == 0
    topics.delete("trades")


def test_agent_that_raises_loses_nothing_but_the_record_it_raised_on(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, FRAGILE)
    app.topics.create(TopicSpec(app.trades, 1))
    with app.worker() as worker:
        worker.until_ready()
        app.send(*(trade(price=n, trade_id=f"t{n}") for n in range(1, 31)))
        app.drained(worker)
        (letter,) = app.topics.letters(app.trades)
        assert (letter["reason"], letter["offset"]) == ("agent_failed", 12)
        assert "thirteen" in letter["error"]
        seen = [line.split()[-1] for line in worker.log.splitlines() if "saw t" in line]
        assert sorted(set(seen), key=lambda name: int(name[1:])) == [f"t{n}" for n in range(1, 31) if n != 13]
        assert worker.get("/v1/tables/counts/keys/x:BTC-USD")["value"] == {"count": 30}, "the table is not concerned"
        assert worker.metric("streamapp_dead_letters_total", topic=app.trades, reason="agent_failed") == 1


def test_tables_of_every_kind_survive_kills_exactly(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, EVERY_KIND)
    draw = random.Random(3)
    count = 12_000
    # values are whole, so that sums are exact in any order; the gaps between the times of a key exceed 30 s now and then
    records, time = [], START
    for number in range(count):
        time += 40_000 if number % 400 == 399 else draw.randrange(20)
        records.append((f"k{draw.randrange(5)}", f"p{draw.randrange(7)}", number, time))
    parts = [records[:4_000], records[4_000:8_000], records[8_000:]]
    with app.worker() as worker:
        worker.until_ready()
        for part, disk_is_lost in zip(parts, (False, True, None), strict=True):
            app.topics.produce(
                app.trades,
                [(key, orjson.dumps({"place": p, "value": value, "at": at})) for key, p, value, at in part],
            )
            if disk_is_lost is None:
                break
            until("some of it merged", lambda: worker.applied > 1_000, hint=lambda: worker.last_words)
            worker.kill()
            if disk_is_lost:
                worker.lose_disk()
            worker.start()
        app.drained(worker, f"{app.id}-by_place-rekey")
        app.drained(worker, f"{app.id}-by_place-rekey")

        places = Counter((place, at - at % MINUTE) for _, place, _, at in records)
        sums = Counter[tuple[str, int]]()
        for _, place, value, at in records:
            sums[place, at - at % MINUTE] += value
        got = {
            (key, item["window"]["start"]): item["value"]
            for key in worker.keys("by_place")
            for item in worker.windows("by_place", key)
        }
        assert {place: value["n"] for place, value in got.items()} == dict(places)
        for place, value in got.items():
            assert value["mean"] == pytest.approx(sums[place] / places[place], rel=1e-9)

        visits: dict[str, list[list[int]]] = {}
        for key, _, _, at in records:
            mine = visits.setdefault(key, [])
            if mine and at < mine[-1][1] + 30_000:
                mine[-1][1:] = [at, mine[-1][2] + 1]
            else:
                mine.append([at, at, 1])
        assert sum(map(len, visits.values())) > 50
        assert {
            key: [
                [item["window"]["start"], item["window"]["end"] - 30_000, item["value"]["count"]]
                for item in worker.windows("visits", key)
            ]
            for key in worker.keys("visits")
        } == visits

        for key in visits:
            values = [value for owner, _, value, _ in records if owner == key]
            folded = worker.get(f"/v1/tables/folded/keys/{key}")["value"]
            assert folded == {"total": sum(values), "last": values[-1]}
        assert app.topics.letters(app.trades) == []


def test_table_that_starts_at_the_latest_counts_only_what_comes_after(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, FROM_NOW_ON)
    app.topics.create(TopicSpec(app.trades, 4))
    app.send(*(trade("OLD") for _ in range(5)), *(trade("BTC-USD") for _ in range(5)))
    with app.worker() as worker:
        worker.until_ready()
        app.send(*(trade("BTC-USD") for _ in range(3)))
        app.drained(worker, f"{app.id}-by_symbol_from_now_on-rekey")
        assert worker.get("/v1/tables/from_now_on/keys/x:BTC-USD")["value"] == {"count": 3}
        assert worker.get("/v1/tables/by_symbol_from_now_on/keys/BTC-USD")["value"] == {"count": 3}
        worker.kill()
        worker.lose_disk()
        app.send(trade("BTC-USD"))
        worker.start().until_ready()
        app.drained(worker, f"{app.id}-by_symbol_from_now_on-rekey")
        assert worker.get("/v1/tables/all_of_it/keys/x:BTC-USD")["value"] == {"count": 9}
        assert worker.get("/v1/tables/from_now_on/keys/x:BTC-USD")["value"] == {"count": 4}
        assert worker.keys("from_now_on") == ["x:BTC-USD"]
        assert worker.get("/v1/tables/by_symbol_from_now_on/keys/BTC-USD")["value"] == {"count": 4}
