"""Real child processes for tests: own ports, own folders, logs in files, every wait bounded and on a condition.

Nothing here outlives the test: a process ends by its pid when its context does, and by the kernel (on Linux) when the
test run itself is killed.
"""

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

from confluent_kafka import Consumer, Producer, TopicPartition

from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.topics import TopicSpec
from streamapp.settings import Settings
from tests.fakes.ports import HOST, unused_port

Answer = TypeVar("Answer")

#: generous: a loaded machine takes many times what an idle one does
WAIT_S = 120.0
_LOOK_EVERY_S = 0.02
_PR_SET_PDEATHSIG = 1
_LOG_TAIL = 4_000


def until(
    what: str,
    condition: Callable[[], Answer | None],
    timeout_s: float = WAIT_S,
    hint: Callable[[], str] = lambda: "",
) -> Answer:
    """The condition's first answer that is true; fails with what it was waited for, and with the hint as it is then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(_LOOK_EVERY_S)
    raise AssertionError(f"waited {timeout_s:.0f} s in vain for: {what}; {hint()}")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One process with its output in a file. Use it as a context: at its end the process is gone."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.log_file = folder / f"{name}.log"
        self._command = list(command)
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", "STREAMAPP_CONFIG": os.devnull, **(env or {})}
        self._cwd = cwd or folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, or start it again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=self._env,
                preexec_fn=_die_with_parent,
            )
        return self

    def set_env(self, **values: str | None) -> None:
        """Change the environment of its next life; None takes a name out of it."""
        for name, value in values.items():
            if value is None:
                self._env.pop(name, None)
            else:
                self._env[name] = value

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() first"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended_with(self) -> str:
        """How its last life ended."""
        code = None if self._process is None else self._process.poll()
        if code is None or code >= 0:
            return "it runs" if code is None else f"exit code {code}"
        return f"signal {signal.Signals(-code).name}"

    @property
    def log(self) -> str:
        """All that it has said, in all its lives."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def last_words(self) -> str:
        """Why it failed, where it says so, and the end of what it has said."""
        log = self.log
        begin = log.rfind("[CRITICAL] stopping")
        why = log[max(begin, 0) : begin + _LOG_TAIL] + "\n...\n" if 0 <= begin < len(log) - _LOG_TAIL else ""
        return why + log[-_LOG_TAIL:]

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(WAIT_S)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout_s:.0f} s: {self.last_words}") from None

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def line(self, pattern: str) -> str:
        """The first group of the first match in its log, awaited."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.log, re.MULTILINE)
            if match is None and not self.running:
                raise AssertionError(f"{self.name} ended without {pattern!r}: {self.last_words}")
            return match

        match = until(f"{pattern!r} of {self.name}", found)
        return match[1] if match.groups() else match[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


class Worker(Child):
    """A worker, started as users do, with an HTTP client.

    Args:
        folder: its data directory and log live under it.
        module: what `faust -A` gets.
        name: tells several workers of one folder apart.
        cwd: where the user's module is.

    Attributes:
        headers: sent with every request.
    """

    def __init__(
        self,
        brokers: str,
        folder: Path,
        *,
        module: str = "streamapp.worker",
        name: str = "worker",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.port = unused_port()
        self.data_dir = folder / f"{name}-data"
        own = {
            "STREAMAPP_KAFKA_BROKERS": brokers,
            "STREAMAPP_DATA_DIR": str(self.data_dir),
            "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "6000",
        }
        super().__init__(
            name,
            [*(sys.executable, "-m", "faust", "-A", module, "worker", "-l", "info"), "--web-port", str(self.port)],
            folder,
            {**own, **(env or {})},
            cwd,
        )
        self.headers: dict[str, str] = {}
        self._http: http.client.HTTPConnection | None = None

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self._http is not None:
            self._http.close()

    def lose_disk(self) -> None:
        """Delete all local state; only while it is not running."""
        assert not self.running
        shutil.rmtree(self.data_dir, ignore_errors=True)

    # --- asking ------------------------------------------------------------------------------------------------------

    def ask(self, path: str, **parameters: object) -> tuple[int, Any]:
        """Status and JSON of a GET (text where it is no JSON); OSError while nobody answers."""
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        target = path + ("?" + query if query else "")
        for attempt in (1, 2):
            connection = self._http
            if connection is None:
                connection = self._http = http.client.HTTPConnection(HOST, self.port, timeout=30)
            try:
                connection.request("GET", target, headers=self.headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as problem:
                connection.close()
                self._http = None
                # a kept connection may belong to the life before
                if attempt == 2:
                    raise OSError(str(problem)) from problem
                continue
            kind = answer.getheader("Content-Type", "")
            return answer.status, json.loads(body) if "json" in kind else body.decode()
        raise AssertionError("unreachable")

    def get(self, path: str, **parameters: object) -> Any:
        """The JSON of a GET that must succeed."""
        status, document = self.ask(path, **parameters)
        assert status == 200, f"{path}: {status} {document}"
        return document

    def try_get(self, path: str, **parameters: object) -> Any:
        """The JSON of a GET, None where it does not succeed (yet)."""
        try:
            status, document = self.ask(path, **parameters)
        except OSError:
            return None
        return document if status == 200 else None

    def assigned(self, topic: str) -> list[int]:
        """The partitions that it says it has; none while it does not answer."""
        document = self.try_get("/v1/status")
        return document["worker"]["assigned"].get(topic, []) if document else []

    def until_ready(self) -> Self:
        """Wait for readiness."""

        def ready() -> bool:
            if not self.running:
                raise AssertionError(f"{self.name} ended: {self.last_words}")
            return self.try_get("/health/ready") is not None

        until(f"{self.name} to be ready", ready, hint=lambda: self.last_words)
        return self

    def until_value(self, path: str, is_wanted: Callable[[Any], bool]) -> Any:
        """Wait for an answer that is as wanted."""
        seen: list[Any] = [None]

        def wanted() -> Any:
            seen[0] = self.try_get(path)
            return seen[0] if seen[0] is not None and is_wanted(seen[0]) else None

        try:
            return until(f"{path} to be as wanted", wanted)
        except AssertionError as problem:
            raise AssertionError(f"{problem}; last {seen[0]}; {self.last_words}") from None

    @property
    def applied(self) -> int:
        """Records merged in this life, over all tables; 0 while it does not answer."""
        document = self.try_get("/v1/status")
        return int(document["worker"]["records_applied"]) if document else 0

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all samples that have these labels; 0 where there is none."""
        total = 0.0
        for line in str(self.get("/metrics")).splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found is not None:
                have = dict(re.findall(r'(\w+)="([^"]*)"', found[1] or ""))
                if labels.items() <= have.items():
                    total += float(found[2])
        return total

    def keys(self, table: str) -> list[str]:
        """All keys of a table, page by page."""
        return list(self._pages(f"/v1/tables/{table}/keys", limit=7))

    def windows(self, table: str, key: str, limit: int = 500) -> list[dict[str, Any]]:
        """All windows of a key, page by page."""
        return list(self._pages(f"/v1/tables/{table}/keys/{quote(key, safe=':')}/windows", limit=limit))

    def _pages(self, path: str, limit: int) -> Iterator[Any]:
        cursor = None
        while True:
            page = self.get(path, limit=limit, cursor=cursor)
            assert not page["missing_partitions"], page["missing_partitions"]
            yield from page["items"]
            cursor = page["cursor"]
            if cursor is None:
                return


class Streamapp(Child):
    """A `streamapp` command."""

    def __init__(self, name: str, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__(name, [sys.executable, "-m", "streamapp", *arguments], folder, env)


# --- Kafka -----------------------------------------------------------------------------------------------------------


class Topics:
    """What a test does with Kafka itself."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self.settings = Settings(kafka_brokers=brokers)
        self.admin = KafkaAdmin(self.settings)

    def create(self, *specs: TopicSpec) -> None:
        asyncio.run(self.admin.ensure_topics(specs))

    def delete(self, *names: str) -> None:
        asyncio.run(self.admin.delete_topics(names))

    def partitions(self, topic: str) -> int:
        """How many there are; 0 where the topic does not exist."""
        found = asyncio.run(self.admin.describe_topics([topic], with_config=False))[topic]
        return 0 if found is None else found.partitions

    def places(self, topics: Iterable[str]) -> list[tuple[str, int]]:
        return [(topic, partition) for topic in topics for partition in range(self.partitions(topic))]

    def ends(self, *topics: str) -> dict[tuple[str, int], int]:
        return asyncio.run(self.admin.end_offsets(self.places(topics)))

    def committed(self, group: str, *topics: str) -> dict[tuple[str, int], int]:
        found = asyncio.run(self.admin.committed(group, self.places(topics)))
        return {place: offset or 0 for place, offset in found.items()}

    def members(self, group: str) -> int:
        """How many members a group has."""
        return asyncio.run(self.admin.group_members(group))

    def until_drained(self, group: str, *topics: str, hint: Callable[[], str] = lambda: "") -> None:
        """Wait until the group has committed all of these topics, so that all of it is durable."""
        until(
            f"{group} to commit all of {', '.join(topics)}",
            lambda: self.committed(group, *topics) == self.ends(*topics),
            hint=hint,
        )

    def produce(
        self, topic: str, records: Iterable[tuple[str | bytes | None, bytes | None]], partition: int | None = None
    ) -> None:
        """Append records in order, acknowledged when this returns."""
        problems: list[object] = []
        producer = Producer(
            {
                "bootstrap.servers": self.brokers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "message.max.bytes": 8 << 20,
                "queue.buffering.max.messages": 1_000_000,
            }
        )

        def delivered(problem: object, message: object) -> None:
            if problem is not None:
                problems.append(problem)

        where = {} if partition is None else {"partition": partition}
        for key, value in records:
            producer.produce(topic, value, key, on_delivery=delivered, **where)
            producer.poll(0)
        assert producer.flush(WAIT_S) == 0, "Kafka did not acknowledge everything"
        assert not problems, problems[:3]

    def read(self, topic: str) -> list[Any]:
        """Every message of a topic, in order per partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": "tests",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "fetch.message.max.bytes": 8 << 20,
            }
        )
        found: list[Any] = []
        try:
            left = {partition for _, partition in self.places([topic])}
            consumer.assign([TopicPartition(topic, partition, 0) for partition in sorted(left)])
            deadline = time.monotonic() + WAIT_S
            while left:
                assert time.monotonic() < deadline, f"{topic} could not be read to its end"
                for message in consumer.consume(5_000, 0.1):
                    if message.error() is not None:
                        left.discard(message.partition())
                    else:
                        found.append(message)
        finally:
            consumer.close()
        return found

    def count(self, topic: str) -> int:
        """How many records of a topic have a value; the markers of a re-key topic have none."""
        return sum(message.value() is not None for message in self.read(topic))

    def values(self, topic: str) -> list[dict[str, Any]]:
        """The JSON values of a topic, in order per partition; none where the topic does not exist."""
        return [json.loads(message.value()) for message in self.read(topic)] if self.partitions(topic) else []

    def letters(self, topic: str) -> list[dict[str, Any]]:
        """The dead letters of a topic's records."""
        return [letter for letter in self.values("dead-letters") if letter["topic"] == topic]


@contextlib.contextmanager
def started(*children: Child) -> Iterator[None]:
    """All of them, for as long as the context lasts."""
    with contextlib.ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        yield
