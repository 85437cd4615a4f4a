"""A time of day that jumps: the worker's clocks read an offset from a file, which the test writes."""

import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_OFFSET = struct.Struct("<q")


def write_offset(file: Path, offset_ms: int) -> None:
    """Let the worker's time of day be this far from the machine's from now on."""
    part = file.with_suffix(".part")
    part.write_bytes(_OFFSET.pack(offset_ms))
    part.replace(file)


def install_from_environment() -> None:
    """Replace `time.time` and `time.time_ns` where `FAULTS_CLOCK_FILE` says so; the monotonic clock stays as it is."""
    name = os.environ.get("FAULTS_CLOCK_FILE")
    if name is None:
        return
    read_ns: Callable[[], int] = time.time_ns
    state = [0, 0]  # offset in ns, when to look again

    def time_ns() -> int:
        now = read_ns()
        if time.monotonic_ns() > state[1]:
            state[1] = time.monotonic_ns() + 20_000_000
            with open(name, "rb") as file:
                state[0] = _OFFSET.unpack(file.read())[0] * 1_000_000
        return now + state[0]

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
