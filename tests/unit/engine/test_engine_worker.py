"""The worker's process, as Faust starts it."""

import logging

from streamapp import StreamApp
from streamapp.engine.worker import Worker


def test_app_is_run_by_this_worker() -> None:
    assert StreamApp("levels").conf.Worker is Worker


def test_root_logger_keeps_the_level_and_handlers_that_were_asked_for() -> None:
    handler = logging.NullHandler()
    root = logging.Logger("root", logging.WARNING)
    root.addHandler(handler)
    worker = object.__new__(Worker)
    worker.spinner = object()  # type: ignore[assignment]
    worker.on_setup_root_logger(root, logging.WARNING)
    assert root.level == logging.WARNING
    assert root.handlers == [handler]
