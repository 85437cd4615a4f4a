"""The quick way of a point read answers what the ordinary handler does, or leaves it to that."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.queries.model import HOP_HEADER
from streamapp.settings import Settings
from streamapp.views.application import POINT_READS, application, with_point_reads
from streamapp.views.auth import new_token
from tests.fakes.queries import FakeQueries
from tests.unit.views.conftest import BTC

KEY = f"/v1/tables/candles_1m/keys/{BTC}"


class Server:
    """One application on a port, with or without the quick way; counts what takes it."""

    def __init__(self, app: web.Application, quick: bool) -> None:
        self.runner = web.AppRunner(app, access_log=None)
        self.quick = quick
        self.answered = 0

    async def start(self) -> None:
        await self.runner.setup()
        if self.quick:
            app, server = self.runner.app, self.runner.server
            reads = app[POINT_READS]
            answer = reads.answer

            def counting(request: web.Request) -> Any:
                response = answer(request)
                self.answered += response is not None
                return response

            reads.answer = counting  # type: ignore[method-assign]
            server.request_handler = with_point_reads(app, server.request_handler)
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()

    async def ask(self, text: str) -> tuple[str, dict[str, str], bytes]:
        """Status line, headers without the date, and the body of one request as it goes over the wire."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.runner.addresses[0][1])
        try:
            writer.write(text.replace("\n", "\r\n").encode("utf-8", "surrogateescape"))
            async with asyncio.timeout(20):
                status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                body = b""
                if not text.startswith("HEAD") and " 304 " not in status:
                    body = await reader.readexactly(int(headers.get("Content-Length") or headers["content-length"]))
        finally:
            writer.close()
        return status, {name.lower(): value for name, value in headers.items() if name.lower() != "date"}, body


@pytest.fixture
async def servers(queries: FakeQueries, clock: ManualClock) -> AsyncIterator[Any]:
    started: list[Server] = []

    async def start(**changes: Any) -> tuple[Server, Server]:
        for quick in (True, False):
            app = application(queries, Settings(**changes), metrics=Metrics(), clock=clock)
            started.append(Server(app, quick))
            await started[-1].start()
        return started[-2], started[-1]

    yield start
    for server in started:
        await server.runner.cleanup()


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> str:
    return "\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""])


QUICK = [
    get(KEY),
    get(KEY.replace(":", "%3A")),
    get("/v1/tables/latest/keys/" + BTC),
    get(KEY, "Accept-Encoding: gzip"),
    get(KEY, "Accept: text/html", "X-Unknown: 1"),
    get(KEY, f"{HOP_HEADER}: whatever"),
]
ORDINARY = [
    get(KEY + "?at=1790000040000"),
    get(KEY + "?unknown=1"),
    get(KEY + "?"),
    get(KEY + "/windows"),
    get("/v1/tables/candles_1m/keys/kraken:A/B-USD"),
    get("/v1/tables/candles_1m/keys/kraken:A%2FB-USD"),
    get("/v1/tables/candles_1m/keys/"),
    get("/v1/tables/candles_1m/keys"),
    get("/v1/tables/nothing/keys/" + BTC),
    get("/v1/tables/candles_1m/keys/none"),
    get("/v1/tables/candles_1m/keys/%00"),
    get("/v1/tables/candles_1m/keys/%ff"),
    get("/v1/tables/candles_1m/keys/" + "k" * 2_000),
    get("/v1/tables/a/../candles_1m/keys/" + BTC),
    get(KEY, "If-None-Match: *"),
    get(KEY, "Connection: close"),
    get(KEY, method="HEAD"),
    get(KEY, version="1.0"),
    get(KEY, "Content-Length: 0", method="POST"),
    get(KEY).replace("localhost", "evil.example"),
]


@pytest.mark.parametrize("text", QUICK, ids=range(len(QUICK)))
async def test_plain_point_read_is_answered_as_the_ordinary_handler_does(servers: Any, text: str) -> None:
    quick, ordinary = await servers()
    assert await quick.ask(text) == await ordinary.ask(text)
    assert quick.answered == 1


@pytest.mark.parametrize("text", ORDINARY, ids=range(len(ORDINARY)))
async def test_whatever_asks_for_more_goes_the_ordinary_way(servers: Any, text: str) -> None:
    quick, ordinary = await servers()
    assert await quick.ask(text) == await ordinary.ask(text)
    assert quick.answered == 0


async def test_token_is_asked_for_on_the_quick_way_too(servers: Any) -> None:
    token, entry = new_token("reader", ["read"])
    metrics_token, metrics_entry = new_token("scraper", ["metrics"])
    quick, ordinary = await servers(api_tokens=f"{entry},{metrics_entry}")
    for header, answered in (
        ("X-None: 1", 0),
        ("Authorization: Bearer wrong", 0),
        (f"Authorization: Bearer {metrics_token}", 0),
        (f"{HOP_HEADER}: forged", 0),
        (f"Authorization: Bearer {token}", 1),
    ):
        assert await quick.ask(get(KEY, header)) == await ordinary.ask(get(KEY, header))
        assert quick.answered == answered, header


async def test_connection_serves_one_quick_read_after_the_other(servers: Any, queries: FakeQueries) -> None:
    quick, _ = await servers()
    reader, writer = await asyncio.open_connection("127.0.0.1", quick.runner.addresses[0][1])
    async with asyncio.timeout(20):
        # two in one packet, then a third one
        writer.write(get(KEY).replace("\n", "\r\n").encode() * 2)
        seen = [await reader.readuntil(b'"feed":null}}') for _ in range(2)]
        writer.write(get(KEY).replace("\n", "\r\n").encode())
        seen.append(await reader.readuntil(b'"feed":null}}'))
    writer.close()
    assert len({answer.partition(b"\r\n\r\n")[2] for answer in seen}) == 1
    assert quick.answered == 3


async def test_reads_that_cannot_be_answered_here_wait_for_the_ordinary_handler(
    servers: Any, queries: FakeQueries
) -> None:
    quick, _ = await servers()
    queries.restoring = {0, 1, 2, 3}
    assert " 503 " in (await quick.ask(get(KEY)))[0]
    assert quick.answered == 0


async def test_value_that_cannot_be_written_is_told_as_the_ordinary_handler_does(
    servers: Any, queries: FakeQueries
) -> None:
    queries.put("latest", BTC, {"price": object()})
    quick, ordinary = await servers()
    text = get("/v1/tables/latest/keys/" + BTC)
    told = await quick.ask(text)
    assert told == await ordinary.ask(text)
    assert b'"code":"internal"' in told[2]


async def test_quick_reads_are_counted_with_the_others(servers: Any, queries: FakeQueries) -> None:
    quick, ordinary = await servers()
    for server in (quick, ordinary):
        await server.ask(get(KEY))
        _, _, text = await server.ask(get("/metrics"))
        line = 'streamapp_requests_total{route="/v1/tables/{table}/keys/{key}",status="200"} 1.0'
        assert line in text.decode()


async def test_server_with_somebody_elses_middleware_shows_it_every_request(
    queries: FakeQueries, clock: ManualClock
) -> None:
    @web.middleware
    async def foreign(request: web.Request, handler: Any) -> Any:
        return await handler(request)

    app = application(queries, Settings(), clock=clock)
    assert with_point_reads(app, foreign) is not foreign
    app.middlewares.append(foreign)
    assert with_point_reads(app, foreign) is foreign
