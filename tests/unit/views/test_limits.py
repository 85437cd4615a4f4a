import asyncio

from aiohttp import web

from streamapp.settings import Settings
from streamapp.views.application import application, runner_options
from streamapp.views.deadlines import Deadlines
from tests.fakes.queries import FakeQueries
from tests.unit.views.conftest import BTC, CheckedClient, MakeClient

VALUE = f"/v1/tables/latest/keys/{BTC}"


async def test_answer_that_takes_too_long_is_a_problem(make_client: MakeClient, queries: FakeQueries) -> None:
    client = await make_client(request_timeout_ms=80)
    queries.delay = asyncio.Event()
    status, body, headers = await client.get(VALUE)
    assert (status, body["code"], headers["Retry-After"]) == (504, "timeout", "1")
    queries.delay = None
    assert (await client.get(VALUE))[0] == 200


async def test_deadline_spares_who_is_in_time_and_takes_back_its_cancel() -> None:
    deadlines = Deadlines(0.04)
    loop = asyncio.get_running_loop()
    quick = asyncio.Event()

    async def bounded(event: asyncio.Event) -> str:
        task = asyncio.current_task()
        deadlines.enter(task, loop.time())
        try:
            await event.wait()
        except asyncio.CancelledError:
            if not deadlines.expired(task):
                raise
            # the task must be able to go on as if it had never been cancelled
            await asyncio.wait_for(quick.wait(), 1)
            return "late"
        finally:
            deadlines.leave(task)
        return "in time"

    quick.set()
    first, second = await asyncio.gather(bounded(quick), bounded(asyncio.Event()))
    assert (first, second) == ("in time", "late")
    waiting = asyncio.create_task(bounded(asyncio.Event()))
    await asyncio.sleep(0)
    waiting.cancel()
    assert (await asyncio.gather(waiting, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert not deadlines._started


async def test_long_address_is_too_large(client: CheckedClient) -> None:
    status, body, _ = await client.get("/v1/tables/latest/values?keys=" + "k" * 6_500)
    assert (status, body["code"]) == (413, "too_large")
    assert (await client.get("/nowhere?" + "k" * 6_500))[0] == 413


async def test_large_body_is_refused_before_it_is_read(make_client: MakeClient) -> None:
    client = await make_client(max_body_bytes=100)
    status, body, headers = await client.request("POST", "/login", data=b"x" * 101)
    assert (status, body["code"]) == (413, "too_large")
    assert headers["Connection"] == "close"
    assert (await client.request("GET", VALUE, data=b"x" * 101))[0] == 413


async def test_large_body_without_a_length_is_refused_while_it_is_read(make_client: MakeClient) -> None:
    client = await make_client(max_body_bytes=1_000)

    async def endless():
        for _ in range(50):
            yield b"x" * 500

    status, body, _ = await client.request("POST", "/login", data=endless())
    assert (status, body["code"]) == (413, "too_large")


class RawServer:
    """The application behind a real listening socket, with the runner's own limits."""

    def __init__(self, queries: FakeQueries, **changes: int) -> None:
        self.settings = Settings(**changes)
        self.runner = web.AppRunner(application(queries, self.settings), **runner_options(self.settings))

    async def __aenter__(self) -> int:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return self.runner.addresses[0][1]

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


async def ask(port: int, *parts: bytes) -> bytes:
    """Send the parts and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_head_that_never_ends_is_cut_off(queries: FakeQueries) -> None:
    async with RawServer(queries, http_idle_timeout_ms=150) as port:
        assert await ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") == b""
        assert await ask(port) == b""


async def test_too_many_or_too_long_headers_are_refused(queries: FakeQueries) -> None:
    async with RawServer(queries) as port:
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
        assert (
            b" 400 " in (await ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n")).split(b"\r\n")[0]
        )
        long = b"X-Long: " + b"x" * 20_000 + b"\r\n"
        assert (
            b" 400 " in (await ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + long + b"\r\n")).split(b"\r\n")[0]
        )


async def test_body_that_never_comes_meets_the_time_out(queries: FakeQueries) -> None:
    async with RawServer(queries, request_timeout_ms=150) as port:
        head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{"
        assert (await ask(port, head)).startswith(b"HTTP/1.1 504 ")
