"""The launcher with a small child in place of the broker; every wait is for a pipe or a process to end."""

import os
import signal
import subprocess
import sys

import pytest

from streamapp.local import launcher

CHILD = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"
)


def launch(child, remove="", stop_timeout_s=10, parent=None):
    command = [
        sys.executable,
        "-I",
        "-S",
        launcher.__file__,
        str(stop_timeout_s),
        str(parent or os.getpid()),
        str(remove),
    ]
    return subprocess.Popen([*command, sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def finish(process):
    try:
        return process.wait(20)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_launcher_stops_its_child_when_the_pipe_closes(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    process = launch(CHILD, remove=home)
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert finish(process) == 7
    assert not home.exists()


def test_launcher_ends_with_its_childs_code():
    assert finish(launch("raise SystemExit(5)")) == 5


def test_launcher_kills_a_child_that_will_not_stop():
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
    process = launch(deaf + "\nwhile True: signal.pause()", stop_timeout_s=0.1)
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert finish(process) != 0


def test_launcher_without_its_parent_stops_at_once():
    # the pipe is open, but the parent that it was told about is not the one it has
    process = launch("import signal; signal.pause()", parent=2**22 + 1)
    assert finish(process) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_launcher_killed_takes_its_child_along():
    process = launch(CHILD)
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGKILL)
    # the child held the other end of this pipe: reading to the end returns once it is gone
    assert process.stdout.read() == b""
    assert finish(process) == -signal.SIGKILL
