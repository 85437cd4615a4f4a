"""One subscriber's stream of server-sent events, with a bound on everything that could wait.

What changes is written as soon as it is there, from whoever passes changes on and without a task of its own, for as long as
the client takes it. What it has not taken stays with the subscription, where the newest value wins; `conflated` counts what
each event stands for. A client that takes nothing for the write time-out is dropped, and goes on from its last event's id.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from streamapp.errors import QueryError
from streamapp.metrics import Metrics
from streamapp.queries.following import Following
from streamapp.queries.model import Change, Reading
from streamapp.queries.positions import encode, oldest
from streamapp.settings import Settings
from streamapp.views.outbox import Outbox
from streamapp.views.problems import document
from streamapp.views.pumping import Pumped, Source
from streamapp.views.serialise import dumps

logger = logging.getLogger(__name__)

#: what an `event: status` tells
StatusSource = Callable[[], Mapping[str, Any]]

RETRY_MS = 1_000  # what a client waits before it reconnects
STATUS_INTERVAL_S = 1.0
#: changes of one write; and bytes that may wait in this process, beside the kernel's, when more is written
_TAKE_MAX, _WAITING_MAX_BYTES = 32, 8 << 10
#: how soon it is looked whether a client takes something again
_LOOK_S, _LOOK_MAX_S = 0.001, 0.5


def event(kind: str, data: bytes, identity: str | None = None) -> bytes:
    """One event in the wire format of the HTML standard, section 9.2; `data` is JSON and so has no line breaks."""
    head = f"event: {kind}\n"
    if identity:
        if not identity.isprintable():
            identity = identity.translate({10: None, 13: None, 0: None})
        head += "id: " + identity + "\n"
    return head.encode() + b"data: " + data + b"\n\n"


def change_data(change: Change, data: bytes) -> bytes:
    """A change's data: the reading's JSON; with `conflated` and `resumed` where there is something to tell by them."""
    if change.conflated:
        data = data[:-1] + b',"conflated":%d}' % change.conflated
    if change.resumed is not None:
        data = data[:-1] + b',"resumed":"%b"}' % change.resumed.encode()
    return data


class Written:
    """The JSON of the latest readings: subscribers of the same key share one."""

    _MAX = 64

    def __init__(self) -> None:
        self._known: dict[int, tuple[Reading, bytes]] = {}

    def of(self, reading: Reading) -> bytes:
        """Its JSON."""
        known = self._known.get(id(reading))
        if known is not None:
            return known[1]
        if len(self._known) >= self._MAX:
            self._known.clear()
        data = dumps(reading)
        self._known[id(reading)] = reading, data  # kept, so that nothing else gets its id
        return data


class EventStream:
    """Writes the changes of some subscriptions to one prepared response.

    Args:
        response: prepared already.
        request: whose transport is written to.
        settings: heartbeat, bounds and time-outs.
        metrics: counts what was conflated.
        written, outbox: shared by all streams.
        interval_ms: shortest time between two bursts of changes; 0 sends each as soon as it is there.
        status: where given, an `event: status` with that document follows every second.
    """

    def __init__(
        self,
        response: web.StreamResponse,
        request: web.Request,
        settings: Settings,
        metrics: Metrics,
        written: Written,
        outbox: Outbox,
        *,
        interval_ms: int = 0,
        status: StatusSource | None = None,
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the subscriber has gone")
        self._response = response
        self._transport: asyncio.Transport = transport
        self._chunked = bool(request.version >= (1, 1))
        self._metrics = metrics
        self._written = written
        self._outbox = outbox
        self._interval_s = interval_ms / 1000
        self._status = status
        self._heartbeat_s = settings.sse_heartbeat_ms / 1000
        self._write_timeout_s = settings.sse_write_timeout_ms / 1000
        self._pending_max = settings.sse_queue_max
        self._sources: list[Source] = []
        self._next = 0  # which of them is asked first
        self._wake = asyncio.Event()
        self._now = asyncio.get_running_loop().time
        self._closing = False
        self._direct = False  # what arrives may be written at once
        self._blocked = False  # more waits for the client than should
        self._failure: QueryError | None = None
        self._written_at = self._status_at = 0.0
        self._identity = ""

    def close(self) -> None:
        """End the stream: the server stops."""
        self._closing = True
        self._wake.set()

    async def run(
        self, subscriptions: list[AsyncIterator[Change]], refused: Sequence[Mapping[str, object]] = ()
    ) -> None:
        """Write until the client leaves, the server stops, or every subscription has ended and no status is wanted.

        What is refused from the start is told first, as `event: refused`. A subscription that fails later ends the stream
        with an `event: problem`; the client then starts over.

        Raises:
            ConnectionError: the client has gone, or took nothing within the write time-out.
        """
        pumped: list[Pumped] = []
        for changes in subscriptions:
            if isinstance(changes, Following):
                pumped += [Pumped(part, self._pending_max, self._metrics) for part in changes.remote]
                if changes.local is not None:
                    self._sources.append(changes.local)
            else:
                pumped.append(Pumped(changes, self._pending_max, self._metrics))
        self._sources += pumped
        for source in self._sources:
            source.on_arrival(self._arrived, self._outbox.flush)
        try:
            told = b"".join(event("refused", dumps(one)) for one in refused)
            async with asyncio.timeout(self._write_timeout_s):
                await self._response.write(f"retry: {RETRY_MS}\n\n".encode() + told)
            self._written_at = self._now()
            await self._serve()
        except TimeoutError:
            raise ConnectionResetError("the subscriber took nothing within the write time-out") from None
        finally:
            self._direct = False
            for source in self._sources:
                source.on_arrival(_nothing, _nothing)
            self._outbox.flush()  # the end of the answer comes after it
            for one in pumped:
                await one.close()

    # --- when something comes ------------------------------------------------------------------------------------------

    def _arrived(self) -> None:
        if self._direct:
            self._flush()
        else:
            self._wake.set()

    def _flush(self) -> None:
        """Write what there is for as long as the client takes it."""
        try:
            while self._has_room():
                content = self._take()
                if not content:
                    break  # nothing, or nothing before it is looked up what was dropped
                self._send(content)
                if not self._waits():
                    break
                self._outbox.flush()  # so that it shows how much the client takes
        except QueryError as failure:
            self._failure = failure
        except Exception:  # an aggregate's own code; whoever passes changes on has others to tell
            logger.exception("a subscription failed")
            self._failure = QueryError("the subscription failed here; the worker's log says why")
        if self._failure is not None:
            self._leave_it()
            return
        if self._blocked or any([source.behind for source in self._sources]):
            self._leave_it()

    def _leave_it(self) -> None:
        """Let the loop that may wait go on with it."""
        self._direct = False
        self._wake.set()

    def _waits(self) -> bool:
        for source in self._sources:
            if source.waiting:
                return True
        return False

    def _has_room(self) -> bool:
        self._blocked = self._transport.get_write_buffer_size() > _WAITING_MAX_BYTES
        return not self._blocked

    def _take(self) -> bytes:
        """The next events; only the last of them has an id, and only where nothing before it is left out."""
        taken: list[Change] = []
        waiting = False
        sources, first = self._sources, self._next
        for number in range(first, first + len(sources)):
            source = sources[number % len(sources)]
            taken += source.take(_TAKE_MAX - len(taken))
            waiting = source.waiting or len(taken) >= _TAKE_MAX
            if waiting:
                # the next write begins with the others: behind one that has always more they would wait for ever
                self._next = (number + 1) % len(sources)
                break
        identity = "" if waiting else self._position()
        if not taken:
            return b""
        written, last = self._written, taken.pop()
        told = [event(change.kind, change_data(change, written.of(change.reading))) for change in taken]
        told.append(event(last.kind, change_data(last, written.of(last.reading)), identity))
        return b"".join(told)

    def _position(self) -> str:
        sources = self._sources
        if len(sources) == 1:
            only = sources[0]
            self._identity = encode(only.told) or (only.last_id if isinstance(only, Pumped) else "")
        elif all(source.told for source in sources):
            self._identity = encode(oldest(source.told for source in sources))
        else:
            self._identity = ""  # one of them has not come to an end of what there is at first
        return self._identity

    def _send(self, content: bytes) -> None:
        transport = self._transport
        if not transport.is_closing():
            self._outbox.put(transport, b"%x\r\n%b\r\n" % (len(content), content) if self._chunked else content)
            self._written_at = self._now()

    # --- and in between ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._status_at = self._written_at
        while not self._closing:
            if self._transport.is_closing():
                raise ConnectionResetError("the subscriber has gone")
            if not self._has_room():
                await self._until_room()
                continue
            await self._catch_up()
            if self._failure is None and self._waits():
                self._flush()
                if not self._blocked:
                    await self._rest(self._interval_s)
            self._tell_status()
            if self._blocked:
                continue
            if self._failure is not None:
                self._send(event("problem", dumps(document(self._failure))))
                return
            if self._status is None and all(isinstance(one, Pumped) and one.done for one in self._sources):
                return
            self._beat()
            wake_at = self._written_at + self._heartbeat_s
            await self._sleep_until(wake_at if self._status is None else min(wake_at, self._status_at))

    def _tell_status(self) -> None:
        if self._status is not None and self._now() >= self._status_at:
            self._send(event("status", dumps(self._status())))
            self._status_at = self._now() + STATUS_INTERVAL_S

    def _beat(self) -> None:
        """A comment on a quiet stream, with how far it is: a client that takes it up has less to be told again."""
        if self._now() - self._written_at < self._heartbeat_s:
            return
        try:
            content = self._take()
        except QueryError as failure:
            self._failure = failure
            return
        self._comment(content)

    def _comment(self, content: bytes = b"") -> None:
        identity = b"" if content or not self._identity else f"id: {self._identity}\n".encode()
        self._send(content + b": heartbeat\n" + identity + b"\n")

    async def _catch_up(self) -> None:
        try:
            for source in self._sources:
                if source.behind:
                    await source.catch_up()
        except QueryError as failure:
            self._failure = failure

    async def _sleep_until(self, wake_at: float) -> None:
        if self._failure is not None or self._closing or self._waits():
            return
        self._wake.clear()
        # with an interval it is this loop that writes, so that it can wait between two bursts
        self._direct = not self._interval_s
        # the moment moves as events are written: it is looked at again when it comes
        try:
            async with asyncio.timeout_at(wake_at):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._direct = False

    async def _until_room(self) -> None:
        """Wait until the client takes what was written.

        Raises:
            ConnectionResetError: it took nothing within the write time-out, or has gone.
        """
        look_s, size, since = _LOOK_S, self._transport.get_write_buffer_size(), self._now()
        while not self._has_room() and not self._closing:
            if self._transport.is_closing():
                raise ConnectionResetError("the subscriber has gone")
            left = self._transport.get_write_buffer_size()
            if left < size:
                look_s, size, since = _LOOK_S, left, self._now()
            elif self._now() - since >= self._write_timeout_s:
                raise ConnectionResetError("the subscriber took nothing within the write time-out")
            await asyncio.sleep(min(look_s, self._write_timeout_s))
            look_s = min(_LOOK_MAX_S, 2 * look_s)

    async def _rest(self, seconds: float) -> None:
        """Tell no changes for so long; a stream that says nothing at all would be taken for a lost one."""
        until = self._now() + seconds
        while not self._closing and not self._transport.is_closing() and self._now() < until:
            self._tell_status()
            if self._now() - self._written_at >= self._heartbeat_s:
                self._comment()
            wake_at = min(until, self._written_at + self._heartbeat_s)
            self._wake.clear()
            try:
                async with asyncio.timeout_at(wake_at if self._status is None else min(wake_at, self._status_at)):
                    await self._wake.wait()
            except TimeoutError:
                pass


def _nothing() -> None:
    """Nobody waits any more."""
