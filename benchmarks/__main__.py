"""Worker events/s, point reads and bridge frames/s on an embedded Kafka; prints a table and writes JSON.

The rates of aiokafka alone, measured in the same run on the same topic, put them into proportion: a shared or busy machine
moves both.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.feed import produce_trades
from benchmarks.machine import describe
from benchmarks.reads import measure_reads
from streamapp.cli.processes import ChildProcess
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.topics import BUILTIN_TOPICS
from streamapp.local.broker import EmbeddedKafka
from streamapp.settings import Settings

_START_TIMEOUT_S = 120.0
_RUN_TIMEOUT_S = 600.0


async def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000, help="trades for the worker")
    parser.add_argument("--frames", type=int, default=500_000, help="trades for the bridge")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/result.json"))
    options = parser.parse_args()
    results: dict[str, object] = {"machine": describe()}
    with tempfile.TemporaryDirectory(prefix="streamapp-bench-") as folder:
        kafka = EmbeddedKafka()
        await kafka.start()
        try:
            results["bridge"] = await _bridge(kafka.bootstrap, Path(folder), options.frames)
            print("bridge:", json.dumps(results["bridge"]), flush=True)
            await _fresh_trades(kafka.bootstrap)
            settings = Settings(kafka_brokers=kafka.bootstrap)
            await asyncio.to_thread(produce_trades, settings, options.events)
            results["aiokafka_alone"] = await _consume_only(kafka.bootstrap, options.events)
            print("aiokafka alone:", json.dumps(results["aiokafka_alone"]), flush=True)
            results["worker"] = await _worker(kafka.bootstrap, Path(folder), options.events)
        finally:
            await kafka.stop()
    print("worker:", json.dumps(results["worker"]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


async def _fresh_trades(brokers: str) -> None:
    settings = Settings(kafka_brokers=brokers)
    admin = KafkaAdmin(settings)
    await admin.delete_topics(["trades"])
    await admin.ensure_topics(BUILTIN_TOPICS(settings))


async def _consume_only(brokers: str, events: int) -> dict[str, float]:
    """What the consumer library delivers when nothing is done with the records."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", max_poll_records=20_000)
    await consumer.start()
    try:
        places = [
            TopicPartition("trades", partition) for partition in sorted(consumer.partitions_for_topic("trades") or ())
        ]
        if not places:
            await consumer.topics()
            places = [TopicPartition("trades", partition) for partition in range(Settings().partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        seen, begin = 0, 0.0
        async with asyncio.timeout(_RUN_TIMEOUT_S):
            while seen < events:
                batches = await consumer.getmany(timeout_ms=1_000)
                begin = begin or time.perf_counter()
                seen += sum(map(len, batches.values()))
        return {"records_per_s": round(seen / (time.perf_counter() - begin))}
    finally:
        await consumer.stop()


async def _worker(brokers: str, folder: Path, events: int) -> dict[str, object]:
    """The built-in application (six tables) over the whole topic, then its reads."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    worker = ChildProcess(
        "worker",
        [sys.executable, "-m", "faust", "-A", "streamapp.worker", "worker", "-l", "warn", "--web-port", str(port)],
        folder,
        {**os.environ, "STREAMAPP_KAFKA_BROKERS": brokers, "STREAMAPP_DATA_DIR": str(folder / "state")},
    )
    await worker.start()
    try:
        async with aiohttp.ClientSession() as session:
            applied = await _until_applied(session, url, 1)
            begin, before, cpu = time.perf_counter(), applied, _cpu_seconds(worker)
            applied = await _until_applied(session, url, events)
            elapsed = time.perf_counter() - begin
            used = _cpu_seconds(worker) - cpu
            async with session.get(f"{url}/v1/tables/candles_1m/keys?limit=100") as answer:
                keys = (await answer.json())["items"]
        reads = await measure_reads(url, keys)
        return {
            "events_per_s": round((applied - before) / elapsed) if applied > before else None,
            "events_per_cpu_s": round((applied - before) / used) if used else None,
            "tables": 6,
            "point_reads_idle": reads,
        }
    finally:
        await worker.stop()


async def _bridge(brokers: str, folder: Path, frames: int) -> dict[str, object]:
    """Simulator at full speed -> bridge -> acknowledged in Kafka."""
    await _fresh_trades(brokers)
    port, metrics = _free_port(), _free_port()
    environment = {**os.environ, "STREAMAPP_KAFKA_BROKERS": brokers}
    simulator = ChildProcess(
        "simulator",
        [
            sys.executable,
            "-m",
            "streamapp",
            "simulate",
            "--venue",
            "coinbase",
            "--port",
            str(port),
            *f"--rate 0 --symbols 50 --seed 1 --events {frames}".split(),
        ],
        folder,
        environment,
    )
    bridge = ChildProcess(
        "bridge",
        [
            sys.executable,
            "-m",
            "streamapp",
            "bridge",
            "--feed",
            "coinbase",
            "--url",
            f"ws://127.0.0.1:{port}",
            *f"--metrics-port {metrics}".split(),
        ],
        folder,
        environment,
    )
    await simulator.start()
    await bridge.start()
    url = f"http://127.0.0.1:{metrics}/metrics"
    pattern = re.compile(r'streamapp_bridge_records_total\{topic="trades",venue="coinbase"\} (\S+)')
    try:
        async with aiohttp.ClientSession() as session:
            first = await _until_metric(session, url, pattern, 1)
            begin = time.perf_counter()
            last = await _until_metric(session, url, pattern, frames)
            elapsed = time.perf_counter() - begin
        return {"acknowledged_trades_per_s": round((last - first) / elapsed)}
    finally:
        await bridge.stop()
        await simulator.stop()


async def _until_applied(session: aiohttp.ClientSession, url: str, least: int) -> int:
    pattern = re.compile(r'streamapp_records_applied_total\{table="candles_1m"\} (\S+)')
    return await _until_metric(session, f"{url}/metrics", pattern, least)


async def _until_metric(session: aiohttp.ClientSession, url: str, pattern: "re.Pattern[str]", least: int) -> int:
    """Wait until a counter reaches a value; its reading then."""
    async with asyncio.timeout(_RUN_TIMEOUT_S):
        while True:
            try:
                async with session.get(url) as answer:
                    found = pattern.search(await answer.text())
                    if found is not None and float(found[1]) >= least:
                        return int(float(found[1]))
            except aiohttp.ClientError:
                pass  # not listening yet
            await asyncio.sleep(0.1)


def _cpu_seconds(worker: ChildProcess) -> float:
    """User and system time of the worker so far."""
    times = [child.cpu_times() for child in psutil.Process(worker.pid).children(recursive=True)]
    return sum(used.user + used.system for used in times)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    asyncio.run(main())
