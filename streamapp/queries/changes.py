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


class ChangeHub:
    """Passes changes from the tables to the subscriptions; costs nothing where nobody listens."""

    def __init__(self, *, subscribers_max: int, pending_max: int, on_conflated: Callable[[], None]) -> None:
        self._by_table: dict[str, set[Subscription]] = {}
        self._count = 0
        self._subscribers_max = subscribers_max
        self._pending_max = pending_max
        self._on_conflated = on_conflated

    def listener(self, table: str) -> Callable[[str, int], None]:
        """The function that a partition of this table calls for every change."""
        subscriptions = self._by_table.setdefault(table, set())

        def changed(key: str, start: int) -> None:
            for subscription in subscriptions:
                if (subscription.key is None or subscription.key == key) and not subscription.offer(key, start):
                    self._on_conflated()

        return changed

    def listened_to(self, table: str) -> bool:
        """Whether anybody subscribes to this table."""
        return bool(self._by_table.get(table))

    def subscribe(self, table: str, key: str | None) -> Subscription:
        """Begin to collect changes.

        Raises:
            RateLimitedError: as many subscribers as this worker serves.
        """
        if self._count >= self._subscribers_max:
            raise RateLimitedError(f"this worker serves at most {self._subscribers_max} subscribers", retry_after_s=5)
        self._count += 1
        subscription = Subscription(table, key, self._pending_max)
        self._by_table.setdefault(table, set()).add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop collecting."""
        self._by_table[subscription.table].discard(subscription)
        self._count -= 1
