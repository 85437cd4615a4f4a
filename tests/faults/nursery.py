"""A process that has imported everything a worker needs, and forks workers: a life begins in a tenth of the time.

For runs of very many short lives. What is forked goes on exactly as `python -m faust -A tests.faults.application worker`
would; the kill points are woven in for all of them, and armed by the environment of each.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).parents[2]


class Nursery:
    """Starts workers by forking. Use it as a context: at its end all of them are gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # readers ask whether a worker runs while the test starts another one

    def __enter__(self) -> Self:
        with (self._folder / "nursery.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"},
            )
        assert self._ask({"ready": True})["ready"], (self._folder / "nursery.log").read_text()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()  # the workers follow it
        self._process.communicate()

    def start(self, arguments: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> "Nursling":
        """Fork a worker."""
        order = {"arguments": list(arguments), "env": dict(env), "log": str(log), "cwd": str(cwd)}
        return Nursling(self, int(self._ask(order)["pid"]))

    def poll(self, pid: int) -> int | None:
        """The exit code of a worker, None while it runs; negative: the signal that ended it."""
        code: int | None = self._ask({"poll": pid})["code"]
        return code

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], 120)
            assert ready, "the nursery does not answer"
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer


class Nursling:
    """A forked worker, with what a test uses of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self._code is None:
            self._code = self._nursery.poll(self.pid)
        return self._code

    def wait(self, timeout_s: float) -> int:
        """The exit code, awaited."""
        deadline = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout_s)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """A signal, while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


# --- the process itself ------------------------------------------------------------------------------------------------


def main() -> None:
    """Import everything, then fork for each order on standard input, until it closes."""
    from tests.faults import kill_points

    kill_points.weave()
    _import_all()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any] = {"ready": True}
        if "poll" in order:
            answer = {"code": _code(order["poll"], ended)}
        elif "arguments" in order:
            pid = os.fork()
            if pid == 0:
                _live(order)
            ended.pop(pid, None)  # the number of one that ended long ago, given anew
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _import_all() -> None:
    import faust.app
    import faust.cli.faust
    import faust.cli.worker
    import faust.transport.drivers.aiokafka
    import faust.web.drivers.aiohttp
    import faust.worker
    import polars

    import streamapp.app
    import streamapp.windows.named
    from streamapp import Candle, Count, Last, Sum, Trade, hopping, session, tumbling

    del faust, polars, streamapp, Candle, Count, Last, Sum, Trade, hopping, session, tumbling


def _code(pid: int, ended: dict[int, int]) -> int | None:
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == 0:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


def _live(order: Mapping[str, Any]) -> None:
    """The worker's life; never returns."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        sys.path.insert(0, str(_ROOT))
        sys.argv = ["faust", *order["arguments"]]
        from faust.cli.faust import cli

        cli()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
