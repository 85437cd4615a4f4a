"""One application under fault: its topics, what is produced for it, its workers, and the verdict over it."""

import contextlib
import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from confluent_kafka import Producer

from streamapp.engine.rekeying import MARKER, ORIGIN
from streamapp.errors import KafkaError
from streamapp.kafka.topics import TopicSpec
from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.settings import Settings
from tests.fakes.ports import HOST
from tests.fakes.processes import Topics, Worker, until
from tests.faults.events import Trades
from tests.faults.nursery import Nursery
from tests.faults.oracle import Comparison, Oracle
from tests.faults.tables import SHAPES, Shape

ROOT = Path(__file__).parents[2]
#: quick to declare a silent worker dead, small batches and frequent checkpoints: faults fall into more phases
QUICK = {
    "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "3000",
    "STREAMAPP_POLL_MAX_RECORDS": "500",
    "STREAMAPP_COMMIT_INTERVAL_MS": "50",
}


class FaultWorker(Worker):
    """A worker that can be asked for what it holds itself, wherever it listens.

    Args:
        host: where it listens.
        token: shown with every request, where the worker wants one.
        prefix: runs its command somewhere else, for example in a network namespace.
        nursery: forks it, instead of a start from nothing.
    """

    def __init__(
        self,
        brokers: str,
        folder: Path,
        *,
        name: str,
        env: Mapping[str, str],
        host: str = HOST,
        token: str | None = None,
        prefix: Sequence[str] = (),
        nursery: Nursery | None = None,
    ) -> None:
        super().__init__(
            brokers,
            folder,
            module="tests.faults.application",
            name=name,
            env={"PYTHONPATH": str(ROOT), **QUICK, **env},
        )
        self.app = env["FAULTS_APP"]
        self._command = [*prefix, *self._command]
        self._host = host
        self._nursery = nursery
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._hop = {HOP_HEADER: hop_token(Settings(api_tokens=env.get("STREAMAPP_API_TOKENS", "")))}

    def start(self) -> Self:
        """Start it, or start it again."""
        if self._nursery is None:
            return super().start()
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = self._command[self._command.index("faust") + 1 :]
        started = self._nursery.start(arguments, self._env, self.log_file, self._cwd)
        self._process = started  # type: ignore[assignment]
        return self

    @property
    def tables_dir(self) -> Path:
        """Where its stores are."""
        return self.data_dir / self.app / f"worker-{self.port}" / "tables"

    def ask(self, path: str, **parameters: object) -> tuple[int, Any]:
        """As of any worker, with the token."""
        return self.ask_with(path, parameters, self._headers)

    def ask_here(self, path: str, timeout_s: float = 5.0) -> tuple[int, Any]:
        """Status and JSON of a read that this worker must answer itself or refuse."""
        return self.ask_with(path, {}, self._hop, timeout_s)

    def ask_with(
        self, path: str, parameters: Mapping[str, object], headers: Mapping[str, str], timeout_s: float = 30.0
    ) -> tuple[int, Any]:
        """Status and JSON of a GET; OSError while nobody answers."""
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        connection = http.client.HTTPConnection(self._host, self.port, timeout=timeout_s)
        try:
            connection.request("GET", path + ("?" + query if query else ""), headers=dict(headers))
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as problem:
            raise OSError(str(problem)) from problem
        finally:
            connection.close()
        kind = answer.getheader("Content-Type", "")
        return answer.status, json.loads(body) if "json" in kind else body.decode()


class World:
    """One application under fault.

    Args:
        brokers: the cluster.
        folder: for data directories and logs.
        seed: decides the trades.
        shapes: the tables that are declared.
        partitions, replication: of the source topic.
        env: for every worker.
        trades: what is produced; default: from the seed.
    """

    def __init__(
        self,
        brokers: str,
        folder: Path,
        seed: int,
        *,
        shapes: Sequence[Shape] = SHAPES,
        partitions: int = 4,
        replication: int = 1,
        env: Mapping[str, str] | None = None,
        trades: Trades | None = None,
    ) -> None:
        self.topics = Topics(brokers)
        self.folder = folder
        self.seed = seed
        self.app = f"faults-{uuid.uuid4().hex[:8]}"
        self.source = f"{self.app}-trades"
        self.shapes = shapes
        self.trades = trades or Trades(seed)
        self.events = 0
        self.bad: dict[bytes, str] = {}  # values that must become dead letters -> the reason
        self.comparison = Comparison()
        self.figures: dict[str, Any] = {}
        self.workers: list[FaultWorker] = []
        self._producer: Producer | None = None
        self._partitions = partitions
        self._replication = replication
        self._env = {
            "FAULTS_APP": self.app,
            "FAULTS_TOPIC": self.source,
            "FAULTS_TABLES": ",".join(shape.name for shape in shapes),
            "STREAMAPP_PARTITIONS": str(partitions),
            "STREAMAPP_REPLICATION_FACTOR": str(replication),
            "STREAMAPP_REKEY_MARKER_INTERVAL_MS": "50",
            **(env or {}),
        }

    def __enter__(self) -> Self:
        self.topics.create(
            TopicSpec(
                self.source,
                self._partitions,
                self._replication,
                retention_ms=-1,
                config={"max.message.bytes": str(4 << 20)},
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.__exit__()
        with contextlib.suppress(Exception):
            self.topics.delete(*self._own_topics())

    def _own_topics(self) -> list[str]:
        kinds = ("changelog", "late", "final", "rekey")
        names = [f"{self.app}-{shape.name}-{kind}" for shape in self.shapes for kind in kinds]
        return [self.source, *(name for name in names if self.topics.partitions(name))]

    # --- workers -----------------------------------------------------------------------------------------------------

    def worker(self, name: str = "worker", **options: Any) -> FaultWorker:
        """A worker of the application; not started yet, gone at the end."""
        env = {**self._env, **options.pop("env", {})}
        brokers = options.pop("brokers", self.topics.brokers)
        worker = FaultWorker(brokers, self.folder, name=name, env=env, **options)
        self.workers.append(worker)
        return worker

    def live(self) -> list[FaultWorker]:
        """The workers that run."""
        return [worker for worker in self.workers if worker.running]

    def hint(self) -> str:
        """The ends of the workers' logs, for a message."""
        return "".join(f"\n--- {worker.name}: {worker.last_words}" for worker in self.workers)

    # --- producing -------------------------------------------------------------------------------------------------------

    def produce(self, count: int) -> None:
        """The next trades, acknowledged when this returns."""
        self.send(self.trades.take(count))

    def send(self, records: Iterable[tuple[str | bytes | None, bytes | None]], timeout_s: float = 120.0) -> None:
        """These records in this order, acknowledged when this returns."""
        if self._producer is None:
            self._producer = Producer(
                {
                    "bootstrap.servers": self.topics.brokers,
                    "enable.idempotence": True,
                    "acks": "all",
                    "linger.ms": 2,
                    "partitioner": "murmur2_random",
                    "message.max.bytes": 4 << 20,
                    "delivery.timeout.ms": int(timeout_s * 1000),
                    "socket.timeout.ms": 10_000,  # a broker that hangs holds it up no longer than that
                    "log_level": 2,
                }
            )
        producer = self._producer
        problems: list[object] = []
        count = 0

        def delivered(problem: object, message: object) -> None:
            if problem is not None:
                problems.append(problem)

        for key, value in records:
            producer.produce(self.source, value, key, on_delivery=delivered)
            count += 1
        assert producer.flush(timeout_s) == 0, "Kafka did not acknowledge everything"
        assert not problems, problems[:3]
        self.events += count

    def send_bad(self, reason: str, key: str | bytes | None, value: bytes | None) -> None:
        """A record that tables must refuse for this reason."""
        self.bad[value if value is not None else b""] = reason
        self.send([(key, value)])

    # --- the verdict -----------------------------------------------------------------------------------------------------

    def settle(self, timeout_s: float = 120.0) -> None:
        """The quiet period: until everything that was produced is durable and committed, and the live workers are ready."""
        rekeyed = [f"{self.app}-{shape.name}-rekey" for shape in self.shapes if shape.by_symbol]
        began = time.monotonic()
        self._until_drained(self.source, timeout_s)
        for topic in rekeyed:
            until(
                f"all partitions of {topic} to be told of",
                lambda topic=topic: self._is_told(topic),
                timeout_s,
                self.hint,
            )
            self._until_drained(topic, timeout_s)
        for worker in self.live():
            worker.until_ready()
        self.figures["settled_s"] = round(time.monotonic() - began, 1)

    def _is_told(self, topic: str) -> bool:
        """Whether every partition of a re-key topic knows how far each source partition has come, by records or markers."""
        told: dict[int, dict[int, int]] = {}
        for message in self.topics.read(topic):
            name, value = message.headers()[0]
            layout = ORIGIN if name == "streamapp-origin" else MARKER
            fields = layout.unpack(value)
            origin, stream_time = fields[0], fields[4 if layout is ORIGIN else 2]
            known = told.setdefault(origin, {})
            known[message.partition()] = max(stream_time, known.get(message.partition(), -1))
        return all(len(known) == self._partitions and len(set(known.values())) == 1 for known in told.values())

    def _until_drained(self, topic: str, timeout_s: float) -> None:
        def drained() -> bool:
            if not self.live():
                raise AssertionError(f"no worker is running: {self.hint()}")
            try:
                return self.topics.committed(self.app, topic) == self.topics.ends(topic)
            except KafkaError:
                return False  # brokers that come back take their time

        until(f"all of {topic} to be committed", drained, timeout_s, self.hint)

    def owners(self) -> dict[str, dict[int, FaultWorker]]:
        """Table -> partition -> the one worker that has it; fails where there are two, or none."""
        rekey = {shape.name: f"{self.app}-{shape.name}-rekey" for shape in self.shapes if shape.by_symbol}

        def found() -> dict[str, dict[int, FaultWorker]] | None:
            held = {worker.name: worker.try_get("/v1/status") for worker in self.live()}
            if any(document is None for document in held.values()):
                return None
            owners: dict[str, dict[int, FaultWorker]] = {}
            for shape in self.shapes:
                topic = rekey.get(shape.name, self.source)
                mine = owners[shape.name] = {}
                for worker in self.live():
                    for partition in held[worker.name]["worker"]["assigned"].get(topic, []):
                        if partition in mine:
                            return None
                        mine[partition] = worker
                if len(mine) != self._partitions:
                    return None
            return owners

        return until("each partition to have exactly one owner", found, hint=self.hint)

    def verify(self, *, views: bool = True) -> Comparison:
        """Compare all four ways and the outputs; ends the workers. Fails with what differs."""
        oracle = Oracle(self.topics, self.app, self.source, self.shapes)
        oracle.read_source(self.bad)
        comparison = self.comparison = oracle.comparison
        if oracle.stored < self.events:
            comparison.differing.append(f"{self.events} records were acknowledged, {oracle.stored} are on the topic")
        owners = self.owners()
        if views:
            oracle.compare_views(self.live())
        for worker in self.live():
            worker.kill()
        for shape in self.shapes:
            oracle.compare_disk(shape, {part: worker.tables_dir for part, worker in owners[shape.name].items()})
        oracle.compare_changelog()
        oracle.compare_finals()
        oracle.compare_late()
        oracle.compare_letters()
        assert not comparison.differing, f"seed {self.seed}: {comparison}{self.hint()}"
        assert comparison.total > 0
        return comparison


def timed(action: Callable[[], object]) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    action()
    return round(time.monotonic() - began, 2)
