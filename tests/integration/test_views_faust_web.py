"""The routes on Faust's own web server, beside a user's page; the reads behind them are the fake's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from streamapp import StreamApp
from streamapp.errors import UnsafeBindError
from tests.fakes.queries import FakeQueries, latest


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[str]:
    app: Any = StreamApp("views-test", data_dir=tmp_path)
    app.queries = FakeQueries()
    app.queries.put("latest", "x:Y", latest(5.0))

    @app.page("/mine/")
    async def mine(view: Any, request: Any) -> Any:
        return view.json({"mine": True})

    app.web.init_server()
    app.web.init_server()  # Faust does so more than once
    runner = web.AppRunner(app.web.web_app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_routes_and_a_users_page_live_on_one_server(site: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{site}/v1/tables/latest/keys/x:Y") as answer:
            assert (answer.status, (await answer.json())["value"]["price"]) == (200, 5.0)
        async with session.get(f"{site}/mine/") as answer:
            assert (answer.status, await answer.json()) == (200, {"mine": True})
        async with session.get(f"{site}/") as answer:
            assert "streamapp" in await answer.text()


@pytest.mark.parametrize("path", ["/table/", "/router/", "/graph/", "/stats/", "/nothing"])
async def test_fausts_own_pages_are_off(site: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(site + path) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (404, "not_found")


def test_wider_bind_without_a_token_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsafeBindError, match="without a token"):
        StreamApp("views-test", data_dir=tmp_path, web_host="0.0.0.0")
