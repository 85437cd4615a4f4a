"""Modules that come with their first use, and the collector that looks away while modules come."""

import gc
import sys
import threading
from pathlib import Path

import pytest

from streamapp.importing import Postponed, uncollected

THREADS = 8
SLOW = """
import time
time.sleep(0.05)
VALUE = object()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that takes a while to import."""
    name = f"slow_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_postponed_module_is_imported_by_its_first_use_alone(module: str) -> None:
    postponed = Postponed(module)
    assert module not in sys.modules
    assert postponed.VALUE is postponed.VALUE is sys.modules[module].__dict__["VALUE"]


def test_postponed_module_is_whole_in_every_thread_that_comes_to_it_at_once(module: str) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(Postponed(module).VALUE)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [sys.modules[module].__dict__["VALUE"]] * THREADS


def test_postponed_module_lacks_what_the_module_lacks(module: str) -> None:
    with pytest.raises(AttributeError, match="NOTHING"):
        _ = Postponed(module).NOTHING


def test_collector_is_on_again_after_an_import_that_fails() -> None:
    seen: list[bool] = []

    def broken() -> None:
        with uncollected():
            seen.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        broken()
    assert [*seen, gc.isenabled()] == [False, True]
