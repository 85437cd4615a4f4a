"""Fault 1: kill -9 of the worker at random moments, the disk kept and lost."""

import random

from tests.fakes.processes import until
from tests.faults.lab import Lab, fault
from tests.faults.world import timed

KILLS = 3
#: per life, before the kill
EVENTS = 3_000
#: a restart, process start and session time-out included; generous, because the machine may be busy
READY_MAX_S = 110.0


@fault(1, "kill -9 of the worker at random batch phases, disk kept and lost")
def test_worker_kills(lab: Lab) -> None:
    draw = random.Random(f"kills-{lab.seed}")
    ready = []
    with lab.world() as world:
        worker = world.worker()
        world.produce(EVENTS)
        worker.start()
        for _ in range(KILLS):
            wanted = draw.randrange(1, 3 * EVENTS)
            until(f"{wanted} merged", lambda wanted=wanted: worker.applied >= wanted or not worker.running)
            world.produce(draw.randrange(1, 500))
            worker.kill()
            if draw.random() < 0.5:
                worker.lose_disk()
            world.produce(EVENTS)
            worker.start()
            ready.append(timed(worker.until_ready))
        world.figures["ready_s"] = max(ready)
        world.settle()
        world.verify()
    assert max(ready) < READY_MAX_S
