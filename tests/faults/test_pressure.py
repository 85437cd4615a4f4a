"""Fault 8: an agent that stalls, and a broker that is slow to take what is written."""

import random
import re
import signal
import time

import psutil

from streamapp.engine.feeder import FEEDER_MAX_RECORDS
from tests.fakes.processes import until
from tests.faults.cluster import Cluster
from tests.faults.lab import Lab, fault
from tests.faults.tables import BURSTS, MINUTES, NEWEST
from tests.faults.watch import Feed
from tests.faults.world import FaultWorker

SESSION_MS = 3_000
#: more than what may wait for an agent of one partition, and one fetch (1 MiB, compressed) on top
WAITING = 4 * FEEDER_MAX_RECORDS
GROWTH_MAX_BYTES = 160 << 20


def _joins(worker: FaultWorker) -> int:
    return len(re.findall(r"\(Re-\)joining group", worker.log))


def _lag(worker: FaultWorker, topic: str) -> int:
    return int(worker.get("/v1/status")["worker"]["lag"][topic])


@fault(8, "a stalled agent on the source of the tables")
def test_stalled_agent(lab: Lab) -> None:
    draw = random.Random(f"stalled-{lab.seed}")
    stalls = lab.folder / "stalls"
    env = {"FAULTS_STALL_FILE": str(stalls), "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)}
    with lab.world(partitions=1, shapes=(MINUTES, NEWEST), env=env) as world:
        worker = world.worker()
        world.produce(draw.randrange(500, 1_500))
        worker.start().until_ready()
        world.settle()
        memory = psutil.Process(worker.pid)
        before, joins = memory.memory_info().rss, _joins(worker)
        stalls.touch()
        world.produce(WAITING)
        seen = [-1, 0]

        def still() -> bool:
            """Nothing is applied any more for a while longer than a session."""
            applied = worker.applied
            if applied != seen[0]:
                seen[:] = applied, int(time.monotonic() * 1000)
            return int(time.monotonic() * 1000) - seen[1] > SESSION_MS + 1_000

        until("fetching to stop", still, hint=world.hint)
        assert worker.running
        grown = memory.memory_info().rss - before
        keys = worker.keys("newest")
        counted = sum(worker.get(f"/v1/tables/newest/keys/{key}")["value"]["count"] for key in keys)
        told, true = _lag(worker, world.source), world.events - counted
        left = _joins(worker) - joins
        committed = sum(world.topics.committed(world.app, world.source).values())
        stalls.unlink()
        world.settle()
        world.figures.update(lag_told=told, lag_true=true, grown_mib=grown >> 20)
        world.verify()
    assert told == true > 0, "the lag is what has not been applied"
    assert committed < world.events, "what the agent has not done is not committed"
    assert left == 0, "a stalled agent is no reason to leave the group"
    assert grown < GROWTH_MAX_BYTES


@fault(8, "a broker that takes nothing for a while")
def test_slow_broker(lab: Lab) -> None:
    draw = random.Random(f"slow-{lab.seed}")
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "15000", "STREAMAPP_BATCH_QUEUE_MAX_RECORDS": "2000"}
    with (
        Cluster(lab.folder / "kafka", 1) as cluster,
        lab.world(cluster.bootstrap, shapes=(MINUTES, BURSTS, NEWEST), env=env) as world,
    ):
        worker = world.worker()
        world.produce(2_000)
        worker.start().until_ready()
        before, joins = psutil.Process(worker.pid).memory_info().rss, _joins(worker)
        with Feed(world, 100):
            for _ in range(3):
                time.sleep(draw.uniform(0.3, 1.0))
                cluster.brokers[0].signal(signal.SIGSTOP)
                try:
                    time.sleep(draw.uniform(1.0, 4.0))
                    assert worker.running
                    assert worker.try_get("/health/live") is not None, "readers are answered meanwhile"
                finally:
                    cluster.brokers[0].signal(signal.SIGCONT)
        grown = psutil.Process(worker.pid).memory_info().rss - before
        world.settle()
        world.figures.update(grown_mib=grown >> 20, joined_again=_joins(worker) - joins)
        world.verify()
    assert world.figures["joined_again"] == 0
    assert grown < GROWTH_MAX_BYTES
