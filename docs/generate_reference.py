"""Writes docs/reference.md from the settings and metrics as the code declares them: `python docs/generate_reference.py`.

A test compares the file with what this would write, so that it cannot fall behind.
"""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from streamapp.metrics import Metrics
from streamapp.settings import FeedAuthSettings, FeedSettings, Settings

TARGET = Path(__file__).with_name("reference.md")


def document() -> str:
    """The whole file."""
    return "\n".join([*_settings(), *_feeds(), *_metrics()]) + "\n"


def _settings() -> Iterator[str]:
    yield "# Settings and metrics"
    yield ""
    yield "This file is written by `make docs`; the source is `streamapp/settings.py` and `streamapp/metrics.py`."
    yield ""
    yield "## Settings"
    yield ""
    yield "Highest first: the environment, `streamapp.toml` in the working directory (or the file that `STREAMAPP_CONFIG`"
    yield "names), arguments of `StreamApp(...)`, the default. In the file and as an argument a setting has its name without"
    yield "`STREAMAPP_` and in lower case; a `streamapp.toml` that is not there sets nothing. Names end in their unit: `_ms`"
    yield "milliseconds, `_bytes`, `_records`."
    yield ""
    yield from _table(Settings, "STREAMAPP_{}", str.upper)


def _feeds() -> Iterator[str]:
    yield ""
    yield "### A feed, under `[feeds.NAME]`"
    yield ""
    yield from _table(FeedSettings, "{}")
    yield ""
    yield "### How a feed proves who it is, under `[feeds.NAME.auth]`"
    yield ""
    yield "As an environment variable: `STREAMAPP_FEEDS__NAME__AUTH__SECRET`."
    yield ""
    yield from _table(FeedAuthSettings, "{}")


def _metrics() -> Iterator[str]:
    yield ""
    yield "## Metrics"
    yield ""
    yield "`GET /metrics` of a worker, and of a bridge with `STREAMAPP_BRIDGE_METRICS_PORT`. Durations are seconds."
    yield ""
    yield "| name | kind | labels | what |"
    yield "|---|---|---|---|"
    collectors = {id(item): item for item in vars(Metrics()).values() if hasattr(item, "_labelnames")}
    for metric in sorted(collectors.values(), key=lambda one: one.describe()[0].name):
        described = metric.describe()[0]
        suffix = "_total" if described.type == "counter" else ""
        labels = ", ".join(metric._labelnames)  # noqa: SLF001 - nothing public tells them
        yield f"| `{described.name}{suffix}` | {described.type} | {labels} | {described.documentation} |"


def _table(model: type[BaseModel], name: str, change: Any = str) -> Iterator[str]:
    yield "| name | values | default | what |"
    yield "|---|---|---|---|"
    for field_name, field in model.model_fields.items():
        shown = name.format(change(field_name))
        yield f"| `{shown}` | {_values(field.annotation)} | {_default(field)} | {field.description or ''} |"


def _values(annotation: Any) -> str:
    """A type as a person would say it."""
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_values(part) for part in get_args(annotation) if part is not type(None))
    if origin in (tuple, list):
        return "list"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    names = {int: "integer", float: "number", str: "text", bool: "true, false", Path: "path", SecretStr: "secret"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "" or isinstance(value, (dict, tuple, BaseModel)):
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"`{value}`"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
