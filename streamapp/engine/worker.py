"""Faust's worker, less what its progress spinner costs for as long as the worker runs."""

import logging
from typing import Any

from faust.worker import Worker as StockWorker

from streamapp.errors import StreamAppError


class _WithoutFrames(logging.Filter):
    """Takes the traceback off what is logged of our own errors, whose text says all."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`; every line is kept."""
        if record.exc_info and isinstance(record.exc_info[1], StreamAppError):
            record.exc_info = record.exc_text = None
        return True


_without_frames = _WithoutFrames()


class Worker(StockWorker):  # type: ignore[misc]
    """The process of a worker, as `faust worker` starts it."""

    def on_setup_root_logger(self, logger: logging.Logger, level: int, **_: Any) -> None:
        """Leave the root logger at the level that was asked for.

        The stock method lowers it to DEBUG for a spinner that turns with every line, and never raises it again: each debug
        line of every library is then made for nobody, which at a steady trickle of records is a tenth of the worker's work.
        """
        if not self.debug:
            self.logger.addFilter(_without_frames)
