"""What an MCP server answers from: the operations of this process, or those of a worker elsewhere."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from streamapp.operations.answers import Answer
from streamapp.operations.runner import Operations


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of a table's keys; `cursor` is None on the last one."""

    keys: Sequence[str]
    cursor: str | None


class Backend(Protocol):
    """Operations, the keys of a table, and word of changes; every method raises QueryErrors."""

    async def call(self, name: str, given: Mapping[str, Any], caller: str) -> Answer:
        """Run one operation."""
        ...

    async def tables(self) -> Sequence[str]:
        """The names of the tables, in order of declaration."""
        ...

    async def keys(self, table: str, limit: int, cursor: str | None) -> KeyPage:
        """Keys in order."""
        ...

    def changes(self, table: str, key: str) -> AbstractAsyncContextManager[AsyncIterator[bool]]:
        """False for what was there before, True for every change after it, conflated."""
        ...


class LocalBackend:
    """The operations of this worker.

    Args:
        operations: run here.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._queries = operations.source.queries

    async def call(self, name: str, given: Mapping[str, Any], caller: str) -> Answer:
        """Run one operation."""
        return await self._operations.call(name, given, caller)

    async def tables(self) -> Sequence[str]:
        """The names of the tables, in order of declaration."""
        return [info.name for info in self._queries.tables()]

    async def keys(self, table: str, limit: int, cursor: str | None) -> KeyPage:
        """Keys in order."""
        page = await self._queries.keys(table, limit=limit, cursor=cursor)
        return KeyPage(list(page.items), page.cursor)

    @asynccontextmanager
    async def changes(self, table: str, key: str) -> AsyncIterator[AsyncIterator[bool]]:
        """Word of changes."""
        async with self._queries.changes(table, key) as changes:

            async def told() -> AsyncIterator[bool]:
                async for change in changes:
                    yield change.kind == "change"

            yield told()
