"""Fixtures of the fault suite, and its table at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.lab import OUTCOMES, Lab, Outcome, markdown


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """What a fault is run in; the shared broker starts when a run first needs it."""
    number, name = request.node.get_closest_marker("faults").args
    outcome = Outcome(number, name, request.node.callspec.params["seed"])
    made = Lab(lambda: request.getfixturevalue("kafka"), tmp_path, outcome.seed, outcome, short=True)
    yield made
    made.close()
    report = getattr(request.node, "faults_report", None)
    if report is not None:
        outcome.state = report.outcome
        outcome.seconds = round(report.duration, 1)
        if report.outcome == "skipped":
            outcome.detail = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.outcome == "failed":
            outcome.detail = str(report.longrepr)[-500:]
    OUTCOMES.append(outcome)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Keep the report of the call where the fixture can see it."""
    result = yield
    report = result.get_result()
    if report.when == "call":
        item.faults_report = report  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of faults."""
    if OUTCOMES:
        terminalreporter.section("faults")
        terminalreporter.write(markdown(OUTCOMES))
        for outcome in OUTCOMES:
            if outcome.state == "failed":
                command = f"python -m tests.faults --only {outcome.name} --seed {outcome.seed}"
                terminalreporter.write_line(f"again: {command}")
