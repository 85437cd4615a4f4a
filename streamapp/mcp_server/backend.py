"""What an MCP server answers from: the operations of this process, or those of a worker elsewhere."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from streamapp.operations.answers import Answer
from streamapp.operations.runner import Operations
from streamapp.queries.access import EVERYTHING, Caller
from streamapp.queries.bound import check_key

#: follows a resource for all of its subscribers, each of whom may read it
FOLLOWER = Caller("follower", EVERYTHING)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of a table's keys; `cursor` is None on the last one."""

    keys: Sequence[str]
    cursor: str | None


class Backend(Protocol):
    """Operations, the keys of a table, and word of changes; every method raises QueryErrors."""

    async def call(self, name: str, given: Mapping[str, Any], caller: Caller) -> Answer:
        """Run one operation."""
        ...

    async def tables(self, caller: Caller) -> Sequence[str]:
        """The names of the tables that the caller may read, in order of declaration."""
        ...

    async def keys(self, table: str, limit: int, cursor: str | None, caller: Caller) -> KeyPage:
        """Keys that the caller may read, in order."""
        ...

    def check(self, table: str, key: str, caller: Caller) -> None:
        """ForbiddenError where the caller may not read a key, whether there is one or not."""
        ...

    def changes(self, table: str, key: str) -> AbstractAsyncContextManager[AsyncIterator[bool]]:
        """False for what was there before, True for every change after it, conflated; for those who passed `check`."""
        ...


class LocalBackend:
    """The operations of this worker.

    Args:
        operations: run here.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def call(self, name: str, given: Mapping[str, Any], caller: Caller) -> Answer:
        """Run one operation."""
        return await self._operations.call(name, given, caller)

    async def tables(self, caller: Caller) -> Sequence[str]:
        """The names of the tables that the caller may read, in order of declaration."""
        return [info.name for info in self._operations.queries(caller).tables()]

    async def keys(self, table: str, limit: int, cursor: str | None, caller: Caller) -> KeyPage:
        """Keys that the caller may read, in order."""
        page = await self._operations.queries(caller).keys(table, limit=limit, cursor=cursor)
        return KeyPage(list(page.items), page.cursor)

    def check(self, table: str, key: str, caller: Caller) -> None:
        """ForbiddenError where the caller may not read a key."""
        check_key(caller, table, key)

    @asynccontextmanager
    async def changes(self, table: str, key: str) -> AsyncIterator[AsyncIterator[bool]]:
        """Word of changes."""
        async with self._operations.queries(FOLLOWER).changes(table, key) as changes:

            async def told() -> AsyncIterator[bool]:
                async for change in changes:
                    yield change.kind == "change"

            yield told()
