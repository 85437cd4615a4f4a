"""What the figures were measured on, and how fast it was at that moment."""

import os
import platform
import time
from pathlib import Path


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


def describe() -> dict[str, object]:
    """Processor, cores, memory, Python, load."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory.split()[1]) / (1 << 20), 1),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "empty_call_ns": round(empty_call_ns(), 1),
    }
