"""Log lines of a process: text for people, or one JSON object per line for machines."""

import json
import logging
import logging.config
from datetime import UTC, datetime
from typing import Any, Literal

_TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """One object per line: `time` (ISO 8601, UTC), `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; line breaks within it are escaped, so that a line stays a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def logging_config(level: str, style: Literal["text", "json"]) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`: everything to standard error, at a level, in a style."""
    json_lines = {"()": f"{JsonFormatter.__module__}.{JsonFormatter.__qualname__}"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": json_lines if style == "json" else {"format": _TEXT}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
    }


def worker_logging_config(style: Literal["text", "json"]) -> dict[str, Any] | None:
    """The same for a Faust worker, whose level comes from its command line; None leaves Faust's own text as it is."""
    if style == "text":
        return None
    config = logging_config("info", style)
    # Faust adds its own configuration, the root's level among it, to one that says so
    return {**config, "merge": True, "root": {"handlers": ["stderr"]}}


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Configure this process's logging; for commands, before anything is logged."""
    logging.config.dictConfig(logging_config(level, style))
