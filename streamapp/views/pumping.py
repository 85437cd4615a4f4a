"""Changes of an asynchronous stream, such as another worker's, collected so that they can be taken at once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from streamapp.errors import QueryError
from streamapp.metrics import Metrics
from streamapp.queries.model import Change, Heartbeat
from streamapp.queries.positions import Told, decode

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Changes of one subscription that can be taken at once."""

    told: Told

    @property
    def behind(self) -> bool:
        """Whether `catch_up` has to be awaited before anything more can be taken."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether `take` would bring anything, or raise."""
        ...

    def on_arrival(self, notify: Callable[[], None], settle: Callable[[], None]) -> None:
        """Have `notify` called when something comes; it may take at once, and must not raise.

        Where many are notified in a row, `settle` is called after some of them: what they collect is written then.
        """
        ...

    async def catch_up(self) -> None:
        """Look up what has changed, after changes were dropped."""
        ...

    def take(self, most: int) -> list[Change]:
        """Up to so many changes; raises the QueryError that ends the subscription."""
        ...


class Pumped:
    """A `Source` over an iterator, by a task of its own. Per key and window the newest value replaces those before it.

    Args:
        changes: the iterator.
        pending_max: so many keys and windows wait; then the iterator waits.
        metrics: counts what was conflated here.

    Attributes:
        told: what the ids of the changes that were taken say.
        last_id: the last id that was taken and that says nothing here.
        done: the iterator has ended, without an error, and all was taken.
    """

    behind = False

    def __init__(self, changes: AsyncIterator[Change | Heartbeat], pending_max: int, metrics: Metrics) -> None:
        self.told: Told = {}
        self.last_id = ""
        self._changes = changes
        self._pending_max = pending_max
        self._metrics = metrics
        self._pending: dict[tuple[str, str, int | None], Change] = {}
        self._newest_id = ""
        self._room = asyncio.Event()
        self._failure: QueryError | None = None
        self._ended = False
        self._notify: Callable[[], None] = lambda: None
        self._task = asyncio.create_task(self._pump(), name="changes-pump")

    @property
    def waiting(self) -> bool:
        """Whether `take` would bring anything, or raise."""
        return bool(self._pending) or self._failure is not None

    @property
    def done(self) -> bool:
        """Whether nothing comes any more."""
        return self._ended and not self.waiting

    def on_arrival(self, notify: Callable[[], None], _settle: Callable[[], None]) -> None:
        """Have this called when something comes."""
        self._notify = notify

    async def catch_up(self) -> None:
        """Nothing is ever dropped here: the iterator waits."""

    def take(self, most: int) -> list[Change]:
        """Up to so many changes, in order of the first that each stands for; what ended the iterator comes after them."""
        taken = [self._pending.pop(slot) for slot in list(self._pending)[:most]]
        if taken:
            self._room.set()
        elif self._failure is not None:
            raise self._failure
        if not self._pending and self._newest_id:
            # all that came up to this id has been taken
            told, self._newest_id, text = decode(self._newest_id), "", self._newest_id
            if told is None:
                self.last_id = text
            else:
                self.told.update(told)
        return taken

    async def close(self) -> None:
        """End the task."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            async for change in self._changes:
                if isinstance(change, Heartbeat):
                    self._newest_id = change.id  # for the next heartbeat here; nobody waits for it
                    continue
                window = change.reading.window
                # a late event of an older window must not stand in for the newest one's value
                slot = (change.reading.table, change.reading.key, None if window is None else window.start)
                while len(self._pending) >= self._pending_max and slot not in self._pending:
                    self._room.clear()
                    await self._room.wait()
                earlier = self._pending.get(slot)
                self._newest_id = change.id or self._newest_id
                if earlier is not None:
                    self._metrics.conflated.inc()
                    # a key's first event stays its snapshot, with the newest value
                    conflated = change.conflated + earlier.conflated + 1
                    change = Change(change.id, earlier.kind, change.reading, conflated, earlier.resumed)
                self._pending[slot] = change
                self._notify()
        except QueryError as failure:
            self._failure = failure
        except Exception:
            logger.exception("a subscription failed")
            self._failure = QueryError("the subscription failed here; the worker's log says why")
        finally:
            self._ended = True
            self._notify()
