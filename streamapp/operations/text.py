"""An answer as compact text: the same content as its JSON at a fraction of the tokens.

Names and values one a line; lists of like things as a head line and comma-separated rows. Text of others was made harmless
before (`untrusted`), so a row cannot be broken by what it holds.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def render(answer: BaseModel) -> str:
    """The whole answer; the freshness comes last, because that is what must not be overlooked."""
    content = answer.model_dump(mode="json")
    freshness = content.pop("freshness", None)
    lines: list[str] = []
    for name, value in content.items():
        _add(lines, name, value)
    if freshness is not None:
        lines.append(f"freshness: {_pairs(freshness)}")
    return "\n".join(lines)


def _add(lines: list[str], name: str, value: Any) -> None:
    if isinstance(value, str) and "\n" in value:
        lines.append(f"{name}:\n{value}")
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        _add_rows(lines, name, value)
    elif isinstance(value, dict):
        lines.append(f"{name}: {_pairs(value)}")
    elif isinstance(value, list):
        lines.append(f"{name}: {', '.join(_cell(one) for one in value) or 'none'}")
    else:
        lines.append(f"{name}: {_cell(value)}")


def _add_rows(lines: list[str], name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    lines.append(f"{name} ({len(rows)}): {','.join(columns)}")
    lines += [",".join(_cell(row.get(column)) for column in columns) for row in flat]


def _flat(row: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and value and "untrusted_text" not in value:
            found.update(_flat(value, f"{head}{name}."))
        else:
            found[head + name] = value
    return found


def _pairs(value: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_cell(one)}" for name, one in _flat(value).items()) or "none"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        plain = "," not in value and "\n" not in value and value
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + " ".join(_cell(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict) else str(value)
