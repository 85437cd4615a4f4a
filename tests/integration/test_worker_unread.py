"""Records that a worker has not read yet: held back, they are not silence; deleted, they are missed."""

import signal
import time
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamapp.engine.consumer_thread import FETCH_WAIT_MS
from streamapp.engine.feeder import FEEDER_MAX_RECORDS
from streamapp.kafka.topics import TopicSpec
from tests.fakes.processes import Topics, until
from tests.fakes.user_apps import CANDLES, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LATEST = """
from streamapp import Count, StreamApp, Trade

app = StreamApp(APP)
trades = app.topic(TRADES, value_type=Trade)
counts = app.latest_table("counts", source=trades, aggregate=Count())
"""
REKEYED = LATEST.replace("aggregate=Count()", 'aggregate=Count(), key="symbol"')
STALLED = """
import asyncio
import os

@app.agent(trades)
async def slow(stream):
    async for trade in stream:
        while os.path.exists(STALL):
            await asyncio.sleep(0.05)
"""
CANDLE = "/v1/tables/candles/keys/x:BTC-USD"


def delete_records(brokers: str, topic: str, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(30)


def numbered(begin: int, end: int) -> list[dict[str, object]]:
    return [trade(trade_id=f"t{number}") for number in range(begin, end)]


def test_partition_that_an_agent_holds_back_is_not_idle(kafka: str, tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    stall.touch()
    app = UserApp(Topics(kafka), tmp_path, f"STALL = {str(stall)!r}\n{CANDLES}{STALLED}")
    app.topics.create(TopicSpec(app.trades, 1))
    # more than one fetch brings, so that the rest waits on the broker
    count, padding = 3 * FEEDER_MAX_RECORDS, "x" * 100
    with app.worker(env={"STREAMAPP_IDLE_TIMEOUT_MS": "1000"}) as worker:
        worker.until_ready()
        app.send(*(trade(time=START + number % 1_000, trade_id=f"{number}{padding}") for number in range(count)))
        held = worker.until_value(CANDLE, lambda found: found["value"]["count"] >= FEEDER_MAX_RECORDS)
        # nothing is to happen in thrice the time after which silence closes a window
        end = time.monotonic() + 3
        until("some time to pass", lambda: time.monotonic() > end)
        still = worker.get(CANDLE)
        assert still["value"]["count"] < count
        assert not held["window"]["final"]
        assert not still["window"]["final"]
        stall.unlink()
        found = worker.until_value(CANDLE, lambda found: found["value"]["count"] == count)
        # and silence does close it
        found = worker.until_value(CANDLE, lambda found: found["window"]["final"])
        assert found["value"]["count"] == count
        assert worker.metric("streamapp_late_records_total", table="candles") == 0


def test_worker_stops_where_records_were_deleted_before_it_read_them(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, LATEST)
    app.topics.create(TopicSpec(app.trades, 1))
    with app.worker() as worker:
        worker.until_ready()
        app.send(*numbered(0, 5))
        app.drained(worker)
        worker.signal(signal.SIGSTOP)
        # a fetch that waits at the broker would be answered with what is sent now, and read in spite of the deletion
        end = time.monotonic() + 4 * FETCH_WAIT_MS / 1000
        until("the last fetch to come back empty", lambda: time.monotonic() > end)
        app.send(*numbered(5, 30))
        delete_records(kafka, app.trades, before=20)
        worker.signal(signal.SIGCONT)
        assert worker.wait() != 0
        assert f"{app.trades}-0: there is no record at offset 5 any more" in worker.log
        assert "streamapp tables rebuild counts" in worker.log


def test_marks_of_transactions_are_read_like_records(kafka: str, tmp_path: Path) -> None:
    """Each transaction ends in a batch that is for no reader: it is not unread for ever, nor missed when it is deleted."""
    app = UserApp(Topics(kafka), tmp_path, LATEST)
    app.topics.create(TopicSpec(app.trades, 1))
    source = (app.trades, 0)

    def in_transactions(*values: dict[str, object]) -> None:
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": app.id})
        producer.init_transactions(30)
        for value in values:
            producer.begin_transaction()
            producer.produce(app.trades, key=b"x:BTC-USD", value=orjson.dumps(value))
            producer.commit_transaction(30)

    with app.worker() as worker:
        worker.until_ready()
        in_transactions(*numbered(0, 3))
        app.drained(worker)
        assert app.topics.ends(app.trades) == {source: 6}
        assert worker.get("/v1/tables/counts/keys/x:BTC-USD")["value"]["count"] == 3
        worker.kill()
        delete_records(kafka, app.trades, before=6)
        worker.start().until_ready()
        in_transactions(*numbered(3, 5))
        worker.until_value("/v1/tables/counts/keys/x:BTC-USD", lambda found: found["value"]["count"] == 5)
        app.drained(worker)
        assert worker.metric("streamapp_dead_letters_total") == 0


def test_rekeyed_table_does_not_start_where_records_were_deleted_before_it_forwarded_them(
    kafka: str, tmp_path: Path
) -> None:
    app = UserApp(Topics(kafka), tmp_path, REKEYED)
    app.topics.create(TopicSpec(app.trades, 1))
    with app.worker() as worker:
        worker.until_ready()
        app.send(*numbered(0, 5))
        app.drained(worker, f"{app.id}-counts-rekey")
        worker.terminate()
    app.send(*numbered(5, 30))
    delete_records(kafka, app.trades, before=20)
    with app.worker("again") as worker:
        assert worker.wait() != 0
        assert "retention deleted 15 records unread" in worker.log


def test_source_of_a_rekeyed_table_is_forwarded_once_whoever_comes_and_goes(kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path, REKEYED)
    app.topics.create(TopicSpec(app.trades, 2))
    rekey = f"{app.id}-counts-rekey"
    with app.worker("one") as one:
        one.until_ready()
        app.send(*(trade(symbol=f"S{number % 50}", trade_id=f"t{number}") for number in range(500)))
        app.drained(one, rekey)
        with app.worker("two") as two:
            until("both to have a part", lambda: two.assigned(app.trades) and len(one.assigned(app.trades)) == 1)
            two.until_ready()
            one.until_ready()
            assert app.topics.count(rekey) == 500
            two.terminate()
        until("one to have all", lambda: len(one.assigned(app.trades)) == 2)
        one.until_ready()
        app.send(trade(symbol="S0", trade_id="last"))
        one.until_value("/v1/tables/counts/keys/S0", lambda found: found["value"]["count"] == 11)
        assert app.topics.count(rekey) == 501
