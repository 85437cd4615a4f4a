"""Around a bridge under test: clean topics, processes that end with the test, and what is on the topics afterwards."""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.topics import BUILTIN_TOPICS
from streamapp.settings import Settings

BUILTIN = ("trades", "quotes", "feed-status", "dead-letters")


class Stored(NamedTuple):
    """One record of a topic."""

    key: str
    value: dict[str, Any]
    partition: int
    offset: int


async def clean_topics(settings: Settings) -> None:
    """The built-in topics, empty."""
    admin = KafkaAdmin(settings)
    await admin.delete_topics(BUILTIN)
    await admin.ensure_topics(BUILTIN_TOPICS(settings))


def read_topic(brokers: str, topic: str) -> list[Stored]:
    """Everything on a topic; in order per partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    found: list[Stored] = []
    try:
        left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
        while left:
            for message in consumer.consume(5_000, 0.1):
                if message.error() is not None:
                    left.discard(message.partition())
                else:
                    value = json.loads(message.value())
                    found.append(Stored(message.key().decode(), value, message.partition(), message.offset()))
    finally:
        consumer.close()
    return found


async def read_topics(brokers: str) -> dict[str, list[Stored]]:
    """Everything on the built-in topics."""
    return {topic: await asyncio.to_thread(read_topic, brokers, topic) for topic in BUILTIN}


class Command:
    """A `streamapp` command as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, pattern: str) -> str:
        """The first group of the first line of output that matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while raw := await self.process.stdout.readline():
                if found := re.search(pattern, raw.decode()):
                    return found[1] if found.groups() else found[0]
        raise AssertionError(f"the command ended without a line like {pattern!r}")

    async def kill(self) -> None:
        """kill -9, and wait."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def command(*arguments: str, env: dict[str, str]) -> AsyncIterator[Command]:
    """Run `streamapp ARGUMENTS`; killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from streamapp.cli.main import run; run()",
        *arguments,
        env=env,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Command(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        transport = process._transport  # type: ignore[attr-defined]  # its pipe would be collected after the loop
        transport.close()
