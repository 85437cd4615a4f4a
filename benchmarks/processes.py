"""Programs under measurement: their marks on standard output, their processor time, their memory."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from streamapp.cli.processes import last_lines
from streamapp.local import launcher

MARK = "BENCH "
_STOP_TIMEOUT_S = 10.0
#: thousands of probes are one line
_LINE_MAX_BYTES = 16 << 20
_REMEMBER_S = 2.0
_ROOT = Path(__file__).parent.parent


class ProgramError(RuntimeError):
    """A program under measurement ended, or said nothing in time."""


@dataclass(frozen=True)
class Mark:
    """One line by which a program says how far it is.

    Attributes:
        name: e.g. `first`, `done`.
        content: what else it says.
        seen: when it arrived, by `time.perf_counter`.
    """

    name: str
    content: dict[str, Any]
    seen: float


def parse_mark(line: str) -> Mark | None:
    """The mark in a line of output; None for any other line."""
    if not line.startswith(MARK):
        return None
    try:
        content = json.loads(line[len(MARK) :])
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(name := content.pop("mark", None), str):
        return None
    return Mark(name, content, time.perf_counter())


class ProcessTree:
    """What runs under a launcher. Finding out costs milliseconds of its own, so it is remembered for a while.

    Args:
        launcher_pid: the process that is left out; None for a tree without anything in it.
    """

    def __init__(self, launcher_pid: int | None) -> None:
        self._pid = launcher_pid
        self._found: list[psutil.Process] = []
        self._looked_at = 0.0

    def processes(self) -> list[psutil.Process]:
        """The processes, as of at most two seconds ago; none that has ended since."""
        now = time.perf_counter()
        alive = [process for process in self._found if process.is_running()]
        if self._pid is not None and (not alive or now - self._looked_at > _REMEMBER_S):
            try:
                alive = psutil.Process(self._pid).children(recursive=True)
            except psutil.NoSuchProcess:
                alive = []
            self._looked_at = now
        self._found = alive
        return list(alive)

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def rss_bytes(self) -> int:
        """Resident memory."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Program:
    """One program whose standard output carries marks; everything else goes to its log.

    It lives under the launcher, so it dies with the harness, however that ends.

    Args:
        name: for its log.
        command: program and arguments.
        folder: where its log is, and its working folder.
        environment: on top of the harness's own.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._command = list(command)
        self._folder = folder
        self._environment = {**base_environment(), **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self.tree = ProcessTree(None)
        self._marks: asyncio.Queue[Mark | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; returns at once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launcher.__file__, str(_STOP_TIMEOUT_S), str(os.getpid()), ""),
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
                limit=_LINE_MAX_BYTES,
            )
        self.tree = ProcessTree(self._process.pid)
        self._reader = asyncio.create_task(self._read())

    async def mark(self, name: str, timeout_s: float) -> Mark:
        """The next mark of that name; others before it are passed over.

        Raises:
            ProgramError: the program ended, or the time is over.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while (mark := await self._marks.get()) is not None:
                    if mark.name == name:
                        return mark
        except TimeoutError:
            raise ProgramError(f"{self.name}: no `{name}` within {timeout_s:.0f} s; {self.last_words()}") from None
        raise ProgramError(f"{self.name} ended before `{name}`; {self.last_words()}")

    def marks_so_far(self, name: str) -> list[Mark]:
        """All marks of that name that have come and not been taken, without waiting; others are passed over."""
        found = []
        while not self._marks.empty():
            mark = self._marks.get_nowait()
            if mark is not None and mark.name == name:
                found.append(mark)
        return found

    def check_alive(self) -> None:
        """Raise a ProgramError where it has ended by itself."""
        if self._process is None or self._process.returncode is not None:
            code = self._process.returncode if self._process is not None else None
            raise ProgramError(f"{self.name} ended with code {code}; {self.last_words()}")

    async def stop(self, *, hard: bool = False) -> None:
        """End it, by SIGTERM or at once, and wait until it is gone. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        if hard:
            self.tree.kill()
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S + 5)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    def last_words(self) -> str:
        """What its log ends with, as one line."""
        lines = [line.strip() for line in last_lines(self.log_file, 4)]
        return f"its log ends with: {' | '.join(lines)[-500:] or 'nothing'}"

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self.log_file.open("a") as log:
            async for raw in self._process.stdout:
                line = raw.decode(errors="replace")
                mark = parse_mark(line)
                if mark is None:
                    log.write(line)
                    log.flush()
                else:
                    self._marks.put_nowait(mark)
        self._marks.put_nowait(None)


def base_environment() -> dict[str, str]:
    """The harness's environment, with this folder's packages importable and none of the user's settings.

    Modules may be compiled once, as those of an installed package are: else every start would be measured with the compiler.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STREAMAPP_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
