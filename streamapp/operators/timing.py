"""Operators that space values in event time: throttle and debounce."""

from datetime import timedelta
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.operators.operator import Emissions, Operator, OperatorState


def _span_ms(what: str, value: object) -> int:
    if not isinstance(value, timedelta):
        raise ConfigurationError(f"{what}: expected a timedelta, got {value!r}; write timedelta(seconds=...)")
    ms, rest = divmod(value, timedelta(milliseconds=1))
    if rest or ms < 1:
        raise ConfigurationError(f"{what}: expected whole milliseconds, at least 1; got {value!r}")
    return ms


class _Throttle(Operator):
    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms

    def initial(self) -> OperatorState:
        return None

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        if state is not None and time_ms < state + self.interval_ms:
            return state, []
        return time_ms, [(time_ms, value)]


def throttle(interval: timedelta) -> Operator:
    """The first value of every burst, then none until the interval is over.

        time  0   1   2   3   4   5   6      interval 3
        in    a   b       c   d       e
        out   a           c           e

    A value older than the one emitted last is dropped.
    """
    return _Throttle(_span_ms("throttle", interval))


class _Debounce(Operator):
    # The state is the held value and its time, [time, value], or None.
    def __init__(self, quiet_ms: int) -> None:
        self.quiet_ms = quiet_ms

    def initial(self) -> OperatorState:
        return None

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        state, emissions = self.advance(state, time_ms)
        if state is not None and time_ms < state[0]:
            return state, emissions
        return [time_ms, value], emissions

    def advance(self, state: OperatorState, time_ms: int) -> tuple[OperatorState, Emissions]:
        due = self.due(state)
        if due is None or time_ms < due:
            return state, []
        return None, [(due, state[1])]

    def due(self, state: OperatorState) -> int | None:
        return None if state is None else state[0] + self.quiet_ms


def debounce(quiet: timedelta) -> Operator:
    """The last value of every burst, once event time has moved on by `quiet` without another.

        time  0   1   2   3   4   5   6   7      quiet 2
        in    a   b               c
        out               b               c      (at the time it was due: 3 and 7)

    While a value is held, one older than it is dropped. The output comes with the next event or `advance` at or after its
    due time, and carries the due time.
    """
    return _Debounce(_span_ms("debounce", quiet))
