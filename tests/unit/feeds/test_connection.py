"""The connection against a WebSocket server in the same process, misbehaving on demand."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from streamapp.errors import ConfigurationError
from streamapp.feeds.auth import FeedAuth
from streamapp.feeds.backoff import Backoff, BackoffPolicy
from streamapp.feeds.connection import (
    BAD_FRAME,
    Connected,
    ConnectionEvent,
    ConnectionOptions,
    Disconnected,
    FeedConnection,
)
from streamapp.feeds.protocol import OVERSIZED, FeedEvent, FeedProtocol, ReconnectRequested, Rejected, SendText
from streamapp.settings import FeedAuthSettings

Handler = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]
QUICK = BackoffPolicy(initial_ms=1, max_delay_ms=1, circuit_failures=1_000, circuit_pause_ms=1)


class Echo(FeedProtocol):
    """Every frame becomes an event: `reconnect` and `send:TEXT` are obeyed, the rest is rejected with its bytes."""

    def __init__(self, url: str, heartbeat_timeout_ms: int = 60_000, max_frame_bytes: int = 1_000) -> None:
        super().__init__(
            venue="echo", url=url, heartbeat_timeout_ms=heartbeat_timeout_ms, max_frame_bytes=max_frame_bytes
        )
        self.forgotten = 0

    def open_messages(self, now_ms: int) -> list[str]:
        return ["subscribe"]

    def disconnected(self) -> None:
        self.forgotten += 1

    def _receive(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        assert isinstance(frame, bytes)
        if frame == b"reconnect":
            return [ReconnectRequested("maintenance")]
        if frame.startswith(b"send:"):
            return [SendText(frame[5:].decode())]
        return [Rejected(frame, "test", "")]


class Recorder:
    """A sink; `until` waits for what the test wants to see."""

    def __init__(self) -> None:
        self.events: list[ConnectionEvent] = []
        self.batches: list[int] = []
        self._changed = asyncio.Event()

    async def __call__(self, events: Sequence[ConnectionEvent]) -> None:
        self.events += events
        self.batches.append(len(events))
        self._changed.set()

    @property
    def frames(self) -> list[bytes]:
        return [event.raw for event in self.events if isinstance(event, Rejected) and event.reason == "test"]

    def of(self, kind: type) -> list[ConnectionEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True, max_msg_size=0)
        await socket.prepare(request)
        await handler(socket, request)
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    port = runner.addresses[0][1]
    try:
        yield f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(connection: FeedConnection, sink: Recorder) -> AsyncIterator[None]:
    task = asyncio.create_task(connection.run(sink))
    try:
        yield
    finally:
        await connection.stop()
        async with asyncio.timeout(10):
            await task


def connection_to(protocol: FeedProtocol, policy: BackoffPolicy = QUICK, **options: object) -> FeedConnection:
    return FeedConnection(
        protocol,
        options=ConnectionOptions(connect_timeout_ms=5_000, close_timeout_ms=500, **options),  # type: ignore[arg-type]
        backoff=Backoff(policy, rng=random.Random(1)),
    )


async def hold(socket: web.WebSocketResponse) -> None:
    """Read until the client goes."""
    async for _ in socket:
        pass


async def test_connection_subscribes_and_delivers_frames_in_order_and_in_batches():
    received: list[str] = []

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        received.append(await socket.receive_str())
        for number in range(2_000):
            await socket.send_str(str(number))
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url:
        connection = connection_to(Echo(url))
        counts: list[int] = []
        connection.on_frames = counts.append
        async with running(connection, sink):
            await sink.until(lambda: len(sink.frames) == 2_000)

    assert received == ["subscribe"]
    assert sink.events[0] == Connected(1)
    assert sink.frames == [str(number).encode() for number in range(2_000)]
    assert sum(counts) == 2_000
    assert max(sink.batches) > 1, "frames that are there already are taken at once"


async def test_connection_stop_sends_a_close_frame_and_is_no_failure():
    closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await hold(socket)
        closed.set_result(socket.close_code)

    sink = Recorder()
    async with server(handler) as url:
        async with running(connection_to(Echo(url)), sink):
            await sink.until(lambda: bool(sink.of(Connected)))
        assert await closed == 1001
    last = sink.events[-1]
    assert isinstance(last, Disconnected)
    assert (last.detail, last.pause_ms) == ("stopped", None)


async def test_connection_silence_beyond_the_heartbeat_reconnects_and_resubscribes():
    subscriptions = 0

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        nonlocal subscriptions
        subscriptions += await socket.receive_str() == "subscribe"
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url:
        protocol = Echo(url, heartbeat_timeout_ms=50)
        async with running(connection_to(protocol), sink):
            await sink.until(lambda: len(sink.of(Connected)) == 2)

    first = sink.of(Disconnected)[0]
    assert isinstance(first, Disconnected)
    assert first.detail.startswith("silent for ")
    assert subscriptions == 2
    assert protocol.forgotten == 2


async def test_connection_pings_of_a_gateway_are_no_heartbeat():
    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        async def ping() -> None:
            while True:
                await socket.ping()
                await asyncio.sleep(0.005)

        task = asyncio.create_task(ping())
        await hold(socket)
        task.cancel()

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url, heartbeat_timeout_ms=60)), sink):
        await sink.until(lambda: bool(sink.of(Disconnected)))
    assert "silent" in sink.of(Disconnected)[0].detail  # type: ignore[union-attr]


async def test_connection_answers_pings_and_sends_what_the_protocol_wants():
    got: list[str] = []

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.receive_str()
        await socket.ping(b"echo-me")
        await socket.send_str("send:pong of the protocol")
        got.append(await socket.receive_str())
        await socket.send_str("done")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: sink.frames == [b"done"])
    assert got == ["pong of the protocol"]


async def test_connection_names_the_venues_close_code_and_reconnects():
    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.receive_str()
        await socket.close(code=1012, message=b"restarting")

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: len(sink.of(Connected)) == 2)
    assert sink.of(Disconnected)[0].detail == "closed by the venue with code 1012, 'restarting'"  # type: ignore[union-attr]


async def test_connection_honours_the_venues_request_for_a_new_one():
    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.receive_str()
        await socket.send_str("reconnect")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: len(sink.of(Connected)) == 2)
    first = sink.of(Disconnected)[0]
    assert isinstance(first, Disconnected)
    assert first.detail == "the venue asked for a new connection: maintenance"
    assert first.pause_ms == 0


async def test_connection_frame_over_the_limit_is_rejected_and_the_feed_goes_on():
    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.receive_str()
        await socket.send_str("x" * 1_500)
        await socket.send_str("after")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: sink.frames == [b"after"])
    assert [event.reason for event in sink.of(Rejected)] == [OVERSIZED, "test"]  # type: ignore[union-attr]
    assert not [event for event in sink.of(Disconnected) if event.detail != "stopped"]  # type: ignore[union-attr]


async def test_connection_huge_frame_is_rejected_unread_and_the_feed_comes_back():
    connections = 0

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        nonlocal connections
        connections += 1
        await socket.receive_str()
        await socket.send_str("x" * 1_000_000 if connections == 1 else "after")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: sink.frames == [b"after"])
    rejected = sink.of(Rejected)[0]
    assert isinstance(rejected, Rejected)
    assert (rejected.raw, rejected.reason) == (b"", OVERSIZED)
    assert "2000 bytes" in rejected.error


async def test_connection_bytes_that_are_no_frames_are_rejected_and_the_feed_comes_back():
    connections = 0

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        nonlocal connections
        connections += 1
        await socket.receive_str()
        if connections == 1:
            assert request.transport is not None
            request.transport.write(b"\xff\xff\xff\xff\xff\xff")
        else:
            await socket.send_str("after")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: sink.frames == [b"after"])
    assert sink.of(Rejected)[0].reason == BAD_FRAME  # type: ignore[union-attr]


async def test_connection_fragmented_message_arrives_whole():
    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.receive_str()
        assert request.transport is not None
        request.transport.write(b"\x01\x02ab" + b"\x00\x02cd" + b"\x80\x01e")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url, running(connection_to(Echo(url)), sink):
        await sink.until(lambda: sink.frames == [b"abcde"])


async def test_connection_reads_nothing_while_the_sink_is_busy():
    sent = 0

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        nonlocal sent
        await socket.receive_str()
        for number in range(50_000):
            await socket.send_str(f"{number:0900d}")
            sent = number + 1
        await hold(socket)

    gate = asyncio.Event()
    sink = Recorder()

    async def slow(events: Sequence[ConnectionEvent]) -> None:
        await sink(events)
        if sink.frames:
            await gate.wait()

    async with server(handler) as url:
        connection = connection_to(Echo(url, heartbeat_timeout_ms=50))
        task = asyncio.create_task(connection.run(slow))
        await sink.until(lambda: bool(sink.frames))
        # the server gets no further once the buffers between the two are full, however long one waits
        before = -1
        async with asyncio.timeout(30):
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
        assert sent < 25_000
        assert not sink.of(Disconnected), "our own slowness is not the venue's silence"
        gate.set()
        # counted first: picking the frames out of all events after every small batch would take longer than the rest
        await sink.until(lambda: len(sink.events) >= 50_000 and len(sink.frames) == 50_000)
        await connection.stop()
        async with asyncio.timeout(10):
            await task


async def test_connection_authenticates_at_the_handshake_and_by_the_first_message():
    seen: list[str] = []

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        seen.extend([request.headers["X-Key"], request.query["token"]])
        seen.append(await socket.receive_str())
        seen.append(await socket.receive_str())
        await socket.send_str("done")
        await hold(socket)

    sink = Recorder()
    async with server(handler) as url:
        settings = FeedAuthSettings(
            kind="message", key="k", message='{"key":"{key}"}', headers={"X-Key": "h"}, query={"token": "t"}
        )
        connection = FeedConnection(Echo(url), auth=FeedAuth(settings), backoff=Backoff(QUICK))
        async with running(connection, sink):
            await sink.until(lambda: sink.frames == [b"done"])
    assert seen == ["h", "t", '{"key":"k"}', "subscribe"]


async def test_connection_refused_handshake_shows_the_status_and_no_token(caplog: pytest.LogCaptureFixture):
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403)

    app = web.Application()
    app.router.add_get("/", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink = Recorder()
    settings = FeedAuthSettings(query={"token": "very-secret"})
    connection = FeedConnection(
        Echo(f"ws://127.0.0.1:{runner.addresses[0][1]}/"),
        auth=FeedAuth(settings),
        backoff=Backoff(BackoffPolicy(initial_ms=1, max_delay_ms=1, max_tries=2)),
    )
    with caplog.at_level("DEBUG"):
        async with asyncio.timeout(10):
            await connection.run(sink)
    await runner.cleanup()

    details = [event.detail for event in sink.events if isinstance(event, Disconnected)]
    assert details == ["the venue refused the handshake with HTTP status 403"] * 2
    assert sink.events[-1].pause_ms is None, "the tries are used up"  # type: ignore[union-attr]
    assert "very-secret" not in caplog.text


async def test_connection_opens_the_circuit_after_failures_in_a_row():
    policy = BackoffPolicy(initial_ms=1, max_delay_ms=1, circuit_failures=3, circuit_pause_ms=60_000)
    sink = Recorder()
    async with running(connection_to(Echo("ws://127.0.0.1:9/"), policy), sink):
        await sink.until(lambda: len(sink.of(Disconnected)) == 3)
    third = sink.of(Disconnected)[2]
    assert isinstance(third, Disconnected)
    assert third.circuit_open
    assert (third.pause_ms or 0) >= 30_000


async def test_connection_trusts_its_own_ca_file_and_nobody_else(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        await socket.receive_str()
        await socket.send_str("trusted")
        await hold(socket)

    async with server(handler, context) as url:
        sink = Recorder()
        async with running(connection_to(Echo(url), ca_file=ca_file), sink):
            await sink.until(lambda: sink.frames == [b"trusted"])

        stranger = Recorder()
        async with running(connection_to(Echo(url)), stranger):
            await stranger.until(lambda: bool(stranger.of(Disconnected)))
        assert not stranger.of(Connected)
        assert "ertificate" in stranger.of(Disconnected)[0].detail  # type: ignore[union-attr]


async def test_connection_names_a_ca_file_that_cannot_be_used(tmp_path):
    with pytest.raises(ConfigurationError, match="ca_file"):
        await connection_to(Echo("wss://127.0.0.1:9/"), ca_file=tmp_path / "missing.pem").run(Recorder())


async def test_connection_compression_is_offered_on_request():
    offered: list[str | None] = []

    async def handler(socket: web.WebSocketResponse, request: web.Request) -> None:
        offered.append(request.headers.get("Sec-WebSocket-Extensions"))
        await socket.receive_str()
        await socket.send_str("squeezed" * 50)
        await hold(socket)

    async with server(handler) as url:
        for compress in (True, False):
            sink = Recorder()
            async with running(connection_to(Echo(url), compress=compress), sink):
                await sink.until(lambda sink=sink: sink.frames == [b"squeezed" * 50])
    assert "permessage-deflate" in (offered[0] or "")
    assert offered[1] is None
