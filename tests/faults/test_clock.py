"""Fault 10: the time of day jumps, both ways."""

import random
import time

from tests.faults.clock_jumps import write_offset
from tests.faults.lab import Lab, fault
from tests.faults.watch import Feed

HOUR_MS = 3_600_000
JUMPS = 8


@fault(10, "clock jumps of up to days, both ways, a kill between")
def test_clock_jumps(lab: Lab) -> None:
    draw = random.Random(f"clock-{lab.seed}")
    file = lab.folder / "clock"
    write_offset(file, draw.randrange(-48, 48) * HOUR_MS)
    with lab.world(env={"FAULTS_CLOCK_FILE": str(file)}) as world:
        worker = world.worker()
        world.produce(1_000)
        worker.start().until_ready()
        jumped = []
        with Feed(world, 60):
            for jump in range(JUMPS):
                time.sleep(draw.uniform(0.2, 0.8))
                offset = int(draw.choice((-1, 1)) * draw.choice((0.05, 1, 30, 2_000)) * HOUR_MS)
                write_offset(file, offset)
                jumped.append(offset)
                if jump == JUMPS // 2:
                    time.sleep(0.3)
                    told = worker.get("/v1/status")["as_of"]
                    assert abs(told - time.time() * 1000 - offset) < 60_000, (
                        "the worker does not live in the jumped time"
                    )
                    worker.kill()
                    worker.start().until_ready()
        world.settle()
        world.figures.update(jumps=len(jumped))
        world.verify()
