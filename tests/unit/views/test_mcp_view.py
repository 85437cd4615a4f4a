"""The life of the protocol server behind its route."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamapp.settings import Settings
from streamapp.views.asgi import AsgiApp
from streamapp.views.mcp import McpView


class Served:
    """A server that breaks when it is told to."""

    def __init__(self) -> None:
        self.breaks = asyncio.Event()

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[AsgiApp]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("not called")

        async with asyncio.TaskGroup() as tasks:
            breaking = tasks.create_task(self._break())
            yield app
            breaking.cancel()

    async def _break(self) -> None:
        await self.breaks.wait()
        raise ValueError("broken")

    def close(self) -> None: ...


async def test_server_that_ended_is_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    made: list[Served] = []

    def build() -> Served:
        made.append(Served())
        return made[-1]

    view = McpView(build, Settings())
    first = await view._app()
    assert await view._app() is first
    life = view._life
    assert life is not None
    made[0].breaks.set()
    async with asyncio.timeout(10):
        await asyncio.wait({life})
    assert await view._app() is not first
    assert len(made) == 2
    assert "the MCP server failed" in caplog.text
    await view.close()
