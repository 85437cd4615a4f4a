"""The worker's process, as Faust starts it."""

import logging
import os
import subprocess
import sys

import pytest

from streamapp import StreamApp
from streamapp.engine.worker import Worker
from streamapp.errors import ConfigurationError


def _worker(*, debug: bool = False) -> Worker:
    worker = object.__new__(Worker)
    worker.spinner = object()  # type: ignore[assignment]
    worker.debug = debug
    return worker


def test_app_is_run_by_this_worker() -> None:
    assert StreamApp("levels").conf.Worker is Worker


def test_root_logger_keeps_the_level_and_handlers_that_were_asked_for() -> None:
    handler = logging.NullHandler()
    root = logging.Logger("root", logging.WARNING)
    root.addHandler(handler)
    worker = _worker()
    worker.on_setup_root_logger(root, logging.WARNING)
    assert root.level == logging.WARNING
    assert root.handlers == [handler]


@pytest.mark.parametrize(
    ("problem", "debug", "has_frames"),
    [
        (ConfigurationError("of ours"), False, False),
        (ConfigurationError("of ours"), True, True),
        (KeyError(1), False, True),
    ],
)
def test_our_own_errors_are_logged_without_a_traceback(
    problem: Exception, debug: bool, has_frames: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, lines = _worker(debug=debug), []
    monkeypatch.setattr(worker.logger, "filters", [])
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lines.append)
    monkeypatch.setattr(worker.logger, "handlers", [handler])
    worker.on_setup_root_logger(logging.Logger("root"), logging.INFO)
    try:
        raise problem
    except Exception as raised:
        worker.logger.exception("Error: %r", raised)
    assert [line.getMessage() for line in lines] == [f"Error: {problem!r}"]
    assert bool(lines[0].exc_info) is has_frames


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("STREAMAPP_WEB_HOST", "0.0.0.0", "without a token"), ("STREAMAPP_PARTITIONS", "x", "STREAMAPP_PARTITIONS: ")],
)
def test_built_in_application_says_in_one_line_which_setting_cannot_be_used(name: str, value: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import streamapp.worker"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("streamapp: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
