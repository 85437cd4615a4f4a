"""A WebSocket server that speaks Coinbase Exchange's public feed over a random walk.

Delivery: every subscriber gets the frames in the order of the walk. The schedule starts with the first subscription and
then goes on whoever is connected: trades that happen while nobody listens are really missed. A subscriber that reads
slowly holds the schedule back (nothing is dropped for it); afterwards the schedule is caught up with.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from aiohttp import WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field

from streamapp.clock import Clock, SystemClock
from streamapp.errors import ConfigurationError
from streamapp.simulator.faults import FaultPlan, FaultSettings
from streamapp.simulator.frames import HEARTBEAT, Frame, FrameEncoder, heartbeat_text, match_text
from streamapp.simulator.subscription import Subscription
from streamapp.simulator.walk import RandomWalk, iso_time, walk_symbols

logger = logging.getLogger(__name__)

#: trades encoded at once: large enough to be quick, small enough to be fair to the sockets
BATCH_TRADES = 1_000
#: event time per trade when there is no rate to derive it from
UNBOUNDED_RATE = 50_000.0
_IDLE_S = 0.005
_HEARTBEAT_MS = 1_000
_MAX_MESSAGE_BYTES = 1 << 20


class SimulatorSettings(BaseModel):
    """One simulator.

    Attributes:
        port: where to listen on loopback; 0: any free port.
        symbols: how many products.
        rate: trades per second over all products; 0: as fast as the subscribers read (and only while there are any).
        seed: of the walk and of the faults.
        events: stop after this many trades, connections stay open; 0: never.
        start_time_ms: event time of the first trade; None: the time of the first subscription.
        time_scale: seconds of event time per second.
        ticker_every: a ticker with every n-th trade of a product; 0: none.
        send_timeout_s: a subscriber that reads nothing for this long is dropped.
        faults: what goes wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int = Field(default=0, ge=0, le=65_535)
    symbols: int = Field(default=5, ge=1, le=10_000)
    rate: float = Field(default=100.0, ge=0)
    seed: int = 1
    events: int = Field(default=0, ge=0)
    start_time_ms: int | None = Field(default=None, ge=0)
    time_scale: float = Field(default=1.0, gt=0)
    ticker_every: int = Field(default=5, ge=0)
    send_timeout_s: float = Field(default=600.0, gt=0)
    faults: FaultSettings = FaultSettings()


def walk_for(settings: SimulatorSettings, start_time_ms: int) -> RandomWalk:
    """The walk of a simulator; with the same settings and start a test gets the very same trades."""
    return RandomWalk(
        seed=settings.seed,
        symbols=settings.symbols,
        rate=settings.rate or UNBOUNDED_RATE,
        start_time_ms=start_time_ms,
        time_scale=settings.time_scale,
    )


class _Client:
    """One connection."""

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport, now_ms: int, products: Sequence[str]
    ):
        self.socket = socket
        self.transport = transport
        self.opened_ms = now_ms
        self.subscription = Subscription(products)

    def write(self, texts: Sequence[str]) -> None:
        """Hand frames to the transport at once, in order, without waiting."""
        if texts and not self.transport.is_closing():
            self.transport.write(encode_frames(texts))

    async def send(self, texts: Sequence[str]) -> None:
        """Send frames in order; returns when the transport takes more."""
        if texts and not self.transport.is_closing():
            self.write(texts[:-1])
            await self.socket.send_str(texts[-1])


class Simulator:
    """The server; `start`, then `stop`.

    Attributes:
        walk: None before the first subscription.
        finished: set when `events` trades have been sent.
    """

    def __init__(self, settings: SimulatorSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._products = walk_symbols(settings.symbols)
        self._clients: set[_Client] = set()
        self._subscribed = asyncio.Event()
        self._encoder = FrameEncoder(FaultPlan(settings.seed, settings.faults), settings.ticker_every)
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None
        self._started_ms = 0
        self.walk: RandomWalk | None = None
        self.finished = asyncio.Event()
        #: the port that is listened on, once started
        self.port = 0

    @property
    def url(self) -> str:
        """The WebSocket's address."""
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on loopback.

        Raises:
            ConfigurationError: the port is taken.
        """
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._settings.port)
        try:
            await site.start()
        except OSError as problem:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"cannot listen on 127.0.0.1:{self._settings.port} ({problem.strerror}); choose another --port, or 0"
            ) from None
        self.port = int(self._runner.addresses[0][1])
        self._task = asyncio.create_task(self._run(), name="simulator")

    async def stop(self) -> None:
        """Close every connection with a close frame and stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        closing = [client.socket.close(code=1001, message=b"going away") for client in self._clients]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), 1.0)
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait(self) -> None:
        """Until the schedule fails; it does not end by itself."""
        if self._task is not None:
            await self._task

    # --- one connection ---------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        # with a writer limit of 1 each `send_str` waits until the transport has room, whatever was written besides
        socket = web.WebSocketResponse(
            compress=False, max_msg_size=_MAX_MESSAGE_BYTES, writer_limit=1, timeout=1.0, autoclose=True
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        client = _Client(socket, transport, self._clock.monotonic_ms(), self._products)
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                self._on_message(client, str(message.data))
        finally:
            self._clients.discard(client)
        return socket

    def _on_message(self, client: _Client, text: str) -> None:
        """Reply and register in one step, without awaiting: no trade falls between `last_match` and the stream."""
        reply, new_products = client.subscription.on_message(text)
        told = self._encoder.told
        newest = [told[product] for product in new_products if product in told]
        client.write([reply, *(match_text(trade, "last_match", iso_time(trade.time_us)) for trade in newest)])
        if any(client.subscription.products(channel) for channel in ("matches", "ticker", HEARTBEAT)):
            self._clients.add(client)
            self._subscribed.set()

    # --- the schedule -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._subscribed.wait()
        settings = self._settings
        start_ms = settings.start_time_ms
        self.walk = walk = walk_for(settings, self._clock.now_ms() if start_ms is None else start_ms)
        self._started_ms = next_heartbeat_ms = self._clock.monotonic_ms()
        while True:
            now_ms = self._clock.monotonic_ms()
            self._break_connections(now_ms)
            due = self._due(walk, now_ms)
            if due:
                await self._broadcast(self._encoder.encode(walk.take(due)), now_ms)
            if settings.events and walk.index >= settings.events and not self.finished.is_set():
                await self._broadcast(self._encoder.flush(), now_ms)
                self.finished.set()
            if now_ms >= next_heartbeat_ms:
                next_heartbeat_ms = now_ms + _HEARTBEAT_MS
                await self._broadcast([(HEARTBEAT, one, heartbeat_text(walk, one)) for one in self._products], now_ms)
            # a full batch means that the schedule is behind: only let the others have their turn
            await asyncio.sleep(0 if due == BATCH_TRADES else _IDLE_S)

    def _due(self, walk: RandomWalk, now_ms: int) -> int:
        settings = self._settings
        if settings.rate:
            target = int((now_ms - self._started_ms) * settings.rate / 1000) + 1
        else:
            target = walk.index + (BATCH_TRADES if self._clients else 0)
        if settings.events:
            target = min(target, settings.events)
        return max(0, min(BATCH_TRADES, target - walk.index))

    async def _broadcast(self, frames: Sequence[Frame], now_ms: int) -> None:
        clients = [client for client in self._clients if not self._is_silent(client, now_ms)]
        if len(clients) == 1:
            await self._send(clients[0], frames)
        elif clients:
            await asyncio.gather(*(self._send(client, frames) for client in clients))

    async def _send(self, client: _Client, frames: Sequence[Frame]) -> None:
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                await client.send(client.subscription.texts(frames))
        except TimeoutError:
            logger.warning("a subscriber has read nothing for %s s and is dropped", self._settings.send_timeout_s)
            self._clients.discard(client)
            client.transport.abort()
        except (ConnectionError, RuntimeError):
            self._clients.discard(client)

    def _break_connections(self, now_ms: int) -> None:
        lifetime_ms = self._settings.faults.disconnect_every_s * 1000
        if not lifetime_ms:
            return
        for client in [one for one in self._clients if now_ms - one.opened_ms >= lifetime_ms]:
            self._clients.discard(client)
            client.transport.abort()

    def _is_silent(self, client: _Client, now_ms: int) -> bool:
        faults = self._settings.faults
        if not faults.silence_every_s:
            return False
        talking_ms, silent_ms = faults.silence_every_s * 1000, faults.silence_s * 1000
        return (now_ms - client.opened_ms) % (talking_ms + silent_ms) >= talking_ms


def encode_frames(texts: Sequence[str]) -> bytes:
    """Unmasked text frames of RFC 6455 in one piece of bytes; the payloads are ASCII and shorter than 64 KiB."""
    parts = []
    for text in texts:
        size = len(text)
        head = f"\x81{chr(size)}" if size < 126 else f"\x81\x7e{chr(size >> 8)}{chr(size & 0xFF)}"
        parts.append(head + text)
    return "".join(parts).encode("latin-1")
