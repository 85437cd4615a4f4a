"""Word of changes: nothing is lost to who does not take it at once, nor where a stream broke off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.client.http import Event
from streamapp.clock import ManualClock
from streamapp.mcp_server import watching
from streamapp.mcp_server.backend import LocalBackend
from streamapp.mcp_server.remote import RemoteBackend
from streamapp.mcp_server.resources import uri_of
from streamapp.mcp_server.watching import SessionSubscriptions, Watcher
from streamapp.metrics import Metrics
from streamapp.operations.runner import Operations
from streamapp.queries.access import ANONYMOUS
from streamapp.settings import Settings
from tests.fakes.queries import FakeQueries, latest

KEYS = ("x:A", "x:B")


class Connection:
    """A session's connection whose client takes nothing at first."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.exit_stack = AsyncExitStack()
        self.tries: asyncio.Queue[str] = asyncio.Queue()
        self.takes = asyncio.Event()
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def send_resource_updated(self, uri: str) -> None:
        self.tries.put_nowait(uri)
        await self.takes.wait()
        self.told.put_nowait(uri)


async def test_word_that_a_client_did_not_take_in_time_is_told_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SEND_TIMEOUT_S", 0.001)
    queries = FakeQueries(clock=ManualClock(1_790_000_061_234))
    for key in KEYS:
        queries.put("latest", key, latest(1.0))
    settings = Settings()
    watcher = Watcher(LocalBackend(Operations(queries, settings, Metrics(), queries.clock)), settings, None)
    connection = Connection()
    async with connection.exit_stack, asyncio.timeout(20):
        subscriptions = SessionSubscriptions.of(watcher, connection)
        for key in KEYS:
            subscriptions.add(uri_of("latest", key), ANONYMOUS)
        tried = {await connection.tries.get() for _ in range(3)}
        assert len(tried) == len(KEYS), "one that is not taken keeps no other from being told"
        connection.takes.set()
        assert {await connection.told.get() for _ in KEYS} == {uri_of("latest", key) for key in KEYS}


async def test_snapshot_of_a_stream_that_was_opened_again_may_be_news() -> None:
    async def changes(_table: str, _key: str) -> AsyncIterator[Event]:
        for kind in ("snapshot", "change", "snapshot", "change"):
            yield Event(kind, {}, None)

    client: Any = SimpleNamespace(changes=changes)
    async with RemoteBackend(client).changes("latest", "x:A") as told:
        assert [changed async for changed in told] == [False, True, True, True]
