"""Who read what: one line of JSON per call that reads, without tokens and without values.

Off unless it is switched on. To a file it is written by a thread of its own, behind a bounded queue: a disk that is slow
loses lines, which are counted, and holds up nobody.
"""

import logging
import os
import queue
from logging.handlers import QueueListener, RotatingFileHandler
from typing import Any

import orjson
from aiohttp import web

from streamapp.clock import Clock
from streamapp.errors import ConfigurationError
from streamapp.metrics import Metrics
from streamapp.queries.access import Caller
from streamapp.queries.trace import Trace
from streamapp.settings import Settings

LOGGER = "streamapp.audit"


class _PrivateFile(RotatingFileHandler):
    """A file of bounded size that its owner alone may read, with a bounded number of earlier ones."""

    def _open(self) -> Any:
        return open(
            self.baseFilename,
            self.mode,
            encoding="utf-8",
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


class Audit:
    """Writes the record.

    Args:
        settings: whether and where to; ConfigurationError where the file cannot be opened.
        clock: when a call ended, wall time.
        metrics: lines that were lost are counted there.
    """

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self.on = settings.audit != "off"
        self._clock = clock
        self._dropped = metrics.audit_dropped
        self._logger = logging.getLogger(LOGGER)
        self._queue: queue.Queue[Any] | None = None
        self._listener: QueueListener | None = None
        if settings.audit == "file":
            self._to_file(settings)

    def _to_file(self, settings: Settings) -> None:
        path = settings.audit_file or settings.data_dir / "audit.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = _PrivateFile(
                path, maxBytes=settings.audit_file_max_bytes, backupCount=settings.audit_files_kept, encoding="utf-8"
            )
        except OSError as problem:
            raise ConfigurationError(f"audit_file: {path} cannot be written: {problem.strerror}") from None
        self._queue = queue.Queue(settings.audit_queue_max)
        self._listener = QueueListener(self._queue, handler)
        self._listener.start()

    def write(
        self,
        method: str,
        route: str,
        caller: Caller | None,
        trace: Trace | None,
        outcome: str,
        status: int,
        took_s: float,
    ) -> None:
        """Record one call, unless another worker has forwarded it, which has recorded it."""
        if caller is not None and caller.forwarded:
            return
        entry: dict[str, Any] = {
            "time": self._clock.now_ms(),
            "caller": None if caller is None else caller.name,
            "method": method,
            "route": route,
        }
        if trace is not None:
            if trace.operation:
                entry["operation"] = trace.operation
            entry |= {
                "tables": list(trace.tables),
                "keys": trace.keys,
                "key_count": trace.key_count,
                "rows": trace.rows,
            }
            outcome = trace.outcome or outcome
        entry |= {"outcome": outcome, "status": status, "duration_ms": round(took_s * 1000, 3)}
        line = orjson.dumps(entry).decode()
        if self._queue is None:
            self._logger.info("%s", line)
            return
        try:
            self._queue.put_nowait(logging.LogRecord(LOGGER, logging.INFO, "", 0, line, None, None))
        except queue.Full:
            self._dropped.inc()

    async def close(self, _application: web.Application | None = None) -> None:
        """Write what waits, and close the file."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
            for handler in listener.handlers:
                handler.close()
