"""Child processes of a command: their output in files, their life bound to the command's.

Each runs under `streamapp.local.launcher`, in a session of its own: Ctrl-C in a terminal reaches the command only, which
stops its children in its own order, and a command killed by `kill -9` takes them along.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamapp.clock import Clock, SystemClock
from streamapp.errors import ProcessError
from streamapp.local import launcher

#: how often a log is looked at for a line; a file cannot be awaited portably
_LOOK_EVERY_S = 0.05
#: what a launcher may take beyond the child's own time to stop
_LAUNCHER_SLACK_S = 5.0


class ChildProcess:
    """One process, from start to stop.

    Args:
        name: what people call it, and its log file.
        command: program and arguments.
        log_dir: where `NAME.log` is written.
        environment: all of its environment.
        stop_timeout_s: bound on a clean stop after SIGTERM; past it the process is killed.
        clock: bounds the waiting.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_dir: Path,
        environment: Mapping[str, str],
        *,
        stop_timeout_s: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_dir / f"{name}.log"
        self._command = list(command)
        self._log_dir = log_dir
        self._environment = dict(environment)
        self._stop_timeout_s = stop_timeout_s
        self._clock = clock or SystemClock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; returns at once, ready or not."""
        with self.log_file.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launcher.__file__),
                *(str(self._stop_timeout_s), str(os.getpid()), ""),
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._log_dir,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """The process id of the launcher, whose only child the program is; None while it does not run."""
        return self._process.pid if self._process is not None else None

    async def wait(self) -> int:
        """Wait until it ends; returns its exit code, negative for a signal."""
        assert self._process is not None, "start() first"
        return await self._process.wait()

    async def stop(self) -> None:
        """End it and wait until it is gone: SIGTERM first, SIGKILL past the time-out. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        # tells the launcher to stop its child
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), self._stop_timeout_s + _LAUNCHER_SLACK_S)
        except TimeoutError:
            # where the kernel offers it, the child follows its launcher at once
            process.kill()
            await process.wait()

    async def line_of_log(self, beginning: str, timeout_s: float) -> str:
        """The first line of its log that begins so, awaited.

        Raises:
            ProcessError: no such line came within the time.
        """
        deadline_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while self._clock.monotonic_ms() < deadline_ms:
            for line in self.log_file.read_text(errors="replace").splitlines():
                if line.startswith(beginning):
                    return line
            await asyncio.sleep(_LOOK_EVERY_S)
        raise ProcessError(
            self.name,
            self.log_file,
            f"expected the {self.name} to say '{beginning}...' within {timeout_s:.0f} s; see {self.log_file}",
        )


def last_lines(log_file: Path, count: int = 15) -> list[str]:
    """The last lines of a log, without what is blank; none where there is no file."""
    try:
        with log_file.open(errors="replace") as lines:
            return list(deque((line.rstrip() for line in lines if line.strip()), maxlen=count))
    except OSError:
        return []
