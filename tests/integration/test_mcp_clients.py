"""Clients that others wrote, against a real worker: the inspector's command line, and an agent of LangChain."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.agent_app import KEYS, MODULE, calls, fill
from tests.fakes.node_packages import NodePackages
from tests.fakes.processes import Topics, Worker
from tests.fakes.user_apps import UserApp

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CALLS = calls(*KEYS)
INSTALL_S, RUN_S = 240, 120


@pytest.fixture(scope="module")
def worker(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    app = UserApp(Topics(kafka), tmp_path_factory.mktemp("clients"), MODULE)
    with app.worker() as worker:
        worker.until_ready()
        fill(app, worker)
        yield worker


def test_inspector_lists_and_calls_every_tool(worker: Worker, tmp_path: Path) -> None:
    packages = NodePackages(tmp_path, "@modelcontextprotocol/inspector@2.12.0")

    def inspect(*arguments: str) -> dict[str, object]:
        done = packages.run(
            "mcp-inspector",
            *("--cli", f"http://127.0.0.1:{worker.port}/mcp", "--transport", "http", "--method", *arguments),
            timeout_s=RUN_S,
        )
        assert done.returncode == 0, (arguments, done.stdout[-2_000:] + done.stderr[-2_000:])
        found: dict[str, object] = json.loads(done.stdout)
        return found

    assert [tool["name"] for tool in inspect("tools/list")["tools"]] == list(CALLS)  # type: ignore[index,union-attr,attr-defined]
    for name, given in CALLS.items():
        words = [f"{field}={value if isinstance(value, str) else json.dumps(value)}" for field, value in given.items()]
        options = [option for word in words for option in ("--tool-arg", word)]
        answer = inspect("tools/call", "--tool-name", name, *options)
        assert not answer.get("isError"), (name, answer)
        assert "freshness" in answer["structuredContent"], name  # type: ignore[operator]


def test_langchain_agent_does_its_tasks_through_the_adapters(worker: Worker, tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    requirements = ROOT / "requirements" / "langchain-agent.txt"
    for command in (
        ("venv", "--quiet", str(tmp_path / "env")),
        ("pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(requirements)),
    ):
        subprocess.run([sys.executable, "-m", "uv", *command], check=True, timeout=INSTALL_S)
    done = subprocess.run(
        [
            str(python),
            str(ROOT / "tests" / "fakes" / "langchain_agent.py"),
            f"http://127.0.0.1:{worker.port}/mcp",
            json.dumps(CALLS),
        ],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found = json.loads(done.stdout)
    assert sorted(found["tools"]) == sorted(CALLS)
    assert all(found["tools"].values()), found["tools"]
    level, highest, waited = found["tasks"].values()
    assert "x:S3" in level
    assert "105" in level
    assert "x:S7" in highest
    assert "109" in highest
    assert "x:S1" in waited
    assert "103" in waited
