"""All measurements, one after another on one broker; a failing one is reported, and the others go on."""

import asyncio
import contextlib
import dataclasses
import datetime
import importlib
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.context import Context
from benchmarks.processes import ProcessTree
from benchmarks.results import PartResult, Results
from benchmarks.sizes import PROFILES
from benchmarks.warmup import warm
from streamapp.local.broker import EmbeddedKafka
from streamapp.local.java import find_java

#: part -> the longest that it may take, in seconds; installing engines at the first use is part of it
PARTS = {
    "throughput": 1800,
    "steps": 600,
    "latency": 600,
    "reads": 300,
    "tools": 300,
    "subscribers": 400,
    "recovery": 600,
    "takeover": 600,
    "bridge": 400,
    "memory": 400,
    "scaling": 600,
}


async def run(
    parts: Sequence[str],
    profile: str,
    environments: Path,
    *,
    engines: Sequence[str] = (),
    rounds: int | None = None,
    keep_logs: Path | None = None,
) -> Results:
    """Measure.

    Args:
        parts: names of `PARTS`, in the order to run them.
        profile: a name of `PROFILES`.
        environments: where engines are installed.
        engines: which engines to compare; empty: all.
        rounds: instead of the profile's.
        keep_logs: a folder for all logs, instead of a temporary one.

    Returns:
        What came out; a part that failed says why.
    """
    task = asyncio.current_task()
    assert task is not None
    # as Ctrl-C: processes are ended, temporary folders removed
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    sizes = PROFILES[profile] if rounds is None else dataclasses.replace(PROFILES[profile], rounds=rounds)
    begin = time.perf_counter()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results = Results(started, profile, machine.describe(), machine.project())
    results.machine["broker_java"] = await asyncio.to_thread(lambda: find_java().version)
    with contextlib.ExitStack() as stack:
        folder = keep_logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamapp-bench-")))
        async with EmbeddedKafka() as kafka:
            await warm(Context(kafka.bootstrap, ProcessTree(kafka.pid), folder / "warm-up", environments, sizes))
            for number, part in enumerate(parts):
                print(f"[{number + 1}/{len(parts)}] {part}", flush=True)
                context = Context(
                    kafka.bootstrap, ProcessTree(kafka.pid), folder / part, environments, sizes, tuple(engines)
                )
                context.folder.mkdir(parents=True, exist_ok=True)
                results.parts[part] = await run_part(part, context)
    results.seconds = time.perf_counter() - begin
    return results


async def run_part(part: str, context: Context) -> PartResult:
    """One part, whatever happens in it."""
    begin = time.perf_counter()
    figures = {}
    try:
        module = importlib.import_module(f"benchmarks.parts.{part}")
        async with asyncio.timeout(PARTS[part]):
            figures = await module.measure(context)
    except TimeoutError as problem:
        context.fail(f"{part}: {problem or f'not done within {PARTS[part]} s'}")
    except Exception as problem:
        context.fail(f"{part}: {type(problem).__name__}: {problem}")
    status = "ok" if not context.errors else "partial" if figures else "failed"
    return PartResult(status, time.perf_counter() - begin, figures, context.errors, context.skipped)
