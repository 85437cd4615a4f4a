"""Faults 3 and 4: an owner that sleeps and wakes up, and workers that come and go."""

import random
import signal
import time
from pathlib import Path

from tests.fakes.processes import until
from tests.faults.kill_points import all_points
from tests.faults.lab import Lab, fault
from tests.faults.nursery import Nursery
from tests.faults.watch import Feed, Readers
from tests.faults.world import FaultWorker, World, timed

SESSION_MS = 4_000
#: where in the commit path an owner falls asleep, each passed often; the first is "anywhere"
_ASLEEP = (
    "",
    "before await self._send('values', values)",
    "after await self._send('values', values)",
    "after await self._send('checkpoint records', [OutMessage(live.ta",
    "after await self._send('final records', finals)",
    "self._db.write(batch)",
    "_Pending.delivered#2 at self._wake()",
)
#: a planned move: revoke, restore, and everybody's turn on a busy machine
UNAVAILABLE_MAX_S = 45.0


def _sleeps(worker: FaultWorker) -> bool:
    return Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _until_shared(world: World, *workers: FaultWorker) -> None:
    """Each of the workers has some of the source's partitions, together all of them."""
    everything = list(range(world.topics.partitions(world.source)))

    def shared() -> bool:
        for worker in workers:
            assert worker.running, f"{worker.name} ended by itself ({worker.ended_with}): {world.hint()}"
        parts = [worker.assigned(world.source) for worker in workers]
        return all(parts) and sorted(part for mine in parts for part in mine) == everything

    until(f"{len(workers)} workers to share {world.source}", shared, hint=world.hint)
    for worker in workers:
        worker.until_ready()


@fault(3, "SIGSTOP past the session time-out, then SIGCONT")
def test_stopped_owner(lab: Lab) -> None:
    draw = random.Random(f"asleep-{lab.seed}")
    where = _ASLEEP[lab.seed % len(_ASLEEP)]
    aims = [point for point in all_points() if where and where in point]
    assert aims or not where, f"no point of the path is {where!r} any more"
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)}
    with Nursery(lab.folder) as nursery, lab.world(env=env) as world:
        file = lab.folder / "asleep.points"
        first = world.worker("first", nursery=nursery, env={} if not where else {"FAULTS_POINTS_FILE": str(file)})
        second = world.worker("second", nursery=nursery)
        if where:
            # late enough to be past the start and the first share, in the middle of everything
            first.set_env(FAULTS_KILL_AT=f"{draw.randint(60, 150)} {draw.choice(aims)}", FAULTS_SIGNAL="STOP")
        world.produce(2_000)
        second.start().until_ready()
        first.start()
        with Feed(world) as _, Readers([first, second], 4) as readers:
            if not where:
                _until_shared(world, first, second)
                time.sleep(draw.uniform(0.0, 1.0))
                first.signal(signal.SIGSTOP)
            until("the owner to fall asleep", lambda: _sleeps(first), hint=world.hint)
            lost = timed(lambda: until("the other to have all", lambda: len(second.assigned(world.source)) == 4))
            second.until_ready()
            time.sleep(draw.uniform(1.0, 2.0))
            first.signal(signal.SIGCONT)
            # it is asked from its first moment on, by the readers, for all that it had
            time.sleep(6.0)
        if not first.running:
            first.set_env(FAULTS_KILL_AT=None, FAULTS_POINTS_FILE=None)
            first.start()
        world.settle()
        world.figures.update(taken_over_s=lost, reads=readers.asked, back=len(readers.steps_back()))
        world.verify()
    assert readers.two_owners() == []
    stale = [step for step in readers.steps_back() if "worker='second'" in step.partition(", then ")[0]]
    assert stale == [], "the old owner answered with what the new one had overtaken"


@fault(4, "rolling restarts, 1 to 4 to 1 workers, all of them planned", timeout_s=600)
def test_rolling_restarts(lab: Lab) -> None:
    draw = random.Random(f"rolling-{lab.seed}")
    env = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "6000"}
    with Nursery(lab.folder) as nursery, lab.world(env=env) as world:
        workers = [world.worker(f"worker-{number}", nursery=nursery) for number in range(4)]
        world.produce(2_000)
        workers[0].start().until_ready()
        with Feed(world, 25), Readers(workers, 4) as readers:
            for count in (2, 3, 4):
                workers[count - 1].start()
                _until_shared(world, *workers[:count])
            order = draw.sample(workers, 4)
            for worker in order:
                assert worker.terminate() == 0, worker.log[-3_000:]
                _until_shared(world, *(other for other in workers if other is not worker))
                worker.start()
                _until_shared(world, *workers)
            for stopped, worker in enumerate(order[:3], 1):
                assert worker.terminate() == 0, worker.log[-3_000:]
                _until_shared(world, *order[stopped:])
        world.settle()
        longest = {partition: round(gap, 1) for partition, gap in sorted(readers.longest_s.items())}
        world.figures.update(unavailable_s=max(longest.values()), reads=readers.asked, back=len(readers.steps_back()))
        world.verify()
    assert readers.two_owners() == []
    assert readers.steps_back() == [], "a planned move makes everything durable first"
    assert max(longest.values()) < UNAVAILABLE_MAX_S, longest
