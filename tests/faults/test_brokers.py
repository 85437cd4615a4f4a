"""Fault 2: kill -9 and restart of a broker, of three that replicate everything; and one that hangs."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator

from confluent_kafka.admin import AdminClient

from streamapp.errors import KafkaError
from tests.fakes.processes import until
from tests.faults.cluster import Cluster
from tests.faults.lab import Lab, fault
from tests.faults.oracle import commits_ahead
from tests.faults.tables import BURSTS, MINUTES, SYMBOLS
from tests.faults.watch import Feed
from tests.faults.world import FaultWorker, World, timed

KILLS = 3


@contextlib.contextmanager
def _replicated(lab: Lab, **env: str) -> Iterator[tuple[Cluster, World, FaultWorker]]:
    """Three brokers, and a worker that is ready, with some trades behind it."""
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "10000", "STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS": "5000", **env}
    with (
        Cluster(lab.folder / "kafka") as cluster,
        lab.world(cluster.bootstrap, partitions=3, replication=3, shapes=(MINUTES, BURSTS, SYMBOLS), env=env) as world,
    ):
        worker = world.worker()
        world.produce(1_000)
        worker.start().until_ready()
        yield cluster, world, worker


def _patiently(ask: Callable[[], list[str]]) -> list[str]:
    """The answer of a cluster that may still be choosing its leaders."""
    found: list[list[str]] = []

    def asked() -> bool:
        with contextlib.suppress(KafkaError):
            found.append(ask())
        return bool(found)

    until("the cluster to answer", asked)
    return found[0]


@fault(2, "kill -9 and restart of a broker, of three", timeout_s=600)
def test_broker_kills(lab: Lab) -> None:
    draw = random.Random(f"brokers-{lab.seed}")
    back, ahead = [], []
    with _replicated(lab) as (cluster, world, worker):
        with Feed(world, 60):
            for _ in range(KILLS):
                time.sleep(draw.uniform(0.5, 2.0))
                broker = draw.choice(cluster.brokers)
                broker.kill()
                time.sleep(draw.uniform(0.0, 4.0))
                broker.start()
                back.append(timed(cluster.until_up))
                ahead += _patiently(lambda: commits_ahead(world.topics, world.app, world.source, world.shapes))
                if not worker.running:
                    # loud, and nothing committed that is not durable: that is what the comparison shows
                    world.figures["worker_stopped"] = world.figures.get("worker_stopped", 0) + 1
                    worker.start().until_ready()
        if not worker.running:
            world.figures["worker_stopped"] = world.figures.get("worker_stopped", 0) + 1
            worker.start()
        world.settle()
        world.figures.update(kills=KILLS, broker_back_s=max(back))
        world.verify()
    assert not ahead, f"commits beyond the flushed changelog: {ahead}"


@fault(2, "the group's coordinator hangs: SIGSTOP, then SIGCONT", timeout_s=400)
def test_hung_broker(lab: Lab) -> None:
    draw = random.Random(f"hung-{lab.seed}")
    # a request that waits as long as a rebalance may take would be over after the checkpoint's time-out
    with _replicated(lab, STREAMAPP_FLUSH_TIMEOUT_MS="30000") as (cluster, world, worker):
        client = AdminClient({"bootstrap.servers": cluster.bootstrap})
        group = client.describe_consumer_groups([world.app])[world.app].result(30)
        hung = next(broker for broker in cluster.brokers if broker.number == group.coordinator.id)
        with Feed(world, 60):
            time.sleep(draw.uniform(0.5, 2.0))
            hung.signal(signal.SIGSTOP)
            time.sleep(draw.uniform(1.0, 4.0))
        try:
            world.settle()
            world.figures["settled_without_it_s"] = world.figures["settled_s"]
            assert worker.running, f"the worker ended by itself: {world.hint()}"
        finally:
            hung.signal(signal.SIGCONT)
        world.produce(1_000)
        world.settle()
        world.verify()
