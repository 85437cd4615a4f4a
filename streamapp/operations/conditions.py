"""Conditions such as `close > 70000 and count >= 10` on the fields of one value."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streamapp.errors import BadParameterError
from streamapp.queries.model import FieldInfo

CONDITION_MAX_CHARS = 300
_TERMS_MAX = 8
_TERM = re.compile(
    r"(?P<field>[A-Za-z_][A-Za-z0-9_]*)\s*(?P<sign>>=|<=|==|!=|>|<|=)\s*"
    r"(?P<value>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?|true|false|null|'[^']{0,64}'|\"[^\"]{0,64}\"|[A-Za-z_]+)"
    r"(?=\s|&&|\Z)",
    re.ASCII,
)
_AND = re.compile(r"\s+and\s+|\s*&&\s*", re.IGNORECASE)
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None, "none": None}
#: what constants a field of a type may equal; others would never do so, and nobody would be told
_KINDS: Mapping[str, type] = {"number": float, "integer": float, "string": str, "boolean": bool}


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison of a field with a constant."""

    field: str
    sign: str
    value: float | str | bool | None

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Whether it is true; comparisons of order with null or with another type are false."""
        have = _told(value.get(self.field))
        if self.sign in ("=", "==", "!="):
            return _SIGNS[self.sign](have, self.value)
        number = isinstance(have, (int, float)) and not isinstance(have, bool)
        return number and _SIGNS[self.sign](have, self.value)


def _told(value: Any) -> Any:
    """A field as readers are told it: another worker judges what it was told, and both have to find the same."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (int, str, list, dict)):
        return value
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparisons that all have to hold."""

    text: str
    terms: tuple[Term, ...]

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Whether every term is true of a value's fields."""
        return all(term.holds(value) for term in self.terms)


def parse(text: str, fields: Sequence[FieldInfo]) -> Condition:
    """A condition on these fields.

    Args:
        text: comparisons of a field with a number, a word, `true`, `false` or `null`, joined by `and`.
        fields: what may be compared.

    Raises:
        BadParameterError: it cannot be read, or names a field that is not there; the message lists what is.
    """
    known = {field.name: field for field in fields}
    text = text.strip()
    terms: list[Term] = []
    at = 0
    while True:
        found = _TERM.match(text, at)
        joined = _AND.match(text, found.end()) if found is not None else None
        if found is None or (joined is None and found.end() < len(text)):
            raise BadParameterError(
                "condition",
                f"cannot read {text[at : at + 80]!r}; write comparisons joined by `and`, such as `{_example(fields)}`",
            )
        terms.append(_term(found, known))
        if len(terms) > _TERMS_MAX:
            raise BadParameterError("condition", f"at most {_TERMS_MAX} comparisons, got more")
        if joined is None:
            return Condition(text, tuple(terms))
        at = joined.end()


def parse_bounded(text: str, fields: Sequence[FieldInfo]) -> Condition:
    """The same, of text that nothing has bounded yet."""
    if len(text) > CONDITION_MAX_CHARS:
        raise BadParameterError(
            "condition", f"a condition has at most {CONDITION_MAX_CHARS} characters, got {len(text)}"
        )
    return parse(text, fields)


def _example(fields: Sequence[FieldInfo]) -> str:
    kinds = (("number", "integer"), ("any",))
    numeric = next((field.name for kind in kinds for field in fields if field.type in kind), None)
    return f"{numeric} > 70000" if numeric or not fields else f"{fields[0].name} = word"


def _term(found: re.Match[str], known: Mapping[str, FieldInfo]) -> Term:
    name, sign, raw = found["field"], found["sign"], found["value"]
    if name not in known:
        raise BadParameterError(
            "condition", f"the table has no field {name[:80]!r}; it has {', '.join(known) or 'none that are declared'}"
        )
    value = _constant(raw)
    if sign not in ("=", "==", "!=") and not isinstance(value, float):
        raise BadParameterError("condition", f"{sign} compares numbers, got {raw[:80]}")
    kinds = _KINDS.get(known[name].type)
    if kinds is not None and value is not None and not isinstance(value, kinds):
        how = "in quotes" if kinds is str else "as a number" if kinds is float else "as true or false"
        raise BadParameterError("condition", f"{name[:80]} is a {known[name].type}, got {raw[:80]}; write it {how}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadParameterError("condition", f"{raw[:80]} is beyond every number; expected one below 1e308")
    return Term(name, sign, value)


def _constant(raw: str) -> float | str | bool | None:
    if raw.lower() in _WORDS:  # models write them as Python does, too; a text that reads so is quoted
        constant: bool | None = _WORDS[raw.lower()]
        return constant
    if raw[0] in "'\"":
        return raw[1:-1]
    return raw if raw[0].isalpha() or raw[0] == "_" else float(raw)
