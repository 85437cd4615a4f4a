"""Subscriptions to changes: the newest value per window wins, so a slow reader costs a bounded amount and stays current."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from streamapp.errors import RateLimitedError


@dataclass(eq=False)
class Subscription:
    """One reader's pending changes: (key, start) -> how many changes it stands for, in order of the first of them."""

    table: str
    key: str | None
    pending_max: int
    pending: dict[tuple[str, int], int] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    lost: int = 0

    def offer(self, key: str, start: int) -> bool:
        """Note a change; False where it replaced one that waits, or one that waits had to go."""
        place = (key, start)
        count = self.pending.get(place)
        if count is not None:
            self.pending[place] = count + 1
            return False
        if len(self.pending) >= self.pending_max:
            # the oldest waits longest and changes again soonest; its newest value comes with its next change
            del self.pending[next(iter(self.pending))]
            self.lost += 1
        self.pending[place] = 1
        self.arrived.set()
        return True


@dataclass
class _Listeners:
    """The subscriptions to one table: to all of it, and by key, so that a change costs only those whom it concerns."""

    to_all: set[Subscription] = field(default_factory=set)
    by_key: dict[str, set[Subscription]] = field(default_factory=dict)

    def add(self, subscription: Subscription) -> None:
        if subscription.key is None:
            self.to_all.add(subscription)
        else:
            self.by_key.setdefault(subscription.key, set()).add(subscription)

    def discard(self, subscription: Subscription) -> None:
        if subscription.key is None:
            self.to_all.discard(subscription)
        elif (those := self.by_key.get(subscription.key)) is not None:
            those.discard(subscription)
            if not those:
                del self.by_key[subscription.key]


class ChangeHub:
    """Passes changes from the tables to the subscriptions; costs nothing where nobody listens."""

    def __init__(self, *, subscribers_max: int, pending_max: int, on_conflated: Callable[[], None]) -> None:
        self._by_table: dict[str, _Listeners] = {}
        self._count = 0
        self._subscribers_max = subscribers_max
        self._pending_max = pending_max
        self._on_conflated = on_conflated

    def listener(self, table: str) -> Callable[[str, int], None]:
        """The function that a partition of this table calls for every change."""
        listeners = self._by_table.setdefault(table, _Listeners())
        to_all, by_key = listeners.to_all, listeners.by_key

        def changed(key: str, start: int) -> None:
            for subscription in to_all:
                if not subscription.offer(key, start):
                    self._on_conflated()
            for subscription in by_key.get(key, ()):
                if not subscription.offer(key, start):
                    self._on_conflated()

        return changed

    def listened_to(self, table: str) -> bool:
        """Whether anybody subscribes to this table."""
        listeners = self._by_table.get(table)
        return listeners is not None and bool(listeners.to_all or listeners.by_key)

    def subscribe(self, table: str, key: str | None) -> Subscription:
        """Begin to collect changes.

        Raises:
            RateLimitedError: as many subscribers as this worker serves.
        """
        if self._count >= self._subscribers_max:
            raise RateLimitedError(f"this worker serves at most {self._subscribers_max} subscribers", retry_after_s=5)
        self._count += 1
        subscription = Subscription(table, key, self._pending_max)
        self._by_table.setdefault(table, _Listeners()).add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop collecting."""
        self._by_table[subscription.table].discard(subscription)
        self._count -= 1
