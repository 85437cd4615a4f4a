"""The protocol's official conformance suite for servers, on both wires, with nothing expected to fail.

What needs no fixtures runs against a real worker; everything runs against a server of fixtures behind the same bridge and
checks. Needs node's npm, which brings a newer node and the suite; without it the tests are skipped.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.node_packages import NodePackages
from tests.fakes.processes import Child, Topics
from tests.fakes.user_apps import START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
WIRES = pytest.mark.parametrize("wire", ["2025-11-25", "2026-07-28"])
#: scenarios that ask for nothing by name, by wire
WITHOUT_FIXTURES = {
    "2025-11-25": (
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
    ),
    "2026-07-28": (
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "sep-2164-resource-not-found",
        "caching",
        "http-header-validation",
    ),
}
#: scenarios that a whole run has at least, so that an empty one is no success
LEAST = {"2025-11-25": 33, "2026-07-28": 40}


class Suite:
    """The suite as a command.

    Args:
        folder: where it is installed.
    """

    def __init__(self, folder: Path) -> None:
        self._packages = NodePackages(folder, "@modelcontextprotocol/conformance@0.2.0-alpha.12")
        self._baseline = folder / "expected-failures.yml"
        self._baseline.write_text("server: []\n")

    def run(self, url: str, wire: str, *options: str) -> list[tuple[str, int, int]]:
        """Scenario, checks passed, checks failed; fails where the suite itself is not content."""
        done = self._packages.run(
            "conformance",
            *("server", "--url", url, "--spec-version", wire, "--expected-failures", str(self._baseline)),
            *options,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, told[-6_000:]
        found = re.findall(r"^[✓✗] ([\w-]+): (\d+) passed, (\d+) failed", told, re.MULTILINE)
        single = re.findall(r"^Passed: (\d+)/\d+, (\d+) failed", told, re.MULTILINE)
        results = [(name, int(passed), int(failed)) for name, passed, failed in found]
        results += [(options[-1], int(passed), int(failed)) for passed, failed in single]
        assert results, told[-6_000:]
        return results


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("conformance"))


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    command = [sys.executable, "-m", "tests.fakes.mcp_fixtures"]
    with Child("fixtures", command, tmp_path_factory.mktemp("fixtures"), cwd=ROOT) as child:
        yield child


@WIRES
def test_every_scenario_passes_through_the_bridge(suite: Suite, fixtures: Child, wire: str) -> None:
    port = fixtures.line(r"^port (\d+)")
    results = suite.run(f"http://127.0.0.1:{port}/mcp", wire, "--suite", "all")
    assert [name for name, _, failed in results if failed] == []
    assert len(results) >= LEAST[wire]


def test_scenarios_without_fixtures_pass_on_a_worker(suite: Suite, kafka: str, tmp_path: Path) -> None:
    app = UserApp(Topics(kafka), tmp_path)
    with app.worker() as worker:
        worker.until_ready()
        app.send(trade("A", START), trade("B", START + 1))
        app.drained(worker)
        for wire, scenarios in WITHOUT_FIXTURES.items():
            for scenario in scenarios:
                results = suite.run(f"http://127.0.0.1:{worker.port}/mcp", wire, "--scenario", scenario)
                assert [(passed > 0, failed) for _, passed, failed in results] == [(True, 0)], (wire, scenario)
