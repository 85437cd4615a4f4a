"""The MCP server of another process's tables, over standard input and output."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from mcp.server.stdio import stdio_server

from streamapp.client.stream_client import StreamClient
from streamapp.mcp_server.backend import KeyPage
from streamapp.mcp_server.server import StateServer
from streamapp.operations.answers import Answer
from streamapp.queries.access import EVERYTHING, Caller
from streamapp.settings import Settings


class RemoteBackend:
    """The operations of a worker elsewhere.

    Args:
        client: open for as long as this is used.
    """

    def __init__(self, client: StreamClient) -> None:
        self._client = client

    async def call(self, name: str, given: Mapping[str, Any], caller: Caller) -> Answer:
        """Run one operation there; the worker counts it under the token's name."""
        return await self._client.call(name, given)

    async def tables(self, caller: Caller) -> Sequence[str]:
        """The names of the tables."""
        return [table.name for table in (await self._client.list_tables()).tables]

    async def keys(self, table: str, limit: int, cursor: str | None, caller: Caller) -> KeyPage:
        """Keys in order."""
        keys, following = await self._client.keys(table, limit=limit, cursor=cursor)
        return KeyPage(keys, following)

    def check(self, table: str, key: str, caller: Caller) -> None:
        """Nothing here: the worker checks by the token."""

    @asynccontextmanager
    async def changes(self, table: str, key: str) -> AsyncIterator[AsyncIterator[bool]]:
        """Word of changes, conflated by the worker."""
        async with aclosing(self._client.changes(table, key)) as events:

            async def told() -> AsyncIterator[bool]:
                first = True
                async for event in events:
                    # the client opens a lost stream again by itself: what is there then may have changed in between
                    yield event.kind == "change" or not first
                    first = False

            yield told()


async def serve_stdio(client: StreamClient, settings: Settings) -> None:
    """Serve one client on standard input and output until it closes its end; both wires of the protocol."""
    async with client:
        server = StateServer(RemoteBackend(client), settings, local=Caller("stdio", EVERYTHING))
        async with stdio_server() as (incoming, outgoing):
            await server.server.run(incoming, outgoing, server.server.create_initialization_options())
        server.close()
