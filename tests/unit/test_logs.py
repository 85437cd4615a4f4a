"""Log lines that machines read."""

import json
import logging
import sys

from streamapp.logs import JsonFormatter, logging_config, worker_logging_config


def formatted(message: str, *arguments: object, exc_info: bool = False) -> str:
    record = logging.LogRecord("streamapp.test", logging.WARNING, "", 1, message, arguments, None)
    record.created = 1_790_000_040.25
    if exc_info:
        record.exc_info = sys.exc_info()
    return JsonFormatter().format(record)


def test_json_line_holds_time_level_logger_and_message() -> None:
    assert json.loads(formatted("feed %s: %d gaps", "coinbase", 2)) == {
        "time": "2026-09-21T14:14:00.250+00:00",
        "level": "warning",
        "logger": "streamapp.test",
        "message": "feed coinbase: 2 gaps",
    }


def test_json_line_stays_one_line_with_line_breaks_and_exceptions() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        line = formatted("broken:\n%s", "x", exc_info=True)
    assert "\n" not in line
    assert "ValueError: first\nsecond" in json.loads(line)["exception"]


def test_level_and_style_reach_the_configuration() -> None:
    config = logging_config("warning", "json")
    assert config["root"]["level"] == "WARNING"
    assert config["formatters"]["lines"] == {"()": "streamapp.logs.JsonFormatter"}


def test_worker_keeps_the_level_of_its_command_line() -> None:
    config = worker_logging_config("json")
    assert config is not None
    assert "level" not in config["root"]
    assert worker_logging_config("text") is None
