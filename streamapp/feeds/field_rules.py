"""How one field of a record is taken from a frame of a generic feed."""

import json
import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from streamapp.feeds.jsonpath import MISSING, getter
from streamapp.feeds.market import Instant, Unusable, instant_ms
from streamapp.feeds.protocol import BAD_NUMBER, BAD_TIME, WRONG_TYPE

Kind = Literal["number", "integer", "text", "upper", "ms", "s", "us", "ns", "iso"]
_US_PER_UNIT = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}


class FieldRule(BaseModel):
    """Where a field comes from: exactly one of `path`, `value` and `arrival`.

    Attributes:
        path: a JSONPath.
        of: what the path starts from: the record's own element, or the whole frame.
        value: a constant.
        arrival: the time of arrival, milliseconds.
        kind: what to make of it. `number` and `integer` accept JSON strings; `upper` is text in upper case; the time
            units and `iso` (RFC 3339 with a zone) give milliseconds since the epoch, rounded down.
        map: replaces values before `kind` applies; the values' text is looked up, and what is not in it is refused.
        optional: null and absence leave the field to the model's default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    path: str | None = None
    of: Literal["record", "frame"] = "record"
    value: Any = None
    arrival: bool = False
    kind: Kind | None = None
    map: dict[str, Any] = Field(default_factory=dict)
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_source(self) -> "FieldRule":
        if (self.path is not None) + (self.value is not None) + self.arrival != 1:
            raise ValueError("give exactly one of path, value and arrival")
        return self

    def compile(self) -> Callable[[Any, Any, int], Any]:
        """A function (element, frame, now_ms) -> value or MISSING; raises Unusable.

        Raises:
            ConfigurationError: the path is not valid.
        """
        if self.arrival:
            return lambda element, frame, now_ms: now_ms
        if self.path is None:
            constant = self.value
            return lambda element, frame, now_ms: constant
        get, whole, kind, mapping, optional = getter(self.path), self.of == "frame", self.kind, self.map, self.optional

        def take(element: Any, frame: Any, now_ms: int) -> Any:
            found = get(frame if whole else element)
            if found is MISSING or (found is None and optional):
                return MISSING
            if mapping:
                text = found if isinstance(found, str) else json.dumps(found)
                if text not in mapping:
                    raise Unusable(
                        WRONG_TYPE, f"expected one of {', '.join(mapping)} at {self.path}, got {text[:80]!r}"
                    )
                found = mapping[text]
            return found if kind is None else convert(found, kind, self.path)

        return take


def convert(value: Any, kind: Kind, where: str | None) -> Any:
    """Apply a `kind` to a decoded JSON value; raises Unusable."""
    if kind in ("text", "upper"):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Unusable(WRONG_TYPE, f"expected text at {where}, got {type(value).__name__}")
        return str(value).upper() if kind == "upper" else str(value)
    if kind == "iso":
        try:
            return instant_ms(msgspec.convert(value, Instant))
        except msgspec.ValidationError as problem:
            raise Unusable(BAD_TIME, f"{problem} at {where}") from None
    number = _number(value, where)
    if kind == "number":
        return number
    if kind == "integer":
        if number != int(number):
            raise Unusable(BAD_NUMBER, f"expected a whole number at {where}, got {number}")
        return int(number)
    if isinstance(number, int):
        # exact: nanoseconds do not fit into a double
        whole = {"s": number * 1000, "ms": number, "us": number // 1000, "ns": number // 1_000_000}[kind]
    else:
        whole = round(number * _US_PER_UNIT[kind]) // 1000
    if not 0 <= whole <= 253_402_300_799_999:
        raise Unusable(BAD_TIME, f"expected a time from 1970 to 9999 in {kind} at {where}, got {number}")
    return whole


def _number(value: Any, where: str | None) -> int | float:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            raise Unusable(BAD_NUMBER, f"expected a number at {where}, got {value[:80]!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(WRONG_TYPE, f"expected a number at {where}, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unusable(BAD_NUMBER, f"expected a finite number at {where}, got {value}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise Unusable(BAD_NUMBER, f"expected a number of at most 64 bits at {where}")
    return value
