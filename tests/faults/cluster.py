"""Three brokers of a real Kafka, each a process that can be killed and started again by itself.

They share the jars and the Java of the embedded one. Every node is broker and controller, so that two of three go on.
"""

import base64
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from streamapp.local.jars import class_path
from streamapp.local.java import find_java
from streamapp.local.probe import KafkaProbe
from tests.fakes.ports import HOST, unused_port
from tests.fakes.processes import Child, until

_HEAP = ("-Xms96m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOG = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",)
_STOP_S = 10.0


class Broker(Child):
    """One node. `kill` takes the whole of it; `start` brings it back with what it had on its disk."""

    def __init__(self, number: int, folder: Path, command: Sequence[str], port: int) -> None:
        super().__init__(f"broker-{number}", command, folder)
        self.number = number
        self.port = port


class Cluster:
    """Brokers that replicate everything. Use it as a context.

    Args:
        folder: for data and logs.
        brokers: how many.
        host: where all of them listen.
        prefix: runs the brokers somewhere else, for example in a network namespace.
    """

    def __init__(self, folder: Path, brokers: int = 3, *, host: str = HOST, prefix: Sequence[str] = ()) -> None:
        self._folder = folder
        self._host = host
        self._prefix = list(prefix)
        self.brokers: list[Broker] = []
        ports = (
            [unused_port() for _ in range(2 * brokers)] if host == HOST else list(range(19_092, 19_092 + 2 * brokers))
        )
        voters = ",".join(f"{n}@{host}:{ports[brokers + n - 1]}" for n in range(1, brokers + 1))
        java = str(find_java().path)
        jars = ":".join(str(path) for path in class_path())
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        for number in range(1, brokers + 1):
            home = folder / f"broker-{number}"
            (home / "tmp").mkdir(parents=True)
            config = home / "server.properties"
            config.write_text(
                _properties(number, host, ports[number - 1], ports[brokers + number - 1], voters, home, brokers)
            )
            tool = [java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", jars]
            subprocess.run(
                [*tool, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", f"--config={config}"],
                check=True,
                capture_output=True,
                timeout=120,
            )
            scratch = f"-Djava.io.tmpdir={home / 'tmp'}"  # what a killed broker leaves goes with its home
            command = [*self._prefix, java, *_HEAP, *_LOG, scratch, "-cp", jars, "kafka.Kafka", str(config)]
            self.brokers.append(Broker(number, home, command, ports[number - 1]))

    @property
    def bootstrap(self) -> str:
        """`host:port` of all of them."""
        return ",".join(f"{self._host}:{broker.port}" for broker in self.brokers)

    def until_up(self, timeout_s: float = 120.0) -> None:
        """Wait until every node that runs is known to the cluster."""
        wanted = tuple(broker.number for broker in self.brokers if broker.running)
        probe = KafkaProbe({"bootstrap.servers": self.bootstrap})

        def all_there() -> bool:
            found = probe.ask(1.0)
            return found is not None and found.brokers == wanted

        logs = "".join(broker.log[-1_500:] for broker in self.brokers)
        until(f"brokers {wanted} to be there", all_there, timeout_s, logs)

    def __enter__(self) -> Self:
        for broker in self.brokers:
            broker.start()
        try:
            self.until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            if broker.running:
                broker.kill()


def _properties(number: int, host: str, port: int, controller_port: int, voters: str, home: Path, brokers: int) -> str:
    replicas, in_sync = str(brokers), str(max(1, brokers - 1))
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": voters,
        "listeners": f"CLIENT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"CLIENT://{host}:{port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(home / "data"),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # a dead broker is noticed, and its partitions led by another one, within seconds
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "controller.quorum.election.timeout.ms": "1000",
        "controller.quorum.fetch.timeout.ms": "2000",
        "replica.lag.time.max.ms": "4000",
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
        "num.network.threads": "2",
        "num.io.threads": "2",
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())
