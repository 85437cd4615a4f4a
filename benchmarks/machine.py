"""What the figures were measured on, and how fast it was at that moment."""

import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from streamapp.columns.library import load


def empty_call_ns() -> float:
    """Nanoseconds of an empty function call: the median of a few tries; tells a busy machine from an idle one."""

    def nothing() -> None:
        pass

    tries = []
    for _ in range(5):
        begin = time.perf_counter_ns()
        for _ in range(200_000):
            nothing()
        tries.append((time.perf_counter_ns() - begin) / 200_000)
    return sorted(tries)[2]


def describe() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python, load."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "empty_call_ns": round(empty_call_ns(), 1),
    }


def label(machine: dict[str, Any]) -> str:
    """A short name for files: cores and processor, e.g. `2x-xeon-platinum-8488c`."""
    model = re.sub(r"\(.*?\)|\bCPU\b|\bProcessor\b|@.*|\bIntel\b|\bAMD\b", " ", str(machine.get("processor", "")))
    words = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return f"{machine.get('cores', 0)}x-{words or 'unknown'}"


def project() -> dict[str, Any]:
    """What of this project was measured: its version, the commit where there is one, whether its native decoder is built."""
    return {"version": metadata.version("streamapp"), "commit": _commit(), "native": load("auto") is not None}


def _commit() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.processor())


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1)
