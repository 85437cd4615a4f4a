"""Who is told of a change: the newest value per window wins, so a slow reader costs a bounded amount and stays current.

A change costs the lane that makes it one note, however many subscribers there are, and nothing where nobody follows its
key. The notes are passed on in the event loop's next turn, each to those whom it concerns: subscribers of its key are found
by the key, those of a prefix by the key's own beginnings, and a condition is judged once for all who have set it.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from streamapp.errors import RateLimitedError
from streamapp.queries.model import Predicate

#: subscribers are written to for so long before others get a turn, and wait so many times as long while lanes have work
_SLICE_S, _REST_FACTOR = 0.004, 12.0
#: however long it took to pass changes on
_REST_MAX_S = 0.25
#: so many before it is looked how long that took
_WOKEN_AT_ONCE = 16
Place = tuple[str, int]
#: the value of a window that readers see, or None
ValueOf = Callable[[str, int], Mapping[str, Any] | None]


class Subscription:
    """One reader's pending changes.

    Args:
        table: what it follows.
        key, prefix: of which keys.
        condition: what the newest value has to meet.
        pending_max: windows that may wait; with more of them it falls behind, and has to look itself what has changed.

    Attributes:
        pending: (key, start) -> how many changes it stands for, in order of the first of them.
        behind: whether changes were dropped.
        notify: called, possibly often, when there is something to take or `failure` is set; may write at once.
        settle: called after `notify`, once for all who have the same: writes what they have collected.
    """

    __slots__ = (
        "behind",
        "condition",
        "failure",
        "key",
        "notify",
        "pending",
        "pending_max",
        "prefix",
        "settle",
        "table",
    )

    def __init__(self, table: str, key: str | None, prefix: str, condition: Predicate | None, pending_max: int) -> None:
        self.table = table
        self.key = key
        self.prefix = prefix
        self.condition = condition
        self.pending_max = pending_max
        self.pending: dict[Place, int] = {}
        self.behind = False
        self.failure: Exception | None = None
        self.notify: Callable[[], None] = _nothing
        self.settle: Callable[[], None] = _nothing

    def offer(self, place: Place, count: int) -> int:
        """Note that a window has changed so many times; how many of these changes nobody will be told of by themselves."""
        waiting = self.pending.get(place)
        if waiting is not None:
            self.pending[place] = waiting + count
            return count
        if self.behind:
            return count
        if len(self.pending) >= self.pending_max:
            # none of them may be left out: it looks up what has changed when it comes to it
            dropped = sum(self.pending.values()) + count
            self.pending.clear()
            self.behind = True
            return dropped
        self.pending[place] = count
        return count - 1


def _nothing() -> None:
    """Nobody waits."""


class _Listeners:
    """The subscriptions to one table, and what has changed since they were last told."""

    __slots__ = ("by_key", "by_prefix", "changed", "lengths", "value_of", "wide")

    def __init__(self, value_of: ValueOf) -> None:
        self.by_key: dict[str, dict[Subscription, None]] = {}
        self.by_prefix: dict[str, dict[Subscription, None]] = {}
        self.lengths: list[int] = []  # of the prefixes
        self.wide = False  # whether there are any
        self.changed: dict[Place, int] = {}
        self.value_of = value_of

    def add(self, one: Subscription) -> None:
        group = self.by_prefix.setdefault(one.prefix, {}) if one.key is None else self.by_key.setdefault(one.key, {})
        group[one] = None
        self._measure()

    def discard(self, one: Subscription) -> None:
        groups, name = (self.by_prefix, one.prefix) if one.key is None else (self.by_key, one.key)
        group = groups.get(name)
        if group is not None:
            group.pop(one, None)
            if not group:
                del groups[name]
        self._measure()

    def _measure(self) -> None:
        self.lengths = sorted({len(prefix) for prefix in self.by_prefix})
        self.wide = bool(self.by_prefix)

    def of(self, key: str) -> list[Subscription]:
        """Those whom a change of this key concerns."""
        found = list(self.by_key.get(key, ()))
        for length in self.lengths:
            found += self.by_prefix.get(key[:length], ()) if length <= len(key) else ()
        return found


class ChangeHub:
    """Passes changes from the tables to the subscriptions; costs nothing where nobody listens.

    Args:
        subscribers_max: more are refused.
        pending_max: of each subscription.
        on_conflated: told how many changes nobody will be told of by themselves.
        crowded: whether records wait for what waking subscribers would take.

    Attributes:
        turn: while subscribers are woken: the number of the turn, in which nothing changes; None otherwise.
    """

    def __init__(
        self,
        *,
        subscribers_max: int,
        pending_max: int,
        on_conflated: Callable[[int], None],
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._by_table: dict[str, _Listeners] = {}
        self._count = 0
        self._subscribers_max = subscribers_max
        self._pending_max = pending_max
        self._on_conflated = on_conflated
        self._crowded = crowded
        self._scheduled = False
        self._turns = 0
        self.turn: int | None = None
        self._noted: set[str] = set()  # tables with changes that were not passed on
        self._woken: dict[Subscription, None] = {}

    # --- subscribing -----------------------------------------------------------------------------------------------------

    def listened_to(self, table: str) -> bool:
        """Whether anybody subscribes to this table."""
        listeners = self._by_table.get(table)
        return listeners is not None and bool(listeners.by_prefix or listeners.by_key)

    def subscribe(
        self,
        table: str,
        key: str | None = None,
        *,
        prefix: str = "",
        condition: Predicate | None = None,
        value_of: ValueOf = lambda key, start: None,
    ) -> Subscription:
        """Begin to collect changes.

        Raises:
            RateLimitedError: as many subscribers as this worker serves.
        """
        if self._count >= self._subscribers_max:
            raise RateLimitedError(f"this worker serves at most {self._subscribers_max} subscribers", retry_after_s=5)
        self._count += 1
        one = Subscription(table, key, prefix, condition, self._pending_max)
        listeners = self._by_table.setdefault(table, _Listeners(value_of))
        listeners.value_of = value_of
        listeners.add(one)
        return one

    def unsubscribe(self, one: Subscription) -> None:
        """Stop collecting."""
        self._by_table[one.table].discard(one)
        self._woken.pop(one, None)
        self._count -= 1

    def subscriptions(self) -> list[Subscription]:
        """All there are."""
        return [
            one
            for listeners in self._by_table.values()
            for groups in (listeners.by_key, listeners.by_prefix)
            for group in groups.values()
            for one in group
        ]

    # --- passing on ------------------------------------------------------------------------------------------------------

    def listener(self, table: str) -> Callable[[str, int], None]:
        """The function that a partition of this table calls for every change."""
        listeners = self._by_table.setdefault(table, _Listeners(lambda key, start: None))
        changed, by_key, noted = listeners.changed, listeners.by_key, self._noted

        def change(key: str, start: int) -> None:
            if listeners.wide or key in by_key:
                place = (key, start)
                if place in changed:
                    changed[place] += 1
                    return
                changed[place] = 1
                if len(changed) == 1:
                    noted.add(table)
                    self._schedule()

        return change

    def pass_on(self, table: str) -> None:
        """Have every subscription of a table hold what has changed; whoever is told next is told of all of it."""
        if table not in self._noted:
            return
        self._noted.discard(table)
        listeners = self._by_table[table]
        conflated = 0
        for (key, start), count in listeners.changed.items():
            value: Mapping[str, Any] | None = None
            verdicts: dict[str, bool] = {}
            for one in listeners.of(key):
                if one.condition is not None:
                    text = one.condition.text
                    if text not in verdicts:
                        try:
                            value = value if verdicts else listeners.value_of(key, start)
                            verdicts[text] = value is not None and one.condition.holds(value)
                        except Exception:  # an aggregate's own code: the subscriber's own look ends with it
                            verdicts[text] = True
                    if not verdicts[text]:
                        continue
                conflated += one.offer((key, start), count)
                self._woken[one] = None
        listeners.changed.clear()
        if conflated:
            self._on_conflated(conflated)

    def _schedule(self, delay_s: float = 0.0) -> None:
        if self._scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # driven without a loop: whoever takes asks for what there is
        self._scheduled = True
        if delay_s:
            loop.call_later(delay_s, self._tell)
        else:
            loop.call_soon(self._tell)

    def _tell(self) -> None:
        """Wake subscribers for a while; the rest of them, and who has changed meanwhile, after a rest."""
        self._scheduled = False
        # processor time: on a busy machine the clock goes on while nothing is done here
        begin = time.thread_time()
        for table in tuple(self._noted):
            self.pass_on(table)
        worked_s = 0.0  # to pass on is part of what is made up for, but some are woken all the same
        woken, woken_at = self._woken, time.thread_time()
        self._turns += 1
        self.turn = self._turns
        try:
            while woken and worked_s < _SLICE_S:
                settle: dict[Callable[[], None], None] = {}
                for one in tuple(itertools.islice(woken, _WOKEN_AT_ONCE)):
                    if woken.pop(one, one) is None:
                        one.notify()
                        settle[one.settle] = None
                for write in settle:
                    write()
                worked_s = time.thread_time() - woken_at
        finally:
            self.turn = None
            worked_s = time.thread_time() - begin
            if woken or worked_s > _SLICE_S / 4:
                # while lanes have a backlog they get most of the time, and subscribers fewer and newer values; else the loop
                # only goes round once
                self._schedule(min(_REST_MAX_S, worked_s * _REST_FACTOR) if self._crowded() else 0.0)
