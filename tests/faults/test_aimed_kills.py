"""Fault 1, aimed: a SIGKILL at every await and every step of the commit path, the disk kept and lost.

Two recorded lives tell which points a worker passes, how often, and which only when it stops or restores. Then each point
gets a life that ends right there. All lives belong to one application, and at the end nothing may differ.
"""

import random
import signal
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fakes.processes import until
from tests.faults.kill_points import all_points, recorded
from tests.faults.lab import Lab, fault
from tests.faults.nursery import Nursery
from tests.faults.world import FaultWorker, World

PORTION = 40
BEFORE = 120
#: a point that no life reaches in this time counts as missed
LIFE_MAX_S = 60.0
#: the path from merged records to committed offsets: a kill at each of its points is what this test is for
COMMIT_PATH = (
    "engine.checkpoints.",
    "engine.runtime.Engine.flush",
    "engine.runtime.Engine.revoke",
    "engine.runtime.Engine._checkpoint",
    "engine.source_lanes.SourceLanes.pause",
    "engine.checkpoint_timer.CheckpointTimer._run",
    "engine.transport.LaneConsumer._commit",
    "engine.transport.LaneConsumer._settle",
    "engine.transport.LaneConsumer.on_stop",
    "engine.rocks.RocksStore.write",
    "engine.rekeying.ForwardTap",
    "kafka.producer.",
    "state.partition.",
)
#: what a healthy life with one worker never passes, and why
NOT_PASSED = {
    "await feeder.stop()": "this application has no agents",
    "self.errors.append(": "nothing is refused by Kafka",
    "await asyncio.sleep(0.002)": "the producer's queue is never full",
    "self._evict()": "the cache is never full",
    "self._drop_cached(": "only a window past retention is dropped while it is cached",
    "await self._give_up()": "no lease is lost",
}


@dataclass(frozen=True)
class Aim:
    """A point to die at: at which passing, and what has to be done to get there."""

    point: str
    passing: int
    when_stopping: bool
    when_restoring: bool


@fault(1, "kills aimed at every await and step of the commit path, disk kept and lost", timeout_s=1500)
def test_aimed_kills(lab: Lab) -> None:
    draw = random.Random(f"aimed-{lab.seed}")
    env = {"FAULTS_SMALL_TURNS": "yes", "STREAMAPP_GROUP_INSTANCE_ID": f"aimed-{lab.seed}"}
    with Nursery(lab.folder) as nursery, lab.world(partitions=2, env=env) as world:
        worker = world.worker(nursery=nursery)
        aims, missing = _plan(world, worker, draw, awaits_only=lab.short)
        kills = {False: 0, True: 0}
        missed = []
        for number, aim in enumerate(aims):
            # by the point's own name, so that two seeds in a row have each point with either disk
            lost = aim.when_restoring or (zlib.crc32(aim.point.encode()) + lab.seed) % 2 == 0
            if lost:
                worker.lose_disk()
            # what is rarely passed may not come often enough before a life has to end: then the first time will do
            aims_there = [aim, replace(aim, passing=1)]
            if any(_life(world, worker, one, lab.folder / f"life-{number}.points") for one in aims_there):
                kills[lost] += 1
            else:
                missed.append(aim.point)
        world.figures.update(points=len(aims), disk_kept=kills[False], disk_lost=kills[True], missed=len(missed))
        _quietly(worker, None, None)
        worker.start().until_ready()
        world.settle()
        world.verify()
    assert missing == [], f"awaits that no life passes, and that nobody has said why: {missing}"
    assert missed == [], f"no life ended there: {missed}"


def test_every_point_of_the_path_is_named_once() -> None:
    points = all_points()
    assert len(points) == len(set(points))
    for prefix in COMMIT_PATH:
        assert any(point.startswith(prefix) for point in points), f"{prefix}: moved or renamed? no await is aimed at"


def _plan(world: World, worker: FaultWorker, draw: random.Random, *, awaits_only: bool) -> tuple[list[Aim], list[str]]:
    """Two lives with a planned end, the second with an empty disk; what they passed, in a random order."""
    running: dict[str, int] = {}
    stopping: dict[str, int] = {}
    restoring: set[str] = set()
    for life in (1, 2):
        file = world.folder / f"recorded-{life}.points"
        _quietly(worker, file, None)
        world.send_bad("undecodable", "a:BTC-USD", b'{"broken %d' % life)
        world.produce(BEFORE)
        worker.start().until_ready()
        for _ in range(6):
            before = worker.applied
            world.produce(PORTION)
            until(
                "the portion to be merged",
                lambda before=before: worker.applied > before,
                hint=lambda: worker.last_words,
            )
        world.settle()
        at_stop = _passed(file)
        assert worker.terminate() == 0
        for point, number in at_stop.items():
            running[point] = max(running.get(point, 0), number)
        for point in _passed(file).keys() - at_stop.keys():
            stopping[point] = 1
        if life == 1:
            first = set(running) | set(stopping)
            worker.lose_disk()
        else:
            restoring = (set(running) | set(stopping)) - first
    aims = [Aim(point, draw.randint(1, min(number, 6)), False, point in restoring) for point, number in running.items()]
    aims += [Aim(point, 1, True, point in restoring) for point in stopping if point not in running]
    wanted = [aim for aim in aims if aim.point.startswith(COMMIT_PATH) and not (awaits_only and " at " in aim.point)]
    reached = {aim.point for aim in aims}
    missing = [
        point
        for point in all_points()
        if point.startswith(COMMIT_PATH) and point not in reached and not any(text in point for text in NOT_PASSED)
    ]
    draw.shuffle(wanted)
    return wanted, missing


def _passed(file: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for _, number, point in recorded(file):
        found[point] = max(found.get(point, 0), number)
    return found


def _quietly(worker: FaultWorker, file: Path | None, aim: Aim | None) -> None:
    """What the next life's environment says."""
    worker.set_env(
        FAULTS_POINTS_FILE=None if file is None else str(file),
        FAULTS_KILL_AT=None if aim is None else f"{aim.passing} {aim.point}",
    )


def _life(world: World, worker: FaultWorker, aim: Aim, file: Path) -> bool:
    """A life that is to end at this point; whether it did."""
    _quietly(worker, file, aim)
    world.produce(BEFORE)
    worker.start()
    deadline = time.monotonic() + LIFE_MAX_S
    asked = False
    while worker.running:
        late = time.monotonic() > deadline
        if aim.when_stopping or late:
            if not asked and (late or worker.try_get("/health/ready") is not None):
                world.produce(PORTION)
                worker.signal(signal.SIGTERM)
                asked = True
            assert time.monotonic() < deadline + LIFE_MAX_S, f"does not end: {worker.log[-3_000:]}"
        elif worker.try_get("/health/ready") is not None:
            world.produce(PORTION)
        time.sleep(0.03)
    code = worker.wait()
    killed = any(kind == "kill" for kind, _, _ in recorded(file))
    assert killed == (code == -signal.SIGKILL), f"{aim}: ended with {code}: {worker.log[-3_000:]}"
    return killed
