"""The embedded broker's life: it starts, keeps what it should, and never outlives who wanted it."""

import asyncio
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.errors import EmbeddedKafkaError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.kafka.topics import TopicSpec
from streamapp.local.broker import EmbeddedKafka
from streamapp.local.probe import listens
from streamapp.settings import Settings

pytestmark = pytest.mark.integration

RUN = "from streamapp.cli.main import run; run()"


def start_command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "kafka", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def line_with(process, word):
    """The first line of output that holds the word; fails when the process ends or stays silent."""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if ready else ""
        assert line, f"no line with {word!r}; exit code {process.poll()}"
        if word in line:
            return line


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


async def until(condition, what, limit_s=20.0):
    async with asyncio.timeout(limit_s):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert condition(), what


async def test_embedded_kafka_keeps_records_between_runs(tmp_path):
    topic = TopicSpec("kept", 1)
    async with EmbeddedKafka(data_dir=tmp_path) as broker:
        settings = Settings(kafka_brokers=broker.bootstrap)
        await KafkaAdmin(settings).ensure_topics([topic])
        producer = DurableProducer(settings, client_id="test")
        await producer.start()
        assert await producer.send_all([OutMessage("kept", b"k", b"v")] * 10) == list(range(10))
        await producer.stop(10)
        cluster = broker.cluster_id
        assert broker.running
    assert not broker.running
    async with EmbeddedKafka(data_dir=tmp_path) as broker:
        admin = KafkaAdmin(Settings(kafka_brokers=broker.bootstrap))
        assert broker.cluster_id == cluster == await admin.cluster_id()
        assert await admin.end_offsets([("kept", 0)]) == {("kept", 0): 10}
    assert (tmp_path / "kafka.log").stat().st_size > 0


async def test_embedded_kafka_uses_one_that_is_there_and_leaves_it(kafka):
    port = int(kafka.rpartition(":")[2])
    second = EmbeddedKafka(port=port)
    await second.start()
    assert second.reused
    assert second.running
    assert second.bootstrap == f"127.0.0.1:{port}"
    assert second.cluster_id == await KafkaAdmin(Settings(kafka_brokers=kafka)).cluster_id()
    await second.stop()
    assert listens(port)


def test_embedded_kafka_says_that_its_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedKafkaError, match=rf"port {port}.*does not answer as Kafka"):
            EmbeddedKafka(port=port).start_blocking()


def test_embedded_kafka_says_why_it_ended(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    broker = EmbeddedKafka(data_dir=tmp_path)
    with pytest.raises(EmbeddedKafkaError, match=r"ended with code 1.*node id 77"):
        broker.start_blocking()
    assert not broker.running


def test_command_stops_cleanly_and_leaves_nothing(free_port):
    process = start_command("--port", str(free_port))
    try:
        line = line_with(process, "ready")
        assert f"127.0.0.1:{free_port}" in line
        home = Path(line.split("log: ")[1].rstrip(")\n")).parent
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not listens(free_port)
        assert not home.exists()
    finally:
        end(process)


async def test_command_killed_leaves_no_broker_and_no_data(free_port):
    process = await asyncio.to_thread(start_command, "--port", str(free_port))
    try:
        line = await asyncio.to_thread(line_with, process, "ready")
        home = Path(line.split("log: ")[1].rstrip(")\n")).parent
        process.kill()
        await until(lambda: not listens(free_port), "the broker is gone")
        await until(lambda: not home.exists(), "its temporary data is gone")
    finally:
        end(process)


def test_command_waits_beside_a_kafka_that_is_there(kafka):
    process = start_command("--port", kafka.rpartition(":")[2])
    try:
        assert "already answers" in line_with(process, kafka)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert listens(int(kafka.rpartition(":")[2]))
    finally:
        end(process)


def test_command_on_a_taken_port_fails_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = subprocess.run(
            [sys.executable, "-c", RUN, "kafka", "--port", str(port)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert answer.returncode == 1
    assert f"port {port}" in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr
