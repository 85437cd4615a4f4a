"""Faults 5 and 6: workers cut off from the broker, and a network that delays, loses and reorders."""

import random
import time

import psutil

from streamapp.views.auth import new_token
from tests.faults.cluster import Cluster
from tests.faults.lab import Lab, fault
from tests.faults.network import Host, Network
from tests.faults.oracle import commits_ahead, steps_back_in_changelog
from tests.faults.tables import BURSTS, MINUTES, NEWEST, SYMBOLS
from tests.faults.watch import Feed
from tests.faults.world import FaultWorker, World, timed

SESSION_MS = 5_000
#: from the last healing until all is durable: time-outs of connections, a session, a restore, on a busy machine
CONVERGED_MAX_S = 90.0
GROWTH_MAX_BYTES = 160 << 20


def _on(host: Host, world: World, name: str, secret: tuple[str, str]) -> FaultWorker:
    """A worker that listens on this host."""
    token, entry = secret
    env = {"STREAMAPP_WEB_HOST": host.address, "STREAMAPP_API_TOKENS": entry}
    worker = world.worker(name, host=host.address, token=token, prefix=host.prefix, env=env)
    worker.set_env(STREAMAPP_WEB_ADVERTISED_URL=f"http://{host.address}:{worker.port}")
    return worker


@fault(5, "workers cut off from the broker, healed in another order", timeout_s=600)
def test_cut_off(lab: Lab) -> None:
    draw = random.Random(f"cut-{lab.seed}")
    secret = new_token("faults", ["read", "metrics"])
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)}
    with Network(lab.folder, 3) as network:
        kafka, *hosts = network.hosts
        with (
            Cluster(lab.folder / "kafka", 1, host=kafka.address, prefix=kafka.prefix) as cluster,
            lab.world(cluster.bootstrap, shapes=(MINUTES, BURSTS, SYMBOLS, NEWEST), env=env) as world,
        ):
            workers = [_on(host, world, f"worker-{number}", secret) for number, host in enumerate(hosts)]
            world.produce(2_000)
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.until_ready()
            restarts = 0
            with Feed(world, 60):
                for _ in range(2):
                    order = draw.sample(hosts, len(hosts))
                    for host in order:
                        host.cut()
                        time.sleep(draw.uniform(0.5, 1.6 * SESSION_MS / 1000))
                    for host in draw.sample(order, len(order)):
                        host.heal()
                        time.sleep(draw.uniform(0.0, 2.0))
                    for worker in workers:
                        if not worker.running:
                            restarts += 1
                            worker.start()
            ahead = commits_ahead(world.topics, world.app, world.source, world.shapes)

            def converge() -> None:
                for worker in workers:
                    if not worker.running:
                        worker.start()
                world.settle()
                world.owners()

            converged = timed(converge)
            world.figures.update(converged_s=converged, restarts=restarts)
            world.verify()
    assert not ahead, ahead
    assert converged < CONVERGED_MAX_S


@fault(6, "delay, loss and reordering on the worker's link", timeout_s=600)
def test_bad_link(lab: Lab) -> None:
    draw = random.Random(f"link-{lab.seed}")
    secret = new_token("faults", ["read", "metrics"])
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "15000"}
    with Network(lab.folder, 2, badly=True) as network:
        kafka, host = network.hosts
        with (
            Cluster(lab.folder / "kafka", 1, host=kafka.address, prefix=kafka.prefix) as cluster,
            lab.world(cluster.bootstrap, shapes=(MINUTES, BURSTS, NEWEST), env=env) as world,
        ):
            worker = _on(host, world, "worker", secret)
            world.produce(1_000)
            worker.start().until_ready()
            before = psutil.Process(worker.pid).memory_info().rss
            with Feed(world, 60):
                for _ in range(3):
                    host.serve_badly(
                        delay_ms=draw.uniform(1, 40),
                        jitter_ms=draw.uniform(0, 40),
                        loss=draw.uniform(0, 0.03),
                        reorder=draw.uniform(0, 0.1),
                    )
                    time.sleep(draw.uniform(2.0, 4.0))
            assert worker.running
            world.settle(240)
            grown = psutil.Process(worker.pid).memory_info().rss - before
            world.figures.update(grown_mib=grown >> 20, by="netem" if host.netem else "relay")
            host.serve_badly(delay_ms=0, jitter_ms=0, loss=0, reorder=0)
            world.verify()
            back = steps_back_in_changelog(world.topics, world.app, world.shapes)
    assert back == [], "order per key"
    assert grown < GROWTH_MAX_BYTES
