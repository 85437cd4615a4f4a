"""The command line: many seeds on all cores, or one seed with its trace."""

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterable

from tests.simulation import mutations
from tests.simulation.seeds import OPEN
from tests.simulation.simulation import Verdict, simulate


def replay_command(seed: int) -> str:
    """What brings a seed back, bit for bit."""
    return f"python -m tests.simulation --seed {seed}"


def _one(seed: int) -> Verdict:
    verdict = simulate(seed)
    if seed % 50 == 0:
        gc.collect()
    return verdict


def _prepare(mutation: str | None) -> None:
    """Make a process ready to run seeds."""
    gc.disable()  # it would run at a moment of its own choosing; see `_one`
    # coroutines of killed processes are closed wherever they stand, or have never begun
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")
    logging.disable()
    if mutation is not None:
        mutations.apply(mutation)


def run_seeds(
    seeds: Iterable[int], *, jobs: int, limit_s: float, stop_after: int = 5, mutation: str | None = None
) -> tuple[int, list[Verdict]]:
    """How many seeds ran, and those that failed; ends early after some failures, or when the time is over."""
    deadline = time.monotonic() + limit_s
    failed: list[Verdict] = []
    count = 0
    if mutation is not None:
        mutations.apply(mutation)  # where it fails, a pool would start its processes again for ever
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_prepare, initargs=(mutation,)) as pool:
        for verdict in pool.imap_unordered(_one, seeds, chunksize=8):
            count += 1
            if verdict.problems:
                failed.append(verdict)
                print(report(verdict), flush=True)
            if len(failed) >= stop_after or time.monotonic() > deadline:
                pool.terminate()
                break
    return count, failed


def report(verdict: Verdict) -> str:
    """A failed seed, for people."""
    lines = "\n".join(f"  {problem}" for problem in verdict.problems)
    return f"seed {verdict.seed} failed; again with: {replay_command(verdict.seed)}\n  {verdict.scenario}\n{lines}"


def main(arguments: list[str] | None = None) -> int:
    """0 where everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, with its trace")
    parser.add_argument("--records", type=int, help="with --seed: over so many records instead of what it draws")
    parser.add_argument("--shrink", action="store_true", help="with --seed: the fewest records that still fail")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--seeds", default="0:1000", help="first:end, single ones, or both with commas between")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit-s", type=float, default=3600, help="stop after so long")
    parser.add_argument("--mutation", choices=mutations.MUTATIONS, help="break this rule first; it should be found")
    parser.add_argument("--stop-after", type=int, default=5, help="stop after so many failures")
    chosen = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0" or os.environ.get("POLARS_MAX_THREADS") != "1":
        # the order of sets is part of the schedule, and so is that of sums
        os.environ.update(PYTHONHASHSEED="0", POLARS_MAX_THREADS="1")
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *(arguments or sys.argv[1:])])
    if chosen.seed is not None:
        return _again(chosen)
    began = time.monotonic()
    seeds = _seeds(chosen.seeds, chosen.mutation)
    count, failed = run_seeds(
        seeds,
        jobs=chosen.jobs,
        limit_s=chosen.limit_s,
        stop_after=chosen.stop_after,
        mutation=chosen.mutation,
    )
    print(f"{count} of {len(seeds)} seeds in {time.monotonic() - began:.1f} s, {len(failed)} failed")
    return 1 if failed else 0


def _seeds(text: str, mutation: str | None) -> list[int]:
    """The seeds that are asked for; of a range without those that are open, or cannot show a broken rule."""
    seeds: list[int] = []
    for part in text.split(","):
        first, colon, end = part.partition(":")
        if not colon:
            seeds.append(int(first))
            continue
        known = [seed for seed in range(int(first), int(end)) if seed not in OPEN]
        seeds += [seed for seed in known if mutation is None or mutations.can_show(mutation, seed)]
    return seeds


def _again(chosen: argparse.Namespace) -> int:
    _prepare(chosen.mutation)
    records = chosen.records
    if chosen.shrink:
        records = _shrunk(chosen.seed)
    verdict = simulate(chosen.seed, records=records, keep_trace=chosen.trace)
    if verdict.trace:
        print("\n".join(verdict.trace))
    if verdict.problems:
        print(report(verdict))
    print(f"{verdict.scenario}\n{verdict.steps} steps, {verdict.simulated_s:.2f} simulated s, trace {verdict.digest}")
    if records is not None:
        print(f"over {records} records")
    return 1 if verdict.problems else 0


def _shrunk(seed: int) -> int | None:
    """The fewest records over which the seed fails, tried from one upwards; None where it does not."""
    for records in range(1, 400):
        if simulate(seed, records=records).problems:
            return records
    return None
