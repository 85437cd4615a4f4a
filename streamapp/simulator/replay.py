"""A WebSocket server that plays a recorded session.

Every connection gets all received frames of the recording from the beginning, in order, at the recorded pace divided by
the speed. It starts with the client's first message, or after a moment where the client sends none, and stays open
afterwards unless it is told otherwise. What the client sends is read and ignored.
"""

import asyncio
import contextlib
from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from streamapp.clock import Clock, SystemClock
from streamapp.errors import ConfigurationError
from streamapp.feeds.recording import RecordedLine, read_recording


class ReplaySettings(BaseModel):
    """One replay.

    Attributes:
        path: the recording.
        port: where to listen on loopback; 0: any free port.
        speed: how many times faster than recorded; None: as fast as the client reads.
        close: close the connection after the last frame.
        first_message_timeout_s: how long a client has to send its subscription before the frames begin anyway.
        max_pause_s: a longer pause in the recording is cut to this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    port: int = Field(default=0, ge=0, le=65_535)
    speed: float | None = Field(default=1.0, gt=0)
    close: bool = False
    first_message_timeout_s: float = Field(default=0.5, gt=0)
    max_pause_s: float = Field(default=60.0, gt=0)


class Replay:
    """The server; `start`, then `stop`.

    Attributes:
        port: the port that is listened on, once started.
    """

    def __init__(self, settings: ReplaySettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._runner: web.AppRunner | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._failure: asyncio.Future[None] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The WebSocket's address; any path below it works too."""
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Check that the recording can be read, and listen on loopback.

        Raises:
            RecordingError: the file is no recording.
            ConfigurationError: the port is taken.
        """
        next(iter(read_recording(self._settings.path)), None)
        self._failure = asyncio.get_running_loop().create_future()
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._settings.port).start()
        except OSError as problem:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"cannot listen on 127.0.0.1:{self._settings.port} ({problem.strerror}); choose another --port, or 0"
            ) from None
        self.port = int(self._runner.addresses[0][1])

    async def wait(self) -> None:
        """Until a connection fails over a broken recording; raises RecordingError then."""
        if self._failure is not None:
            await self._failure

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        closing = [socket.close(code=1001, message=b"going away") for socket in self._sockets]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), 1.0)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, timeout=1.0)
        await socket.prepare(request)
        self._sockets.add(socket)
        spoken = asyncio.Event()
        player = asyncio.create_task(self._play(socket, spoken), name="replay")
        try:
            async for _ in socket:
                spoken.set()
        finally:
            player.cancel()
            self._sockets.discard(socket)
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await player
        return socket

    async def _play(self, socket: web.WebSocketResponse, spoken: asyncio.Event) -> None:
        settings = self._settings
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(spoken.wait(), settings.first_message_timeout_s)
        due_ms = float(self._clock.monotonic_ms())
        previous: RecordedLine | None = None
        try:
            for line in read_recording(settings.path):
                if line.kind != "received":
                    continue
                if settings.speed is not None:
                    if previous is not None:
                        pause_s = min(max(0.0, line.time_s - previous.time_s), settings.max_pause_s)
                        due_ms += pause_s * 1000 / settings.speed
                    wait_ms = due_ms - self._clock.monotonic_ms()
                    if wait_ms > 0:
                        await asyncio.sleep(wait_ms / 1000)
                    previous = line
                await socket.send_str(line.text)
        except ConnectionError:
            return
        except Exception as problem:
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(problem)
            await socket.close(code=1011, message=b"broken recording")
            return
        if settings.close:
            await socket.close()
