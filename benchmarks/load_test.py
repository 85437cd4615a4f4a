"""Requests/s and latencies of GETs over kept-alive connections: by wrk where it is installed, else by a client in Python."""

import asyncio
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.connection import Connection
from benchmarks.figures import latency_summary, significant

CONNECTIONS = 16
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


async def saturate(port: int, paths: Sequence[str], seconds: float, folder: Path) -> dict[str, Any]:
    """As many requests as go through, over 16 connections; each path in turn.

    Raises:
        RuntimeError: an answer was not 200.
    """
    if shutil.which("wrk") is None:
        return {**await _saturate_in_python(port, paths, seconds), "client": "own"}
    script = _script(paths, folder)
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "--latency"),
        *("-s", str(script), f"http://127.0.0.1:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), seconds + 30)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return {**parse_wrk(output.decode()), "client": "wrk"}


async def pace(
    port: int, paths: Sequence[str], seconds: float, rate: float, connections: int = CONNECTIONS
) -> dict[str, Any]:
    """Requests at fixed instants, whatever has become of those before; see `until_due` for when a latency begins.

    Raises:
        RuntimeError: an answer was not 200.
    """
    taken: list[float] = []
    begin = time.perf_counter()

    async def one(number: int) -> None:
        async with await Connection.open(port) as connection:
            for position in range(number, int(rate * seconds), connections):
                due = await until_due(begin + position / rate)
                await _get(connection, paths[position % len(paths)])
                taken.append((time.perf_counter() - due) * 1000)

    await asyncio.gather(*(one(number) for number in range(connections)))
    return {
        "requests_per_s": significant(len(taken) / (time.perf_counter() - begin)),
        **latency_summary(taken),
        "client": f"own, {rate:.0f}/s",
    }


async def until_due(instant: float) -> float:
    """Wait until an instant of `time.perf_counter`; returns the one from which the latency of what was due then counts.

    That is the instant itself where the caller comes too late for it, as what it did before took so long. Else it is when
    the caller went on: an event loop's timer is a millisecond late, which is no part of the answer that is waited for.
    """
    wait_s = instant - time.perf_counter()
    if wait_s <= 0:
        return instant
    await asyncio.sleep(wait_s)
    return time.perf_counter()


def parse_wrk(output: str) -> dict[str, Any]:
    """What `wrk --latency` prints.

    Raises:
        RuntimeError: it counted errors, or printed something else.
    """
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output) or re.search(r"Socket errors: .*[1-9].*", output)
    if errors is not None:
        raise RuntimeError(f"wrk: {errors[0]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    quantiles = {
        name: re.search(rf"^\s+{name}%\s+([\d.]+)(us|ms|s|m)\s*$", output, re.MULTILINE) for name in ("50", "90", "99")
    }
    if rate is None or not all(quantiles.values()):
        raise RuntimeError(f"wrk printed something unexpected: {output[-300:]}")
    return {
        "requests_per_s": significant(float(rate[1])),
        **{
            f"p{name}_ms": significant(float(found[1]) * _UNITS_MS[found[2]])
            for name, found in quantiles.items()
            if found
        },
    }


def _script(paths: Sequence[str], folder: Path) -> Path:
    """What tells wrk to take one path after another."""
    quoted = ", ".join(f'"{path}"' for path in paths)
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "paths.lua"
    script.write_text(
        f"local paths = {{ {quoted} }}\nlocal requests, turn = {{}}, 0\n"
        "init = function(args)\n"
        "  for index, path in ipairs(paths) do requests[index] = wrk.format('GET', path) end\n"
        "end\n"
        "request = function()\n  turn = turn % #requests + 1\n  return requests[turn]\nend\n"
    )
    return script


async def _saturate_in_python(port: int, paths: Sequence[str], seconds: float) -> dict[str, Any]:
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        async with await Connection.open(port) as connection:
            position = number
            while (begin := time.perf_counter()) < end:
                await _get(connection, paths[position % len(paths)])
                taken.append((time.perf_counter() - begin) * 1000)
                position += CONNECTIONS

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return {"requests_per_s": significant(len(taken) / seconds), **latency_summary(taken)}


async def _get(connection: Connection, path: str) -> None:
    status, body = await connection.get(path)
    if status != 200:
        raise RuntimeError(f"GET {path}: expected 200, got {status}: {body[:200].decode(errors='replace')}")
