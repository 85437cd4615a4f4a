"""Reads in somebody's name: the one place where it is decided what a caller gets to see, and counted what it read.

Views, operations and the MCP server are handed a `Queries` that is bound to a caller already, so a read without the check
cannot be written down there. What may not be read is left out of lists and refused by name; a refusal is the same whether
there is such a table or key or not, and nothing that is told of allowed keys depends on others.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Literal

from streamapp.errors import BadParameterError, InsufficientScopeError, QueryError, UnknownKeyError, UnknownTableError
from streamapp.queries.access import Access, Caller
from streamapp.queries.keys import shown_key
from streamapp.queries.model import Change, FeedInfo, Page, Predicate, Queries, Reading, TableInfo, WorkerInfo
from streamapp.queries.nearest import beginnings, nearest_of

_CANDIDATES_MAX = 300
_CANDIDATES_PAGE = 100
#: of several unknown keys only so many are told which ones look like them
_NEAREST_FOR = 3


def bound(queries: Queries, caller: Caller) -> Queries:
    """The reads as this caller may make them; those of one who may read everything, uncounted, are the reads themselves."""
    return queries if caller.unbound else BoundQueries(queries, caller)


def check_key(caller: Caller, table: str, key: str) -> None:
    """InsufficientScopeError where a caller may not read a key, whether there is one or not."""
    _check_table(caller, table)
    if not caller.access.allows(table, key):
        raise _forbidden(caller, table, key)


def _check_table(caller: Caller, table: str) -> None:
    if not caller.access.prefixes(table):
        raise InsufficientScopeError(
            f"{caller.name!r} may not read table {table[:100]!r}; list_tables and /v1/tables name those it may"
        )


def _forbidden(caller: Caller, table: str, key: str) -> InsufficientScopeError:
    return InsufficientScopeError(f"{caller.name!r} may not read the key {shown_key(key)!r} of table {table!r}")


class BoundQueries:
    """A `Queries` over another one, for one caller; see the module.

    Args:
        queries: what is read.
        caller: whose rules and limits hold, and who notes what is read.
    """

    __slots__ = ("_access", "_caller", "_limits", "_queries", "_trace")

    def __init__(self, queries: Queries, caller: Caller) -> None:
        self._queries = queries
        self._caller = caller
        self._access: Access = caller.access
        self._limits = caller.limits
        self._trace = caller.trace

    # --- what there is -------------------------------------------------------------------------------------------------

    def tables(self) -> Sequence[TableInfo]:
        """The tables of which anything may be read."""
        return [info for info in self._queries.tables() if self._access.prefixes(info.name)]

    def table(self, name: str) -> TableInfo:
        """One of them."""
        _check_table(self._caller, name)
        with self._telling():
            return self._queries.table(name)

    def feeds(self) -> Sequence[FeedInfo]:
        """The feeds of which a key may be read, with the gaps of such keys."""
        if self._access.everything:
            return self._queries.feeds()
        return [self._shown_feed(feed) for feed in self._queries.feeds() if self._access.touches(f"{feed.venue}:")]

    def worker(self) -> WorkerInfo:
        """How the worker does; of names only those of tables that may be read."""
        info = self._queries.worker()
        if self._access.everything:
            return info
        return replace(
            info,
            restoring=[one for one in info.restoring if self._access.prefixes(one.rpartition("-")[0])],
            assigned={},
            lag={"*": sum(info.lag.values())},
            hot_keys=(),
        )

    def _shown_feed(self, feed: FeedInfo) -> FeedInfo:
        symbols = {
            symbol: gaps
            for symbol, gaps in feed.symbols.items()
            if self._access.allows_anywhere(f"{feed.venue}:{symbol}")
        }
        # the detail is free text, which may name any symbol
        return replace(feed, symbols=symbols, gaps=sum(symbols.values()), detail="")

    # --- values --------------------------------------------------------------------------------------------------------

    async def get(
        self,
        table: str,
        key: str,
        *,
        at: int | None = None,
        max_staleness_ms: int | None = None,
        local_only: bool = False,
    ) -> Reading:
        """The value of a key that may be read."""
        self._begin(table, key)
        with self._telling():
            try:
                reading = await self._queries.get(
                    table, key, at=at, max_staleness_ms=max_staleness_ms, local_only=local_only
                )
            except UnknownKeyError as error:
                raise await self._unknown(table, key, error) from None
        self._gave(1)
        return reading

    def point(self, table: str, key: str) -> Reading | None:
        """The same at once; None for whatever is refused, so that `get` says why."""
        access, limits = self._access, self._limits
        if not (access.everything or access.allows(table, key)):
            return None
        reading = self._queries.point(table, key)
        if reading is None or (limits is not None and not limits.takes_value()):
            return None
        if self._trace is not None:
            self._trace.asked(table, (key,))
            self._trace.rows += 1
        return reading

    async def values(
        self, table: str, keys: Sequence[str], *, max_staleness_ms: int | None = None, local_only: bool = False
    ) -> Sequence[Reading | Exception]:
        """Values in the order asked; an error in the place of each key that may not be read."""
        _check_table(self._caller, table)
        self._begin(table, *keys, checked=True)
        allowed = [key for key in keys if self._access.allows(table, key)]
        with self._telling():
            if not allowed:
                self._queries.table(table)
            found = await self._queries.values(table, allowed, max_staleness_ms=max_staleness_ms, local_only=local_only)
        answers: dict[str, Reading | Exception] = {}
        told = 0
        for key, one in zip(allowed, found, strict=True):
            answer = one
            if isinstance(one, UnknownKeyError) and not self._sees_all(table):
                answer = await self._unknown(table, key, one) if told < _NEAREST_FOR else UnknownKeyError(str(one))
                told += 1
            answers[key] = answer
        self._gave(len(allowed))
        return [answers[key] if key in answers else _forbidden(self._caller, table, key) for key in keys]

    async def windows(
        self,
        table: str,
        key: str,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
        local_only: bool = False,
    ) -> Page:
        """Windows of a key that may be read."""
        self._begin(table, key)
        with self._telling():
            try:
                page = await self._queries.windows(
                    table, key, start=start, end=end, limit=limit, cursor=cursor, local_only=local_only
                )
            except UnknownKeyError as error:
                raise await self._unknown(table, key, error) from None
        self._gave(len(page.items))
        return page

    # --- over all keys -------------------------------------------------------------------------------------------------

    async def key_counts(self, tables: Sequence[str], *, local_only: bool = False) -> Sequence[int | None]:
        """Of tables that may be read whole; None for others, as a count tells of keys that may not be read."""
        whole = [table for table in tables if self._sees_all(table)]
        counts = dict(zip(whole, await self._queries.key_counts(whole, local_only=local_only), strict=True))
        return [counts.get(table) for table in tables]

    async def keys(
        self, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None, local_only: bool = False
    ) -> Page:
        """Keys in order, of those that may be read."""
        _check_table(self._caller, table)
        self._begin(table, checked=True)
        if self._sees_all(table):
            with self._telling():
                page = await self._queries.keys(table, prefix=prefix, limit=limit, cursor=cursor, local_only=local_only)
            self._gave(len(page.items))
            return page
        return await self._keys_within(table, self._access.within(table, prefix), limit, cursor, local_only)

    async def _keys_within(
        self, table: str, prefixes: Sequence[str], limit: int, cursor: str | None, local_only: bool
    ) -> Page:
        """Of one prefix after the other, which is the keys' own order; the cursor says which, and where in it."""
        at, inner = _place(cursor)
        items: list[str] = []
        missing: set[int] = set()
        more: str | None = None
        with self._telling():
            if not prefixes:
                self._queries.table(table)
            while at < len(prefixes) and len(items) < limit:
                page = await self._queries.keys(
                    table, prefix=prefixes[at], limit=limit - len(items), cursor=inner, local_only=local_only
                )
                items += page.items
                missing.update(page.missing_partitions)
                inner = page.cursor
                if inner is None:
                    at += 1
                more = f"{at}.{inner or ''}" if at < len(prefixes) else None
        self._gave(len(items))
        return Page(items, more, sorted(missing))

    async def top(
        self,
        table: str,
        *,
        by: str,
        order: Literal["asc", "desc"] = "desc",
        limit: int = 10,
        prefixes: Sequence[str] = ("",),
        local_only: bool = False,
    ) -> Page:
        """Newest readings of the keys that may be read, ordered by one field."""
        _check_table(self._caller, table)
        self._begin(table, checked=True)
        readable = dict.fromkeys(one for wanted in prefixes for one in self._access.within(table, wanted))
        with self._telling():
            page = await self._queries.top(
                table, by=by, order=order, limit=limit, prefixes=tuple(readable), local_only=local_only
            )
        self._gave(max(len(page.items), page.looked_at))
        return page

    # --- changes -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def changes(
        self,
        table: str,
        key: str | None = None,
        *,
        prefix: str = "",
        condition: Predicate | None = None,
        since: str | None = None,
        local_only: bool = False,
    ) -> AsyncIterator[AsyncIterator[Change]]:
        """Snapshots and changes of what may be read. Snapshots cost what reads do; changes are free."""
        if key is None:
            _check_table(self._caller, table)
            self._begin(table, checked=True)
            readable = self._access.within(table, prefix)
            if len(readable) == 1:  # others are not even looked at; of several beginnings the check below chooses
                prefix = readable[0]
        else:
            self._begin(table, key)
        with self._telling():
            async with self._queries.changes(
                table, key, prefix=prefix, condition=condition, since=since, local_only=local_only
            ) as changes:
                yield self._readable(table, changes)

    async def _readable(self, table: str, changes: AsyncIterator[Change]) -> AsyncIterator[Change]:
        async for change in changes:
            if self._access.allows(table, change.reading.key):
                self._gave(1, free=change.kind == "change")
                yield change

    # --- inside --------------------------------------------------------------------------------------------------------

    def _sees_all(self, table: str) -> bool:
        return self._access.prefixes(table) == ("",)

    def _begin(self, table: str, *keys: str, checked: bool = False) -> None:
        """Before a read: refuse what may not be read, and who has read too much."""
        if self._trace is not None:
            self._trace.asked(table, keys)
        if not checked:
            for key in keys:
                check_key(self._caller, table, key)
        if self._limits is not None:
            self._limits.check_cost()

    def _gave(self, rows: int, *, free: bool = False) -> None:
        if self._trace is not None:
            self._trace.rows += rows
        if self._limits is not None and not free:
            self._limits.spend(rows)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """An error that lists the tables lists those that may be read."""
        try:
            yield
        except UnknownTableError:
            if self._access.everything:
                raise
            known = ", ".join(info.name for info in self.tables())
            raise UnknownTableError(f"there is no such table; there are: {known}") from None

    async def _unknown(self, table: str, key: str, error: UnknownKeyError) -> UnknownKeyError:
        """The same with nearest keys that were chosen among those that may be read, and no others."""
        if self._sees_all(table):
            return error
        candidates: dict[str, None] = {}
        within = dict.fromkeys(one for beginning in beginnings(key) for one in self._access.within(table, beginning))
        for prefix in within:
            try:
                page = await self._queries.keys(table, prefix=prefix, limit=_CANDIDATES_PAGE)
            except QueryError:
                continue  # the suggestions are a help, not the answer
            candidates.update(dict.fromkeys(page.items))
            if len(candidates) >= _CANDIDATES_MAX:
                break
        return UnknownKeyError(f"table {table} has no key {shown_key(key)!r}", nearest_of(key, candidates))


def _place(cursor: str | None) -> tuple[int, str | None]:
    if cursor is None:
        return 0, None
    number, dot, inner = cursor.partition(".")
    if not dot or not number.isascii() or not number.isdigit() or len(number) > 4:
        raise BadParameterError("cursor", "the cursor is none of this route's")
    return int(number), inner or None
