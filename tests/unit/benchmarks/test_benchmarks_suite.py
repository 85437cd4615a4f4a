"""A part that fails does not take the others along."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from benchmarks import suite
from benchmarks.__main__ import main
from benchmarks.context import Context
from benchmarks.environments import PEERS, UnavailableError, python_of
from benchmarks.processes import ProcessTree
from benchmarks.sizes import PROFILES


def context(folder: Path) -> Context:
    return Context("127.0.0.1:1", ProcessTree(None), folder, folder / "envs", PROFILES["tiny"])


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("benchmarks.parts.invented")
    monkeypatch.setitem(sys.modules, "benchmarks.parts.invented", module)
    monkeypatch.setitem(suite.PARTS, "invented", 1)
    return module


async def test_part_that_raises_is_failed_with_its_error(part: Any, tmp_path: Path) -> None:
    async def measure(_: Context) -> dict[str, Any]:
        raise ValueError("no luck")

    part.measure = measure
    result = await suite.run_part("invented", context(tmp_path))
    assert (result.status, result.errors) == ("failed", ["invented: ValueError: no luck"])


async def test_part_that_measured_something_is_partial(part: Any, tmp_path: Path) -> None:
    async def measure(surroundings: Context) -> dict[str, Any]:
        surroundings.fail("one engine")
        surroundings.skip("another")
        return {"figure": 1}

    part.measure = measure
    result = await suite.run_part("invented", context(tmp_path))
    assert (result.status, result.figures) == ("partial", {"figure": 1})
    assert (result.errors, result.skipped) == (["one engine"], ["another"])


async def test_every_part_can_be_imported() -> None:
    for name in suite.PARTS:
        module = __import__(f"benchmarks.parts.{name}", fromlist=["measure"])
        assert callable(module.measure)


def test_environment_that_cannot_be_made_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.environments.shutil.which", lambda *_, **__: "/nonexistent/uv")
    with pytest.raises(UnavailableError, match="uv: "):
        python_of("quix", tmp_path)


def test_profiles_shrink() -> None:
    full, quick, tiny = (PROFILES[name] for name in ("full", "quick", "tiny"))
    assert full.trades > quick.trades > tiny.trades
    assert full.keys > quick.keys > tiny.keys


def test_peers_import_nothing_of_this_project() -> None:
    programs = [path for path in PEERS.glob("*.py") if path.name != "__init__.py"]
    assert len(programs) >= 5
    for program in programs:
        text = program.read_text()
        assert "streamapp" not in text, program
        assert "benchmarks" not in text, program


@pytest.mark.parametrize(
    "arguments", [["--only", "nothing"], ["--engines", "nobody"], ["--rounds", "0"], ["--profile", "huge"]]
)
def test_wrong_usage_ends_with_2(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
