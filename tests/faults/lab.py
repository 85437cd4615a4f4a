"""What a fault is run in, how a fault is declared, and what came of each run."""

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import World

Run = Callable[..., None]


@dataclass(frozen=True)
class Fault:
    """One fault of the suite.

    Attributes:
        number: of the table of faults.
        name: what the runner and the table call it.
        title: in words.
        run: takes a `Lab`.
        module: where it is.
    """

    number: int
    name: str
    title: str
    run: Run
    module: str


@dataclass
class Outcome:
    """What came of one run. `state` is `passed`, `failed` or `skipped`."""

    number: int
    name: str
    seed: int
    state: str = "passed"
    events: int = 0
    compared: int = 0
    differences: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    detail: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


#: all faults, in order of their modules' import
FAULTS: list[Fault] = []
#: all runs of this process
OUTCOMES: list[Outcome] = []


class Lab:
    """One run of one fault: brokers on demand, a folder, a seed, and the figures that it leaves.

    Args:
        kafka: starts, or finds, the broker that runs may share; its `host:port`.
        folder: of this run alone.
        seed: decides all that is random.
        outcome: filled in while the run goes on.
        short: whether the run is one of many tests, and should leave out what takes longest.
    """

    def __init__(
        self, kafka: Callable[[], str], folder: Path, seed: int, outcome: Outcome, *, short: bool = False
    ) -> None:
        self._kafka = kafka
        self.folder = folder
        self.seed = seed
        self.outcome = outcome
        self.short = short
        self._worlds: list[World] = []

    @property
    def kafka(self) -> str:
        """`host:port` of the shared broker."""
        return self._kafka()

    def world(self, brokers: str | None = None, **options: Any) -> World:
        """An application of this run's own; use it as a context."""
        world = World(brokers or self.kafka, self.folder, options.pop("seed", self.seed), **options)
        self._worlds.append(world)
        return world

    def count(self, *, events: int = 0, compared: int = 0, differences: int = 0, **figures: Any) -> None:
        """Add to what the table shows, for what happens outside of worlds."""
        self.outcome.events += events
        self.outcome.compared += compared
        self.outcome.differences += differences
        self.outcome.figures.update(figures)

    def close(self) -> None:
        """Sum up the worlds."""
        for world in self._worlds:
            self.count(
                events=world.events,
                compared=world.comparison.total,
                differences=len(world.comparison.differing),
                **world.figures,
            )
        self._worlds.clear()


def fault(number: int, title: str, *, seeds: Sequence[int] = (1,), timeout_s: int = 300) -> Callable[[Run], Run]:
    """Declare a test to be a run of this fault: the runner finds it, and CI runs it with these seeds."""

    def decorate(run: Run) -> Run:
        name = run.__name__.removeprefix("test_")
        FAULTS.append(Fault(number, name, title, run, run.__module__))
        marked = pytest.mark.timeout(timeout_s)(pytest.mark.faults(number, name)(run))
        return pytest.mark.parametrize("seed", seeds)(pytest.mark.usefixtures("seed")(marked))

    return decorate


def execute(fault: Fault, seed: int, kafka: Callable[[], str], folder: Path) -> Outcome:
    """Run one fault once; a failure is told in the outcome."""
    outcome = Outcome(fault.number, fault.name, seed)
    OUTCOMES.append(outcome)
    lab = Lab(kafka, folder, seed, outcome)
    began, cpu = time.monotonic(), _cpu_s()
    try:
        fault.run(lab)
    except pytest.skip.Exception as skipped:
        outcome.state, outcome.detail = "skipped", str(skipped)
    except KeyboardInterrupt:
        OUTCOMES.remove(outcome)  # stopped half-way, it says nothing
        raise
    except BaseException as problem:
        outcome.state, outcome.detail = "failed", _told(problem)
        if not isinstance(problem, Exception | pytest.fail.Exception):
            raise
    finally:
        lab.close()
        outcome.seconds = round(time.monotonic() - began, 1)
        outcome.cpu_s = round(_cpu_s() - cpu, 1)
    return outcome


def _cpu_s() -> float:
    """Seconds of processor time of this process and of the children that have ended."""
    return sum(os.times()[:4])


def _told(problem: BaseException) -> str:
    """The message and where it came from."""
    steps = traceback.extract_tb(problem.__traceback__)[-4:]
    where = " < ".join(f"{Path(step.filename).name}:{step.lineno}" for step in reversed(steps))
    return f"{type(problem).__name__} ({where}): {problem}"


@dataclass
class Line:
    """One fault over all of its seeds."""

    number: int
    name: str
    seeds: int = 0
    events: int = 0
    compared: int = 0
    differences: int = 0
    failed: list[int] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    """The table, in order of the faults."""
    found: dict[tuple[int, str], Line] = {}
    for outcome in outcomes:
        line = found.setdefault((outcome.number, outcome.name), Line(outcome.number, outcome.name))
        if outcome.state == "skipped":
            line.skipped = outcome.detail
            continue
        line.seeds += 1
        line.events += outcome.events
        line.compared += outcome.compared
        line.differences += outcome.differences
        line.seconds += outcome.seconds
        if outcome.state == "failed":
            line.failed.append(outcome.seed)
    return [found[place] for place in sorted(found)]


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table as text."""
    rows = [
        "| # | run | seeds | events | values compared | differences | failed seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines(outcomes):
        failed = ", ".join(map(str, line.failed)) or ("skipped: " + line.skipped if not line.seeds else "none")
        cells = [str(line.number), line.name.replace("_", " "), str(line.seeds), f"{line.events:,}"]
        cells += [f"{line.compared:,}", str(line.differences), failed]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Every run, for machines."""
    return json.dumps([vars(outcome) for outcome in outcomes], indent=1, default=str) + "\n"
