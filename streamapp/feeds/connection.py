"""The socket of one feed: connect, subscribe, read, keep alive, connect again.

All that is venue-specific is in the protocol; here are only time, TLS, frames and failures.
"""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import ClientSession, ClientTimeout, ClientWSTimeout, WSMessage, WSMsgType

from streamapp.clock import Clock, SystemClock
from streamapp.errors import ConfigurationError
from streamapp.feeds.auth import FeedAuth, redact_url
from streamapp.feeds.backoff import Backoff, BackoffPolicy
from streamapp.feeds.batching import BatchingWebSocket
from streamapp.feeds.protocol import OVERSIZED, FeedEvent, FeedProtocol, ReconnectRequested, Rejected, SendText
from streamapp.settings import FeedSettings, Settings

log = logging.getLogger(__name__)

#: reason of `Rejected` for bytes that are no WebSocket frames
BAD_FRAME = "bad_frame"

#: between two looks at liveness and two ticks of the protocol
_TICK_S = 1.0
#: frames turned into events before the sink sees them; bounds what can exceed the sink's own bound
_BATCH_FRAMES = 1_000
#: the protocol rejects frames above its limit and keeps the connection; above this multiple the socket is closed unread
_CLOSING_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is open and the opening messages are sent.

    Attributes:
        attempt: 1 for the first connection of this object.
    """

    attempt: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or a try to open one failed.

    Attributes:
        detail: why, for people; never holds a credential.
        failures: failures in a row so far.
        pause_ms: until the next try; None: there will be none.
        circuit_open: whether tries are only probes now.
        was_connected: False where it was a try that failed.
    """

    detail: str
    failures: int
    pause_ms: int | None
    circuit_open: bool
    was_connected: bool


ConnectionEvent = FeedEvent | Connected | Disconnected
Sink = Callable[[Sequence[ConnectionEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Bounds of one connection. Times are milliseconds.

    Attributes:
        connect_timeout_ms: on name lookup, TCP, TLS, handshake and opening messages together.
        close_timeout_ms: on the peer's answer to a close frame.
        ping_ms: a ping this often; no frame at all for two such periods means that the peer is gone; 0: no pings.
        ca_file: authorities to trust instead of the system's.
        compress: offer permessage-deflate.
    """

    connect_timeout_ms: int = 10_000
    close_timeout_ms: int = 2_000
    ping_ms: int = 20_000
    ca_file: Path | None = None
    compress: bool = False


def connection_for(
    feed: FeedSettings, protocol: FeedProtocol, settings: Settings, *, rng: random.Random | None = None
) -> "FeedConnection":
    """The connection of one configured feed."""
    policy = BackoffPolicy(
        initial_ms=settings.feed_backoff_initial_ms,
        max_delay_ms=settings.feed_backoff_max_ms,
        max_tries=settings.feed_tries_max or None,
        stable_ms=settings.feed_stable_ms,
        circuit_failures=settings.feed_circuit_failures,
        circuit_pause_ms=settings.feed_circuit_pause_ms,
    )
    options = ConnectionOptions(
        connect_timeout_ms=settings.feed_connect_timeout_ms,
        close_timeout_ms=settings.feed_close_timeout_ms,
        ping_ms=settings.feed_ping_ms,
        ca_file=feed.ca_file,
        compress=feed.compress,
    )
    return FeedConnection(protocol, options=options, auth=FeedAuth(feed.auth), backoff=Backoff(policy, rng=rng))


class FeedConnection:
    """Keeps one feed connected and hands its events on.

    The sink gets lists of events in the order of arrival. While it is awaited nothing is read: the socket's buffers fill
    and TCP slows the venue down. Silence is not held against the venue meanwhile. The next connection is opened only
    after the sink has taken everything of the previous one.

    Liveness: a connection that brings no data frame for the protocol's `heartbeat_timeout_ms` is closed, and so is one
    that does not even answer our pings.
    """

    def __init__(
        self,
        protocol: FeedProtocol,
        *,
        options: ConnectionOptions | None = None,
        auth: FeedAuth | None = None,
        backoff: Backoff | None = None,
        clock: Clock | None = None,
        on_frames: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.protocol = protocol
        self.on_frames = on_frames
        self._options = options or ConnectionOptions()
        self._auth = auth or FeedAuth()
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff(BackoffPolicy(), clock=self._clock)
        self._attempt = 0
        self._stopping = asyncio.Event()
        self._socket: BatchingWebSocket | None = None
        self._ending = ""  # why this side closes the current connection
        self._heard_ms = 0  # last data frame or ping of the peer
        self._alive_ms = 0  # last frame of any kind
        self._reading = False

    async def run(self, sink: Sink) -> None:
        """Connect, read and reconnect until `stop`, or until the tries are used up.

        Raises:
            ConfigurationError: the CA file cannot be used.
        """
        tls = self._tls()
        timeout = ClientTimeout(total=None)
        async with ClientSession(
            ws_response_class=BatchingWebSocket,  # type: ignore[arg-type]  # declared for text frames as str only
            timeout=timeout,
        ) as session:
            while not self._stopping.is_set():
                connected_before = self._attempt
                pause_ms: int | None = 0
                try:
                    detail, requested = await self._one_connection(session, tls, sink)
                except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as problem:
                    detail, requested = self._explain(problem), False
                was_connected = self._attempt > connected_before
                self.protocol.disconnected()
                if self._stopping.is_set():
                    pause_ms = None
                else:
                    pause_ms = self._backoff.failed()
                    if requested and self._backoff.failures == 1:
                        pause_ms = 0  # asked for after a stable period: nothing has failed
                event = Disconnected(
                    detail, self._backoff.failures, pause_ms, self._backoff.circuit_open, was_connected
                )
                log.info("feed %s: %s; next try: %s ms", self.protocol.venue, detail, pause_ms)
                await sink([event])
                if pause_ms is None:
                    return
                await self._pause(pause_ms)

    async def stop(self) -> None:
        """End the connection with a close frame; `run` returns once the sink has what was read before it."""
        self._stopping.set()
        if self._socket is not None:
            await self._end(self._socket, "stopped")

    # --- one connection ------------------------------------------------------------------------------------------------

    async def _one_connection(self, session: ClientSession, tls: ssl.SSLContext | bool, sink: Sink) -> tuple[str, bool]:
        """Run one connection to its end: why it ended, and whether the venue asked for that."""
        protocol, options = self.protocol, self._options
        self._ending = ""
        async with asyncio.timeout(options.connect_timeout_ms / 1000):
            socket = await session.ws_connect(
                self._auth.url(protocol.url),
                headers=self._auth.headers(),
                timeout=ClientWSTimeout(ws_close=options.close_timeout_ms / 1000),
                autoping=False,
                ssl=tls,
                compress=15 if options.compress else 0,
                max_msg_size=protocol.max_frame_bytes * _CLOSING_FACTOR,
                decode_text=False,
            )
            assert isinstance(socket, BatchingWebSocket)
            self._socket = socket
            now_ms = self._clock.now_ms()
            try:
                for text in self._auth.first_messages(protocol.open_messages(now_ms), now_ms):
                    await socket.send_str(text)
            except BaseException:
                await socket.close()
                raise
        self._backoff.connected()
        self._attempt += 1
        watch = asyncio.create_task(self._watch(socket, sink), name=f"feed-{protocol.venue}-watch")
        try:
            log.info("feed %s: connected to %s", protocol.venue, redact_url(protocol.url))
            await sink([Connected(self._attempt)])
            return await self._read(socket, sink)
        finally:
            self._socket = None
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            await socket.close()

    async def _read(self, socket: BatchingWebSocket, sink: Sink) -> tuple[str, bool]:
        protocol, clock = self.protocol, self._clock
        self._alive_ms = self._heard_ms = clock.monotonic_ms()
        self._reading = True
        while True:
            frames, control = await socket.receive_batch(_BATCH_FRAMES)
            self._reading = False
            heard = control is None or (control.type is WSMsgType.PING and protocol.pings_count)
            if control is None:
                self.on_frames(len(frames))
                now_ms = clock.now_ms()
                events: list[ConnectionEvent] = []
                receive = protocol.receive
                for frame in frames:
                    events += receive(frame, now_ms)
                requested = await self._obey(socket, events)
                await sink(events)
                if requested is not None:
                    return f"the venue asked for a new connection: {requested.detail}", True
            elif control.type is WSMsgType.PING:
                await socket.pong(control.data)
            elif control.type is not WSMsgType.PONG:
                rejected, detail = self._ended(socket, control)
                if rejected is not None:
                    await sink([rejected])
                return detail, False
            # noted only now: the time that the sink took is not the venue's silence
            self._alive_ms = clock.monotonic_ms()
            if heard:
                self._heard_ms = self._alive_ms
            self._reading = True

    @staticmethod
    async def _obey(socket: BatchingWebSocket, events: Sequence[ConnectionEvent]) -> ReconnectRequested | None:
        requested = None
        for event in events:
            kind = type(event)
            if kind is SendText:
                await socket.send_str(event.text)  # type: ignore[union-attr]
            elif kind is ReconnectRequested:
                requested = event
        return requested  # type: ignore[return-value]

    def _ended(self, socket: BatchingWebSocket, message: WSMessage) -> tuple[Rejected | None, str]:
        """What a message that ends the connection means."""
        if self._ending:
            return None, self._ending
        if message.type is WSMsgType.CLOSE:
            reason = f", {message.extra[:200]!r}" if message.extra else ""
            return None, f"closed by the venue with code {message.data}{reason}"
        if message.type is WSMsgType.ERROR:
            problem = message.data
            if isinstance(problem, aiohttp.WebSocketError):
                limit = self.protocol.max_frame_bytes * _CLOSING_FACTOR
                too_big = problem.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
                text = f"a frame over {limit} bytes, not read: {problem}" if too_big else f"not a frame: {problem}"
                return Rejected(b"", OVERSIZED if too_big else BAD_FRAME, text), text
            return None, self._explain(problem)
        return None, f"the connection was lost (code {socket.close_code})"

    async def _watch(self, socket: BatchingWebSocket, sink: Sink) -> None:
        """Ping, let the protocol tick, and close the connection once it has been silent for too long."""
        clock, ping_ms = self._clock, self._options.ping_ms
        next_ping_ms = clock.monotonic_ms() + ping_ms
        tick_s = min(_TICK_S, self.protocol.heartbeat_timeout_ms / 4000)
        while not socket.closed:
            await asyncio.sleep(tick_s)
            now_ms = clock.monotonic_ms()
            if self._reading:
                silence_ms = now_ms - self._heard_ms
                if silence_ms > self.protocol.heartbeat_timeout_ms:
                    await self._end(
                        socket, f"silent for {silence_ms} ms (limit {self.protocol.heartbeat_timeout_ms} ms)"
                    )
                    return
                if ping_ms and now_ms - self._alive_ms > 2 * ping_ms:
                    await self._end(socket, f"no answer to a ping for {now_ms - self._alive_ms} ms")
                    return
            try:
                if ping_ms and now_ms >= next_ping_ms:
                    next_ping_ms = now_ms + ping_ms
                    await socket.ping()
                events: list[ConnectionEvent] = list(self.protocol.tick(clock.now_ms()))
                if events:
                    if await self._obey(socket, events) is not None:
                        await self._end(socket, "the protocol asked for a new connection")
                    await sink(events)
            except (aiohttp.ClientError, ConnectionError):
                return  # the reader sees the same and reports it

    async def _end(self, socket: BatchingWebSocket, why: str) -> None:
        self._ending = self._ending or why
        await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY if why == "stopped" else aiohttp.WSCloseCode.OK)

    # --- around connections --------------------------------------------------------------------------------------------

    async def _pause(self, pause_ms: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_ms / 1000):
                await self._stopping.wait()

    def _tls(self) -> ssl.SSLContext | bool:
        if self._options.ca_file is None:
            return True  # aiohttp's default context: certificates and names are verified
        try:
            return ssl.create_default_context(cafile=self._options.ca_file)
        except (OSError, ssl.SSLError) as problem:
            raise ConfigurationError(
                f"feed {self.protocol.venue}: expected a PEM file of authorities at ca_file={self._options.ca_file}, "
                f"got: {problem}"
            ) from problem

    def _explain(self, problem: BaseException) -> str:
        """A failure in words. aiohttp's own texts may hold the URL, and with it a token."""
        if self._ending:
            return self._ending
        if isinstance(problem, aiohttp.WSServerHandshakeError):
            return f"the venue refused the handshake with HTTP status {problem.status}"
        if isinstance(problem, aiohttp.InvalidURL):
            return f"expected a ws:// or wss:// address, got {redact_url(self.protocol.url)}"
        if isinstance(problem, TimeoutError):
            return f"no connection within {self._options.connect_timeout_ms} ms"
        text = str(problem).replace(self._auth.url(self.protocol.url), redact_url(self.protocol.url))
        return f"{type(problem).__name__}: {text[:300]}"
