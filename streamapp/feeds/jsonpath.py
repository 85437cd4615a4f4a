"""JSONPath (RFC 9535), with a short cut for what nearly every path is: a chain of names and indices."""

import re
from collections.abc import Callable
from typing import Any

import jsonpath_rfc9535

from streamapp.errors import ConfigurationError

#: what a getter returns where the path leads nowhere (null is a value)
MISSING: Any = object()

_SIMPLE = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_]*|\[\d{1,9}\]|\['[^'\\]*'\])*")
_STEP = re.compile(r"\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[(?P<index>\d+)\]|\['(?P<quoted>[^'\\]*)'\]")


def getter(path: str) -> Callable[[Any], Any]:
    """A function from a decoded JSON value to the first node of `path`, or MISSING.

    Raises:
        ConfigurationError: the path is not valid.
    """
    if not _SIMPLE.fullmatch(path):
        compiled = _compile(path)

        def find(value: Any) -> Any:
            node = compiled.find_one(value)
            return MISSING if node is None else node.value

        return find
    steps = simple_steps(path)

    def walk(value: Any) -> Any:
        for step in steps:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return MISSING
        return value

    def first(value: Any) -> Any:
        return value.get(name, MISSING) if isinstance(value, dict) else MISSING

    if len(steps) == 1 and isinstance(steps[0], str):
        name = steps[0]
        return first
    return walk


def selector(path: str) -> Callable[[Any], list[Any]]:
    """A function from a decoded JSON value to the values of all nodes of `path`, in order.

    Raises:
        ConfigurationError: the path is not valid.
    """
    if path == "$":
        return lambda value: [value]
    if path.endswith("[*]") and _SIMPLE.fullmatch(path[:-3]):
        base = getter(path[:-3])

        def elements(value: Any) -> list[Any]:
            found = base(value)
            return found if isinstance(found, list) else list(found.values()) if isinstance(found, dict) else []

        return elements
    compiled = _compile(path)
    return lambda value: list(compiled.find(value).values())


def simple_steps(path: str) -> list[str | int]:
    """The names and indices of a simple path."""
    steps: list[str | int] = []
    for found in _STEP.finditer(path):
        if found["index"] is not None:
            steps.append(int(found["index"]))
        else:
            steps.append(found["name"] if found["name"] is not None else found["quoted"])
    return steps


def _compile(path: str) -> Any:
    try:
        return jsonpath_rfc9535.compile(path)
    except jsonpath_rfc9535.JSONPathError as problem:
        raise ConfigurationError(f"{path!r} is not a JSONPath (RFC 9535): {problem}") from None
