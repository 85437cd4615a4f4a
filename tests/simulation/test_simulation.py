"""Thousands of schedules of the state protocol, and proof that they would find what is wrong.

Each test runs in processes of its own, where the order of sets is fixed and modules may be changed.
"""

import re
import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.seeds import FINDERS, REGRESSIONS

SEEDS = 10_000
#: a bound for machines that are slow or busy; on two free cores it takes about a quarter of it
LIMIT_S = 600
#: below it a broken rule is looked for where the seeds that are known to find it do not any more
FRESH = 12_000


def simulation(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def all_ran(printed: str) -> bool:
    return re.search(r"^(\d+) of \1 seeds", printed, re.MULTILINE) is not None


@pytest.mark.timeout(LIMIT_S + 60)
def test_every_schedule_comes_to_what_the_records_say():
    ran = simulation("--seeds", f"0:{SEEDS}", "--limit-s", str(LIMIT_S), timeout_s=LIMIT_S + 30)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if not all_ran(ran.stdout):
        pytest.skip(f"this machine is too busy for all of {SEEDS} seeds; of what ran, nothing failed: {ran.stdout}")


def test_seeds_that_found_a_bug_hold():
    ran = simulation("--seeds", ",".join(map(str, REGRESSIONS)))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_seed_is_a_schedule_and_runs_the_same_each_time():
    digests = [re.findall(r"trace (\w+)", simulation("--seed", str(seed)).stdout) for seed in (399, 399, 20, 20)]
    assert all(len(found) == 1 for found in digests)
    assert digests[0] == digests[1] != digests[2] == digests[3]


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.timeout(600)
def test_a_broken_rule_is_found(name: str):
    for seeds in (",".join(map(str, FINDERS[name])), f"0:{FRESH}"):
        ran = simulation("--mutation", name, "--seeds", seeds, "--stop-after", "1", "--limit-s", "200", timeout_s=280)
        if ran.returncode:
            break
    if ran.returncode == 0 and not all_ran(ran.stdout):
        pytest.skip(f"this machine is too busy: {ran.stdout}")
    assert ran.returncode == 1, f"{name} was not found: {ran.stdout}{ran.stderr}"
    assert "again with: python -m tests.simulation" in ran.stdout, ran.stdout + ran.stderr
