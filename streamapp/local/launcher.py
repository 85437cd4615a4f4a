"""Runs one child process for exactly as long as the parent wants it, or lives.

Started as a script of its own (standard library only, so that it costs a few milliseconds):
`python launcher.py STOP_TIMEOUT_S PARENT_PID REMOVE_DIR_OR_EMPTY COMMAND...`

Standard input is a pipe whose other end only the parent holds. It closing means: stop the child. That happens on a
clean stop and, because the kernel closes it, after `kill -9` of the parent too. The child in turn dies with this
process where the kernel offers that (Linux). A temporary directory is removed at the end, whoever died.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
#: how often to look whether the parent or the child has gone without the pipe telling
_LOOK_EVERY_S = 0.5


def main(arguments: list[str]) -> int:
    """Run the command until the pipe closes or it ends by itself; returns its exit code."""
    stop_timeout_s, parent, remove = float(arguments[0]), int(arguments[1]), arguments[2]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        child = subprocess.Popen(arguments[3:], stdin=subprocess.DEVNULL, preexec_fn=_die_with_launcher)
        # a child that ends wakes the select below at once
        signal.signal(signal.SIGCHLD, lambda *_: None)
        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        signal.set_wakeup_fd(writable)
        while child.poll() is None and not asked and os.getppid() == parent:
            ready, _, _ = select.select([0, readable], [], [], _LOOK_EVERY_S)
            if 0 in ready and not os.read(0, 1024):
                break
            if readable in ready:
                os.read(readable, 1024)
        return _stop(child, stop_timeout_s)
    finally:
        if remove:
            shutil.rmtree(remove, ignore_errors=True)


def _stop(child: "subprocess.Popen[bytes]", timeout_s: float) -> int:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout_s)
        child.kill()
    return child.wait()


def _die_with_launcher() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
