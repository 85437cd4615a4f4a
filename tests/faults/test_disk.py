"""Fault 7: the disk of the local state is full."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.processes import until
from tests.faults.lab import Lab, fault
from tests.faults.oracle import commits_ahead
from tests.faults.watch import Feed

SIZE_MIB = 64


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs of its own under this folder; skips where it cannot be mounted."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small tmpfs")
    folder.mkdir(parents=True)
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "streamapp-faults", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def _fill(folder: Path, leave_bytes: int) -> Path:
    """A file that leaves this much."""
    filler = folder / "filler"
    free = shutil.disk_usage(folder).free
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, free - leave_bytes))
    return filler


@fault(7, "the state directory on a full disk")
def test_full_disk(lab: Lab) -> None:
    draw = random.Random(f"disk-{lab.seed}")
    with lab.world() as world:
        worker = world.worker()
        with _small_disk(worker.data_dir):
            try:
                world.produce(2_000)
                worker.start().until_ready()
                world.settle()
                filler = _fill(worker.data_dir, draw.randrange(0, 600_000))
                with Feed(world, 200):
                    until("the worker to stop", lambda: not worker.running, hint=world.hint)
                assert worker.wait() != 0
                assert "cannot write to" in worker.log, worker.log[-3_000:]
                assert "free some disk space" in worker.log
                assert commits_ahead(world.topics, world.app, world.source, world.shapes) == []
                committed = sum(world.topics.committed(world.app, world.source).values())
                assert committed < world.events, "the failure came before the end"

                if draw.random() < 0.5:
                    # it is started again too early: it must say so again
                    worker.start()
                    until("the worker to stop again", lambda: not worker.running, hint=world.hint)
                    assert worker.wait() != 0
                    assert commits_ahead(world.topics, world.app, world.source, world.shapes) == []
                filler.unlink()
                worker.start().until_ready()
                world.settle()
                world.verify()
            finally:
                if worker.running:
                    worker.kill()
