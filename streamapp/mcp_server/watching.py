"""Word of changed resources, for both ways in which clients subscribe.

One follower per resource, however many subscribers there are; it speaks at most once per interval, and once more when
somebody joins, who may have read before a change that was told before. Nothing waits for a subscriber: what one cannot take
is conflated or ends its stream.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent

from streamapp.errors import QueryError, RateLimitedError
from streamapp.mcp_server.backend import Backend
from streamapp.mcp_server.resources import place_of
from streamapp.metrics import Metrics
from streamapp.queries.access import Caller
from streamapp.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_S, _RETRY_MAX_S = 0.5, 10.0
_SEND_TIMEOUT_S = 5.0
_STATE = "streamapp.subscriptions"


class Watcher:
    """Follows the resources that anybody subscribes to, and publishes their changes.

    Args:
        backend: where changes come from.
        settings: interval and bounds.
        metrics: how many resources are followed.
    """

    def __init__(self, backend: Backend, settings: Settings, metrics: Metrics | None) -> None:
        self.bus = InMemorySubscriptionBus()
        self._backend = backend
        self._metrics = metrics
        self._interval_s = settings.mcp_notify_ms / 1000
        self._each_max = settings.mcp_subscriptions_max
        # each followed resource takes a place among the worker's subscribers; half of them stay for everybody else
        self._all_max = min(
            settings.mcp_subscriptions_max * settings.mcp_subscribers_max, settings.sse_subscribers_max // 2
        )
        self._followers: dict[str, tuple[int, asyncio.Task[None]]] = {}  # uri -> subscribers, task
        self._joined: set[asyncio.Task[None]] = set()

    def check(self, uris: Sequence[str], caller: Caller) -> None:
        """Whether a caller may follow these.

        Raises:
            BadParameterError: a URI is none.
            ForbiddenError: the caller may not read what it names, whether there is anything or not.
            RateLimitedError: there are too many of them.
        """
        for uri in uris:
            self._backend.check(*place_of(uri), caller)
        if len(uris) > self._each_max:
            raise RateLimitedError(f"a subscriber may follow {self._each_max} resources, got {len(uris)}")
        if len(self._followers.keys() | set(uris)) > self._all_max:
            raise RateLimitedError("this worker follows as many resources as it can", retry_after_s=5)

    def follow(self, uri: str) -> None:
        """One subscriber more."""
        count, task = self._followers.get(uri, (0, None))
        if task is None:
            task = asyncio.create_task(self._follow(uri), name="mcp-follow")
        else:
            # later, when whoever joins listens to the bus
            joined = asyncio.create_task(self.bus.publish(ResourceUpdated(uri=uri)), name="mcp-joined")
            self._joined.add(joined)
            joined.add_done_callback(self._joined.discard)
        self._followers[uri] = (count + 1, task)
        self._count()

    def leave(self, uri: str) -> None:
        """One subscriber less; the last one ends the following."""
        count, task = self._followers[uri]
        if count > 1:
            self._followers[uri] = (count - 1, task)
        else:
            del self._followers[uri]
            task.cancel()
        self._count()

    @contextlib.contextmanager
    def following(self, uris: Sequence[str]) -> Iterator[None]:
        """Follow these for as long as the context lasts."""
        for uri in uris:
            self.follow(uri)
        try:
            yield
        finally:
            for uri in uris:
                self.leave(uri)

    def close(self) -> None:
        """Follow nothing any more."""
        for _, task in self._followers.values():
            task.cancel()

    def _count(self) -> None:
        if self._metrics is not None:
            self._metrics.mcp_subscriptions.set(sum(count for count, _ in self._followers.values()))

    async def _follow(self, uri: str) -> None:
        table, key = place_of(uri)
        pause_s = _RETRY_S
        # the client may have read before this began to listen: what is there at first may be news
        lost = True
        while True:
            try:
                async with self._backend.changes(table, key) as changes:
                    async for changed in _at_most_every(self._interval_s, changes):
                        # what is there at first is known, unless changes may have been missed
                        if changed or lost:
                            await self.bus.publish(ResourceUpdated(uri=uri))
                        lost, pause_s = False, _RETRY_S
            except QueryError as problem:
                logger.debug("following %s: %s", uri, problem)
            except Exception:
                logger.exception("following a resource failed")
            lost = True
            await asyncio.sleep(pause_s * (1 + random.random()))
            pause_s = min(_RETRY_MAX_S, pause_s * 2)


async def _at_most_every(interval_s: float, changes: AsyncIterator[bool]) -> AsyncIterator[bool]:
    """The changes, with a pause after each; those in the pause are conflated by their source."""
    async for changed in changes:
        yield changed
        if changed:
            await asyncio.sleep(interval_s)


class SessionSubscriptions:
    """What one session of the 2025 revisions has subscribed to; its word goes out in a task of its own.

    Args:
        watcher: follows the resources.
        connection: the session's connection, which ends this with itself.
    """

    def __init__(self, watcher: Watcher, connection: Any) -> None:
        self._watcher = watcher
        self._connection = connection
        self._uris: set[str] = set()
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._unsubscribe = watcher.bus.subscribe(self._take)
        self._task = asyncio.create_task(self._tell(), name="mcp-session-tell")

    @classmethod
    def of(cls, watcher: Watcher, connection: Any) -> "SessionSubscriptions":
        """The session's; made on first use, ended with the connection."""
        found: SessionSubscriptions | None = connection.state.get(_STATE)
        if found is None:
            found = connection.state[_STATE] = cls(watcher, connection)
            connection.exit_stack.push_async_callback(found.close)
        return found

    def add(self, uri: str, caller: Caller) -> None:
        """Subscribe; again is the same as once."""
        if uri not in self._uris:
            self._watcher.check([*self._uris, uri], caller)
            self._watcher.follow(uri)
            self._uris.add(uri)

    def remove(self, uri: str) -> None:
        """Unsubscribe; what was not subscribed to is left."""
        if uri in self._uris:
            self._uris.discard(uri)
            self._watcher.leave(uri)

    def _take(self, event: ServerEvent) -> None:
        if isinstance(event, ResourceUpdated) and event.uri in self._uris:
            self._changed[event.uri] = None
            self._wake.set()

    async def _tell(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed:
                uri = next(iter(self._changed))
                del self._changed[uri]
                try:
                    async with asyncio.timeout(_SEND_TIMEOUT_S):
                        await self._connection.send_resource_updated(uri)
                except TimeoutError:
                    if uri in self._uris:  # nothing else may tell of it: it waits behind the others
                        self._changed[uri] = None

    async def close(self) -> None:
        """End everything of this session."""
        self._unsubscribe()
        self._task.cancel()
        for uri in tuple(self._uris):
            self.remove(uri)
