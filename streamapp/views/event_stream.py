"""One subscriber's stream of server-sent events, with a bound on everything that could wait.

Changes that the client has not taken yet are conflated: per key and window the newest value wins, and keeps its place in
the queue; `conflated` of its data counts what it replaced. A client that takes nothing for the write time-out is dropped; it
comes back with snapshots of what is there then.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from streamapp.errors import QueryError
from streamapp.metrics import Metrics
from streamapp.queries.model import Change
from streamapp.settings import Settings
from streamapp.views.problems import document
from streamapp.views.serialise import dumps

logger = logging.getLogger(__name__)

#: what an `event: status` tells
StatusSource = Callable[[], Mapping[str, Any]]

RETRY_MS = 1_000  # what a client waits before it reconnects
STATUS_INTERVAL_S = 1.0


def event(kind: str, data: bytes, identity: str | None = None) -> bytes:
    """One event in the wire format of the HTML standard, section 9.2; `data` is JSON and so has no line breaks."""
    head = f"event: {kind}\n"
    if identity:
        head += "id: " + identity.translate({10: None, 13: None, 0: None}) + "\n"
    return head.encode() + b"data: " + data + b"\n\n"


def change_data(change: Change) -> bytes:
    """A change's data: the reading's JSON; with `conflated`, where it stands for more changes than itself."""
    data = dumps(change.reading)
    return data if not change.conflated else data[:-1] + b',"conflated":%d}' % change.conflated


class EventStream:
    """Writes the changes of some subscriptions to one prepared response.

    Args:
        response: prepared already; its transport is aborted when the client takes nothing.
        settings: heartbeat, queue bound and write time-out.
        metrics: counts what was conflated here.
        interval_ms: shortest time between two bursts of changes; 0 sends each as soon as it is there.
        status: where given, an `event: status` with that document follows every second.
    """

    def __init__(
        self,
        response: web.StreamResponse,
        settings: Settings,
        metrics: Metrics,
        *,
        interval_ms: int = 0,
        status: StatusSource | None = None,
    ) -> None:
        self._response = response
        self._metrics = metrics
        self._interval_s = interval_ms / 1000
        self._status = status
        self._heartbeat_s = settings.sse_heartbeat_ms / 1000
        self._write_timeout_s = settings.sse_write_timeout_ms / 1000
        self._pending_max = settings.sse_queue_max
        self._pending: dict[tuple[str, str, int | None], Change] = {}
        self._wake = asyncio.Event()  # something to write, or the end
        self._room = asyncio.Event()  # the pending changes were taken
        self._closing = asyncio.Event()
        self._failure: QueryError | None = None
        self._refused: Sequence[Mapping[str, object]] = ()

    def close(self) -> None:
        """End the stream: the server stops."""
        self._closing.set()
        self._wake.set()

    async def run(
        self, subscriptions: list[AsyncIterator[Change]], refused: Sequence[Mapping[str, object]] = ()
    ) -> None:
        """Write until the client leaves, the server stops, or every subscription has ended and no status is wanted.

        What is refused from the start is told first, as `event: refused`. A subscription that fails later ends the stream
        with an `event: problem`; the client then starts over.
        """
        self._refused = refused
        pumps = [asyncio.create_task(self._pump(changes)) for changes in subscriptions]
        try:
            await self._write_all(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, changes: AsyncIterator[Change]) -> None:
        try:
            async for change in changes:
                window = change.reading.window
                # a late event of an older window must not stand in for the newest one's value
                slot = (change.reading.table, change.reading.key, None if window is None else window.start)
                while len(self._pending) >= self._pending_max and slot not in self._pending:
                    self._room.clear()
                    await self._room.wait()
                earlier = self._pending.get(slot)
                if earlier is not None:
                    self._metrics.conflated.inc()
                    # a key's first event stays its snapshot, with the newest value
                    change = Change(change.id, earlier.kind, change.reading, change.conflated + earlier.conflated + 1)
                self._pending[slot] = change
                self._wake.set()
        except QueryError as failure:
            self._failure = failure
        except Exception:
            logger.exception("a subscription failed")
            self._failure = QueryError("the subscription failed here; the worker's log says why")
        finally:
            self._wake.set()

    async def _write_all(self, pumps: list[asyncio.Task[None]]) -> None:
        now = asyncio.get_running_loop().time
        told = b"".join(event("refused", dumps(one)) for one in self._refused)
        await self._write(f"retry: {RETRY_MS}\n\n".encode() + told)
        written = now()
        next_status = written
        while not self._closing.is_set():
            if self._pending:
                await self._write(self._take())
                written = now()
                await self._pause(self._interval_s)
            if self._status is not None and now() >= next_status:
                await self._write(event("status", dumps(self._status())))
                written = now()
                next_status = written + STATUS_INTERVAL_S
            if self._failure is not None:
                await self._write(event("problem", dumps(document(self._failure))))
                return
            if not self._pending and self._status is None and all(pump.done() for pump in pumps):
                return
            if now() - written >= self._heartbeat_s:
                await self._write(b": heartbeat\n\n")
                written = now()
            wake_at = written + self._heartbeat_s
            if self._status is not None:
                wake_at = min(wake_at, next_status)
            await self._sleep_until(wake_at)

    def _take(self) -> bytes:
        parts = [event(change.kind, change_data(change), change.id) for change in self._pending.values()]
        self._pending.clear()
        self._room.set()
        return b"".join(parts)

    async def _sleep_until(self, wake_at: float) -> None:
        if not self._pending and self._failure is None and not self._closing.is_set():
            self._wake.clear()
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._closing.wait()
            except TimeoutError:
                pass

    async def _write(self, content: bytes) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._response.write(content)
        except TimeoutError:
            raise ConnectionResetError("the subscriber took nothing within the write time-out") from None
