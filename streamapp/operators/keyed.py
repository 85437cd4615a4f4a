"""One operator over many keys: bounded state per key, and the loop over an async stream."""

import heapq
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Hashable
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.operators.operator import Operator, OperatorState

DEFAULT_MAX_KEYS = 100_000


class PerKey:
    """An operator's state for each of many keys, at most `max_keys`; the key unused for longest is forgotten first.

    A forgotten key starts anew if it comes back, and what it held (a debounced value, say) is lost; `evicted` counts them.
    Event time is common to all keys: it is the greatest seen, and moves every key's pending outputs.

    Args:
        operator: what to run for each key.
        max_keys: the bound, at least 1.

    Attributes:
        time_ms: the greatest event time seen, or None.
        evicted: how many keys have been forgotten.
    """

    def __init__(self, operator: Operator, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        if max_keys < 1:
            raise ConfigurationError(f"per_key: max_keys must be at least 1, got {max_keys!r}")
        self.operator = operator
        self.max_keys = max_keys
        self.time_ms: int | None = None
        self.evicted = 0
        self._states: OrderedDict[Hashable, OperatorState] = OrderedDict()
        # (due time, serial, key); entries that no longer hold are skipped when they come up.
        self._due: list[tuple[int, int, Hashable]] = []
        self._serial = 0

    def step(self, key: Hashable, time_ms: int, value: Any) -> list[tuple[Hashable, int, Any]]:
        """Take one value of one key in.

        Returns:
            (key, event time, output) of this key and of all whose outputs became due, those first.
        """
        emitted = self.advance(time_ms)
        # Popped and set again, so that the key counts as used last.
        before = self._states.pop(key) if key in self._states else self.operator.initial()
        after, outputs = self.operator.step(before, time_ms, value)
        self._states[key] = after
        if len(self._states) > self.max_keys:
            self._states.popitem(last=False)
            self.evicted += 1
        self._schedule(key, after, self.operator.due(before))
        emitted += [(key, at, output) for at, output in outputs]
        return emitted

    def advance(self, time_ms: int) -> list[tuple[Hashable, int, Any]]:
        """Move event time forward for all keys; earlier times than the greatest seen change nothing."""
        if self.time_ms is not None and time_ms <= self.time_ms:
            return []
        self.time_ms = time_ms
        emitted: list[tuple[Hashable, int, Any]] = []
        while self._due and self._due[0][0] <= time_ms:
            due, _, key = heapq.heappop(self._due)
            if key not in self._states or self.operator.due(self._states[key]) != due:
                continue
            self._states[key], outputs = self.operator.advance(self._states[key], time_ms)
            self._schedule(key, self._states[key], due)
            emitted += [(key, at, output) for at, output in outputs]
        return emitted

    def snapshot(self) -> list[tuple[Hashable, OperatorState]]:
        """Keys and states, the one unused for longest first; what `restore` takes."""
        return list(self._states.items())

    def restore(self, states: list[tuple[Hashable, OperatorState]], time_ms: int | None = None) -> None:
        """Go on from a snapshot, in place of what is held now; of too many keys the last ones are kept."""
        self.time_ms = time_ms
        self._states = OrderedDict(states[-self.max_keys :])
        self._reschedule()

    def __len__(self) -> int:
        return len(self._states)

    def _schedule(self, key: Hashable, state: OperatorState, before: int | None) -> None:
        due = self.operator.due(state)
        if due is None or due == before:
            return
        self._serial += 1
        heapq.heappush(self._due, (due, self._serial, key))
        # Entries that no longer hold must not outgrow the states.
        if len(self._due) > 2 * len(self._states) + 64:
            self._reschedule()

    def _reschedule(self) -> None:
        times = ((self.operator.due(state), key) for key, state in self._states.items())
        self._due = [(due, serial, key) for serial, (due, key) in enumerate(times) if due is not None]
        self._serial = len(self._due) and self._due[-1][1]
        heapq.heapify(self._due)


def per_key(operator: Operator, max_keys: int = DEFAULT_MAX_KEYS) -> PerKey:
    """Run an operator for each key on its own, with bounded state.

    a1 b1 a1 b2        distinct_until_changed, per key
    a1 b1    b2
    """
    return PerKey(operator, max_keys)


async def apply(
    operator: Operator | PerKey,
    source: AsyncIterable[Any],
    *,
    time: Callable[[Any], int],
    key: Callable[[Any], Hashable] | None = None,
    value: Callable[[Any], Any] | None = None,
) -> AsyncIterator[tuple[Hashable, int, Any]]:
    """Run an operator over an async stream, such as a Faust stream, one item at a time and in its order.

    What is still pending when the source ends (a debounced value whose time has not come) is not emitted. State lives in
    memory; pass a `PerKey` to keep hold of it.

    Args:
        operator: what to run, for each key on its own.
        source: the items.
        time: an item's event time in ms.
        key: an item's key; without it, all items have the key None.
        value: what of the item the operator gets; without it, the item.

    Yields:
        (key, event time in ms, output).
    """
    keyed = operator if isinstance(operator, PerKey) else PerKey(operator)
    async for item in source:
        emitted = keyed.step(None if key is None else key(item), time(item), item if value is None else value(item))
        for emission in emitted:
            yield emission
