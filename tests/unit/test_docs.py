"""What the documents say is what the code does, where that can be checked."""

import importlib.util
import inspect
import re
import runpy
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from streamapp.cli.main import COMMANDS
from streamapp.metrics import Metrics
from streamapp.settings import FeedSettings, Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], key=str)
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_is_what_the_code_declares() -> None:
    generator = load(ROOT / "docs" / "generate_reference.py")
    assert (ROOT / "docs" / "reference.md").read_text() == generator.document(), "run: make docs"


def test_reference_names_every_setting_and_metric() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert all(f"`STREAMAPP_{name.upper()}`" in reference for name in Settings.model_fields)
    names = [metric.name for metric in Metrics().registry.collect()]
    assert len(names) > 20
    assert all(f"`{name}" in reference for name in names)


@pytest.mark.parametrize("model", [Settings, FeedSettings])
def test_setting_has_a_description(model: type[Settings] | type[FeedSettings]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_setting_in_a_document_exists() -> None:
    known = {f"STREAMAPP_{name.upper()}" for name in Settings.model_fields}
    # read by the commands, or naming the file of the settings
    known |= {"STREAMAPP_CONFIG", "STREAMAPP_URL", "STREAMAPP_TOKEN", "STREAMAPP_TEST_BROKERS"}
    files = [*DOCUMENTS, ROOT / "Procfile", ROOT / "docker" / "Dockerfile", ROOT / "docker" / "compose.yaml"]
    for file in files:
        named = set(re.findall(r"STREAMAPP_[A-Z0-9_]*[A-Z0-9]", file.read_text()))
        unknown = {name for name in named if name not in known and not name.startswith("STREAMAPP_FEEDS__")}
        assert unknown == set(), file


def test_readme_shows_the_example_as_it_is() -> None:
    shown = CODE_BLOCK.findall((ROOT / "README.md").read_text())
    example = (ROOT / "examples" / "prices.py").read_text()
    assert len(shown) == 1
    assert example.endswith(shown[0])
    assert len(shown[0].splitlines()) <= 22


def test_example_declares_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMAPP_CONFIG", raising=False)
    app = load(ROOT / "examples" / "prices.py").app
    assert list(app.engine.tables) == ["candles"]
    assert app.engine.tables["candles"].input_topics == ("trades",)


def test_how_to_runs(tmp_path: Path) -> None:
    blocks = CODE_BLOCK.findall((ROOT / "docs" / "how-to.md").read_text())
    assert len(blocks) >= 4
    script = tmp_path / "how_to.py"
    script.write_text("\n".join(blocks))
    names = runpy.run_path(str(script))
    tests = [item for name, item in names.items() if name.startswith("test_") and inspect.isfunction(item)]
    assert tests
    for test in tests:
        test()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_link_in_a_document_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        path = (document.parent / file) if file else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], target


def test_command_in_a_document_exists() -> None:
    for document in [*DOCUMENTS, ROOT / "Procfile"]:
        for command in re.findall(r"^(?:\$ |.*exec )streamapp (\w+)", document.read_text(), re.MULTILINE):
            assert command in COMMANDS, document


def test_locked_requirements_have_hashes_and_no_addresses() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    wanted = {"base": declared["dependencies"], "local": extras["local"], "dev": extras["local"] + extras["dev"]}
    for name, requirements in wanted.items():
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text
        locked = re.findall(r"^([a-z0-9][\w.-]*)==\S+(.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", text, re.MULTILINE)
        assert len(locked) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)), f"{name}: a line without a hash"
        packages = {package for package, _ in locked}
        missing = {re.split(r"[<>=\[ ;]", line)[0].lower().replace("_", "-") for line in requirements} - packages
        assert missing == set(), f"{name}: run make lock"


def test_worker_is_pinned_to_the_faust_whose_internals_the_engine_knows() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "faust-streaming==0.15.3" in declared["dependencies"]
