"""The bridge to ASGI applications: bodies, streams, clients that leave, and the end of the server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from streamapp.errors import TooLargeError
from streamapp.settings import Settings
from streamapp.views.application import runner_options
from streamapp.views.asgi import AsgiApp, AsgiBridge

STREAM = [(b"content-type", b"text/event-stream")]
Start = Callable[[AsgiApp], Awaitable[tuple[str, AsgiBridge]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    runners: list[web.AppRunner] = []

    async def make(app: AsgiApp) -> tuple[str, AsgiBridge]:
        bridge = AsgiBridge(body_max_bytes=1_000, write_timeout_s=0.2, body_timeout_s=0.2)

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await bridge.serve(request, app, {"extra": "more"})
            except TooLargeError as problem:
                return web.Response(status=413, text=str(problem))
            except TimeoutError:
                return web.Response(status=504)

        application = web.Application()
        application.router.add_route("*", "/{any:.*}", handle)
        runner = web.AppRunner(application, **runner_options(Settings()))
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}", bridge

    yield make
    for runner in runners:
        await runner.cleanup()


async def test_request_and_answer_pass_as_they_are(start: Start) -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        seen.update(await receive())
        await send(
            {"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"content-length", b"99")]}
        )
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    url, _ = await start(app)
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/a%20b?c=d", data=b"body", headers={"X-B": "2"}) as answer:
            assert (answer.status, answer.headers["x-a"], await answer.read()) == (201, "1", b"one two")
    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == ("POST", "/a b", b"/a%20b", b"c=d")
    assert (seen["body"], seen["more_body"], seen["extra"]) == (b"body", False, "more")
    assert (b"x-b", b"2") in seen["headers"]


async def test_large_body_is_refused_also_without_a_length(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not to be reached")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    url, _ = await start(app)
    async with aiohttp.ClientSession() as session, session.post(url, data=chunks()) as answer:
        assert answer.status == 413


async def test_body_that_never_comes_is_given_up(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not to be reached")

    url, _ = await start(app)
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(10):
        assert b" 504 " in await reader.readline()
    writer.close()


async def test_stream_begins_before_its_first_event_and_its_end_is_told(start: Start) -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    url, _ = await start(app)
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url)
        assert answer.status == 200
        assert not ended.is_set()
        answer.close()
        async with asyncio.timeout(10):
            await ended.wait()


async def test_application_may_finish_what_it_does_after_its_client_left(start: Start) -> None:
    finished = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await receive()
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"to nobody"})
        finished.set()

    url, _ = await start(app)
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url)
        await answer.content.readline()
        answer.close()
    async with asyncio.timeout(10):
        await finished.wait()


async def test_close_ends_open_streams(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        await receive()
        await send({"type": "http.response.body", "body": b""})

    url, bridge = await start(app)
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url)
        await bridge.idle(0.01)
        bridge.close()
        async with asyncio.timeout(10):
            await answer.read()
            await bridge.idle(10)


async def test_client_that_takes_nothing_is_dropped(start: Start) -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    url, _ = await start(app)
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url)
        async with asyncio.timeout(20):
            await ended.wait()
        answer.close()


async def test_failure_of_the_application_is_the_handlers(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    url, _ = await start(app)
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 500
