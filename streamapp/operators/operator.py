"""What an operator is, and how operators compose.

An operator holds parameters only. Its state is a value that JSON and msgpack can carry; its inputs and outputs are values
with an event time. Time moves only with events: nothing here looks at a clock.

    value at time ──▶ step(state, time, value) ──▶ (next state, [(time, output), ...])
    time alone    ──▶ advance(state, time)     ──▶ (next state, [(time, output), ...])
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

from streamapp.errors import ConfigurationError

OperatorState: TypeAlias = Any
"""None, bool, numbers, text, or lists and dicts of these."""
Emissions: TypeAlias = list[tuple[int, Any]]
"""Outputs with their event times, ascending."""


class Operator(ABC):
    """One step of a chain, for one key.

    Neither `step` nor `advance` changes the state that it is given. `advance` emits only what is due at or before the given
    time, each output at the time it was due, so it does not matter how often or how late it is called. `step` at a time
    includes `advance` to it.
    """

    @abstractmethod
    def initial(self) -> OperatorState:
        """The state before any value."""

    @abstractmethod
    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        """Take one value in.

        Args:
            state: of this operator.
            time_ms: the value's event time; may be below that of the value before.
            value: whatever the operator works on.
        """

    def advance(self, state: OperatorState, time_ms: int) -> tuple[OperatorState, Emissions]:
        """Tell the operator that event time has reached `time_ms`, without a value."""
        return state, []

    def due(self, state: OperatorState) -> int | None:
        """The event time from which on `advance` has something to emit, or None."""
        return None

    def __or__(self, other: "Operator") -> "Operator":
        """`a | b` is `pipe(a, b)`."""
        return pipe(self, other)


class Pipe(Operator):
    """Operators in a row; its state is the list of theirs.

        value ──▶ a ──▶ b ──▶ c ──▶ output

    Piping is associative: pipes within pipes are laid flat.
    """

    def __init__(self, stages: Sequence[Operator]) -> None:
        self.stages = tuple(stages)

    def initial(self) -> OperatorState:
        """The stages' initial states."""
        return [stage.initial() for stage in self.stages]

    def step(self, state: OperatorState, time_ms: int, value: Any) -> tuple[OperatorState, Emissions]:
        """Send the value through all stages; those that it does not reach learn the time."""
        return self._run(state, time_ms, [(time_ms, value)])

    def advance(self, state: OperatorState, time_ms: int) -> tuple[OperatorState, Emissions]:
        """Let every stage emit what is due, and the stages after it take that in."""
        return self._run(state, time_ms, [])

    def _run(self, state: OperatorState, time_ms: int, emissions: Emissions) -> tuple[OperatorState, Emissions]:
        after = []
        for stage, stage_state in zip(self.stages, state, strict=True):
            current, emitted = stage_state, []
            for at, value in emissions:
                current, outputs = stage.step(current, at, value)
                emitted += outputs
            current, outputs = stage.advance(current, time_ms)
            after.append(current)
            emissions = emitted + outputs
        return after, emissions

    def due(self, state: OperatorState) -> int | None:
        """The earliest of the stages."""
        times = [stage.due(part) for stage, part in zip(self.stages, state, strict=True)]
        return min((time for time in times if time is not None), default=None)


def pipe(*operators: Operator) -> Operator:
    """Operators in a row, as one operator.

    Raises:
        ConfigurationError: none given, or something that is not an operator.
    """
    stages: list[Operator] = []
    for operator in operators:
        if not isinstance(operator, Operator):
            raise ConfigurationError(
                f"pipe: expected operators, such as map_(...) or throttle(...); got {operator!r}. Wrap functions in map_"
            )
        stages += operator.stages if isinstance(operator, Pipe) else [operator]
    if not stages:
        raise ConfigurationError("pipe: expected at least one operator, got none")
    return stages[0] if len(stages) == 1 else Pipe(stages)
