"""A user's own step from state to state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import msgspec

from streamapp.errors import ConfigurationError
from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State

_pack_into, _written = msgspec.msgpack.Encoder().encode_into, bytearray()
_WRITABLE = frozenset({float, str, bytes, bool, type(None)})
_INTEGER_MIN, _INTEGER_BOUND = -(1 << 63), 1 << 64
#: larger states are not tried record by record: that would cost as much as they are large
_CHECKED_PARTS_MAX = 32


class Fold(Aggregate):
    """State that a user's function carries from record to record.

    `step(state, record)` returns the next state; it may change the one that it got, but should not raise after having done
    so. It sees each record once, in order of arrival, late ones within the grace included. States must be msgpack-able:
    numbers, text, bytes, lists and dicts of these, and None where the first state is None: else None is what a step returns
    that forgot to return anything, and the record is refused. What is written comes back as one of these, from the first
    checkpoint on: a tuple as a list, a `Counter` as a dict, so a step must not count on more.

    Without `merge` the aggregate is `ordered`. With it, `merge(a, b)` returns the state of both sets of records, must be
    associative and commutative and must have the initial state as its identity; it may not change `b`.

    Args:
        initial: the first state, copied for every key and window, or a function without parameters that makes one.
        step: from state and record to the next state.
        merge: from two states to the one of both.
        reads: the attributes that the step reads, where the caller wants the others skipped in decoding; empty means all.
            The record that the step gets then answers for the others all the same, but slowly, and cannot be kept.
        result: from state to the fields that readers see; a dict shows as it is, anything else as `{"value": state}`.
        fields: the schema of these fields, for people and tools.
        version: change it when the meaning of the state changes. Names of functions are part of the fingerprint, their
            code is not: it differs between versions of Python.
    """

    kind = "fold"
    slots = 1
    looks_at_order = False

    def __init__(
        self,
        initial: Any,
        step: Callable[[Any, Any], Any],
        merge: Callable[[Any, Any], Any] | None = None,
        *,
        reads: Sequence[str] = (),
        result: Callable[[Any], Mapping[str, Json]] | None = None,
        fields: Sequence[OutputField] = (),
        version: str = "",
    ) -> None:
        if not callable(step) or not (merge is None or callable(merge)):
            raise ConfigurationError(
                f"Fold: step and merge must be functions, such as step=lambda state, record: ...; got {step!r}, {merge!r}"
            )
        self._initial, self._step, self._merge, self._result = initial, step, merge, result
        self.reads = tuple(reads)
        self.narrow = bool(self.reads)
        self.version = version
        self.ordered = merge is None
        sample = self.initial()[0]
        self._begins_with_none = sample is None
        shown: Sequence[str] = tuple(sample) if isinstance(sample, dict) else ("value",)
        names = shown if result is None else ()
        self.fields = tuple(fields) or tuple(OutputField(str(name), "any") for name in names)

    def inputs(self, source: int) -> tuple[str, ...]:
        """What the user named, or nothing for all attributes."""
        return self.reads

    def initial(self) -> State:
        """A fresh copy of the user's initial state."""
        return [self._initial() if callable(self._initial) else deepcopy(self._initial)]

    def add(self, state: State, record: object, order: Order, source: int = 0) -> None:
        """One step of the user's function; what it raises passes through, and so does a state that cannot be written."""
        after = self._step(state[0], record)
        if after is None and not self._begins_with_none:
            raise _nothing_returned(self._step)
        _check_writable(after)
        state[0] = after

    def add_all(
        self, state: State, records: Iterator[Any], orders: Iterator[Order | None], source: int = 0
    ) -> tuple[int, Exception | None]:
        """The same for many of one key, without a call of `add` for each."""
        step, value, taken = self._step, state[0], 0
        problem = None
        try:
            for record in records:
                after = step(value, record)
                kind = type(after)
                if kind is dict or kind is list:
                    if len(after) <= _CHECKED_PARTS_MAX:
                        _pack_into(after, _written)
                elif after is None and not self._begins_with_none:
                    raise _nothing_returned(step)
                elif kind is not float:
                    _check_writable(after)
                value = after
                taken += 1
        except Exception as raised:  # a user's code
            problem = raised
        state[0] = value
        return taken, problem

    def merge(self, into: State, other: State) -> None:
        """The user's merge.

        Raises:
            TypeError: there is none; the aggregate is `ordered`.
        """
        if self._merge is None:
            raise TypeError(f"{self!r} has no merge, so its records must be added one by one, in order")
        # A copy, since a merge may return its second argument or keep parts of it.
        into[0] = self._merge(into[0], deepcopy(other[0]))

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The user's fields."""
        value = state[0]
        if self._result is not None:
            return dict(self._result(value))
        return dict(value) if isinstance(value, dict) else {"value": value}

    def parameters(self) -> Sequence[object]:
        """The initial state and the names of the functions, and the version."""
        first = self._initial
        return (
            _name(first) if callable(first) else first,
            _name(self._step),
            None if self._merge is None else _name(self._merge),
            self.version,
        )


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _nothing_returned(step: Callable[..., Any]) -> TypeError:
    return TypeError(
        f"the step {_name(step)} returned None; it has to return the new state, also where it is the old one"
    )


def _check_writable(after: Any) -> None:
    """Raise where a state cannot be written down."""
    if type(after) is int:
        if not _INTEGER_MIN <= after < _INTEGER_BOUND:
            raise OverflowError(f"expected a state of at most 64 bits, got {after}")
    elif type(after) not in _WRITABLE and (not isinstance(after, (list, dict)) or len(after) <= _CHECKED_PARTS_MAX):
        # what cannot be written shows here, with its record, and not when all is to be made durable
        _pack_into(after, _written)
