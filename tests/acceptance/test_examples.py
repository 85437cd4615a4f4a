"""The example of the README, run as the README says."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.kafka.topics import BUILTIN_TOPICS
from streamapp.records.models import Trade
from streamapp.settings import Settings

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = "example:README-USD"
READY_TIMEOUT_S = 90


async def produce(settings: Settings) -> None:
    await KafkaAdmin(settings).ensure_topics(BUILTIN_TOPICS(settings))
    producer = DurableProducer(settings, client_id="test-examples")
    await producer.start()
    try:
        trades = [
            Trade(
                venue="example",
                symbol="README-USD",
                price=price,
                size=11.0,
                side="buy",
                trade_id=str(number),
                sequence=number,
                event_time=1_790_000_040_000 + number,
                ingest_time=1_790_000_040_000 + number,
            )
            for number, price in enumerate((100.0, 103.0, 99.0, 101.0))
        ]
        await producer.send_all([OutMessage("trades", KEY.encode(), one.model_dump_json().encode()) for one in trades])
    finally:
        await producer.stop()


def read(url: str) -> Any:
    """What the worker answers; None while it does not, or has no such window yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def test_example_shows_the_candle_and_runs_its_agent(kafka: str, free_port: int, tmp_path: Path) -> None:
    asyncio.run(produce(Settings(kafka_brokers=kafka)))
    environment = {**os.environ, "STREAMAPP_KAFKA_BROKERS": kafka, "STREAMAPP_DATA_DIR": str(tmp_path / "state")}
    url = f"http://127.0.0.1:{free_port}/v1/tables/candles/keys/{KEY}?at=1790000040000"
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "faust", "-A", "prices", "worker", "-l", "info", "--web-port", str(free_port)],
            cwd=EXAMPLES,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        # the agent prints large trades
        while (answer := read(url)) is None or answer["value"]["count"] < 4 or "README-USD" not in log.read_text():
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, (answer, log.read_text()[-2000:])
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(60)
    assert {name: answer["value"][name] for name in ("open", "high", "low", "close", "count", "volume")} == {
        "open": 100.0,
        "high": 103.0,
        "low": 99.0,
        "close": 101.0,
        "count": 4,
        "volume": 44.0,
    }
