"""A `Queries` over plain dictionaries that keeps the promises of the real one: windows, staleness, pages, conflation."""

import asyncio
import base64
import bisect
import difflib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from streamapp.clock import Clock, ManualClock
from streamapp.errors import (
    BadParameterError,
    NoSuchWindowError,
    OwnerUnreachableError,
    QueryError,
    RestoringError,
    StaleError,
    UnknownKeyError,
    UnknownTableError,
)
from streamapp.queries.model import (
    Change,
    FeedFreshness,
    FeedInfo,
    FieldInfo,
    Freshness,
    Page,
    Predicate,
    Reading,
    TableInfo,
    WindowSpan,
    WorkerInfo,
)
from streamapp.windows.candle import Candle

MINUTE = 60_000


def _number(name: str, unit: str | None = None, nullable: bool = False) -> FieldInfo:
    return FieldInfo(name, "number", unit, nullable)


CANDLE = (
    _number("open", "quote"),
    _number("high", "quote"),
    _number("low", "quote"),
    _number("close", "quote"),
    _number("volume", "base"),
    _number("vwap", "quote", nullable=True),
    FieldInfo("count", "integer"),
    _number("buy_volume", "base"),
    _number("sell_volume", "base"),
    FieldInfo("first_time", "integer", "ms"),
    FieldInfo("last_time", "integer", "ms"),
)
LATEST = (
    _number("price", "quote", nullable=True),
    _number("size", "base", nullable=True),
    FieldInfo("side", "string", None, nullable=True),
    FieldInfo("trade_time", "integer", "ms", nullable=True),
    _number("bid", "quote", nullable=True),
    _number("ask", "quote", nullable=True),
    _number("mid", "quote", nullable=True),
    _number("spread", "quote", nullable=True),
    FieldInfo("quote_time", "integer", "ms", nullable=True),
)
SIGNAL = (
    FieldInfo("kind", "string"),
    _number("z"),
    _number("value"),
    _number("mean"),
    _number("stddev"),
    FieldInfo("window_start", "integer", "ms"),
)


def builtin_tables() -> list[TableInfo]:
    """Some of the built-in application's tables, with the same fields."""
    form = "venue:symbol"

    def candles(name: str, minutes: int) -> TableInfo:
        return TableInfo(
            name, "tumbling", CANDLE, form, 4, size_ms=minutes * MINUTE, grace_ms=10_000, retention_ms=1440 * MINUTE,
            combine={field.name: (field.combine, field.weight) for field in Candle.fields if field.combine != "last"},
        )  # fmt: skip

    stats = (FieldInfo("count", "integer"), _number("mean", "quote"), _number("stddev", "quote", nullable=True))
    return [
        candles("candles_1m", 1),
        candles("candles_5m", 5),
        TableInfo("stats_5m", "hopping", stats, form, 4, size_ms=5 * MINUTE, step_ms=30_000, grace_ms=10_000),
        TableInfo("latest", "latest", LATEST, form, 4),
        TableInfo("signals", "latest", SIGNAL, form, 4),
    ]


class _Entry:
    """One value as it is stored."""

    def __init__(self, window: WindowSpan | None, value: Mapping[str, Any], offset: int, event_time: int) -> None:
        self.window = window
        self.value = value
        self.offset = offset
        self.event_time = event_time


class FakeQueries:
    """Holds what `put` gave it.

    Attributes:
        staleness_ms: how far every view is behind.
        restoring: partitions being restored; reads of their keys are refused.
        unreachable: partitions whose owner does not answer; gathers go on without them.
        worker_info, feed_infos: what `worker` and `feeds` say.
        delay: where set, every asynchronous read waits for it.
        calls: the name and arguments of every read, in order.
    """

    def __init__(self, tables: Sequence[TableInfo] | None = None, clock: Clock | None = None) -> None:
        self._infos = {info.name: info for info in (builtin_tables() if tables is None else tables)}
        self._data: dict[str, dict[str, list[_Entry]]] = {name: {} for name in self._infos}
        self._subscribers: list[tuple[str, Callable[[Reading], bool], dict[str, Change], asyncio.Event]] = []
        self._offset = 0
        self._changes = 0
        self.clock = clock or ManualClock(1_790_000_061_234)
        self.staleness_ms = 12
        self.restoring: set[int] = set()
        self.unreachable: set[int] = set()
        self.delay: asyncio.Event | None = None
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.feed_infos: list[FeedInfo] = []
        self.worker_info = WorkerInfo(True, (), {"trades": [0, 1, 2, 3]}, {"trades": 0}, 0)

    # --- writing -----------------------------------------------------------------------------------------------------

    def put(
        self,
        table: str,
        key: str,
        value: Mapping[str, Any],
        *,
        start: int | None = None,
        final: bool = False,
        event_time: int | None = None,
    ) -> Reading:
        """Set a value (of the window that begins at `start`) and tell the subscribers."""
        info = self._infos[table]
        window = None
        if info.kind != "latest":
            assert start is not None
            assert info.size_ms is not None
            window = WindowSpan(start, start + info.size_ms, final)
        self._offset += 1
        entry = _Entry(window, value, self._offset, self.clock.now_ms() if event_time is None else event_time)
        entries = self._data[table].setdefault(key, [])
        if window is None:
            entries[:] = [entry]
        else:
            starts = [one.window.start for one in entries if one.window]
            at = bisect.bisect_left(starts, window.start)
            if at < len(entries) and starts[at] == window.start:
                entries[at] = entry
            else:
                entries.insert(at, entry)
        reading = self._reading(table, key, entry)
        self._changes += 1
        for wanted, concerns, pending, wake in self._subscribers:
            if wanted == table and concerns(reading):
                earlier = pending.pop(key, None)
                replaced = 0 if earlier is None else earlier.conflated + 1
                pending[key] = Change(f"c{self._changes}", "change", reading, replaced)
                wake.set()
        return reading

    def fail_subscribers(self) -> None:
        """End every subscription as a lost partition would."""
        for *_, wake in self._subscribers:
            wake.set()
        self._broken = True

    _broken = False

    # --- reading -----------------------------------------------------------------------------------------------------

    def tables(self) -> Sequence[TableInfo]:
        return [self.table(name) for name in self._infos]

    def table(self, name: str) -> TableInfo:
        info = self._infos.get(name)
        if info is None:
            raise UnknownTableError(f"there is no table {name!r}; there are {', '.join(self._infos)}")
        return info

    async def key_counts(self, tables: Sequence[str], *, local_only: bool = False) -> Sequence[int | None]:
        await self._called("key_counts", tables=tables, local_only=local_only)
        known = not self.restoring and not self.unreachable
        return [len(self._data[self.table(name).name]) if known else None for name in tables]

    async def keys(
        self, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None, local_only: bool = False
    ) -> Page:
        await self._called("keys", table=table, prefix=prefix, limit=limit, cursor=cursor, local_only=local_only)
        self.table(table)
        after = self._decode(cursor)
        keys = [
            key for key in sorted(self._reachable(table)) if key.startswith(prefix) and (after is None or key > after)
        ]
        return self._page(keys, limit, lambda key: str(key))

    async def get(
        self,
        table: str,
        key: str,
        *,
        at: int | None = None,
        max_staleness_ms: int | None = None,
        local_only: bool = False,
    ) -> Reading:
        await self._called("get", table=table, key=key, at=at, max_staleness_ms=max_staleness_ms, local_only=local_only)
        entries = self._entries(table, key)
        info = self._infos[table]
        if max_staleness_ms is not None and self.staleness_ms > max_staleness_ms:
            raise StaleError(
                f"the view may be {self.staleness_ms} ms behind, at most {max_staleness_ms} are accepted",
                self.staleness_ms,
            )
        if at is None:
            return self._reading(table, key, entries[-1])
        if info.kind == "latest":
            raise BadParameterError("at", f"{table} has no windows; leave out at")
        for entry in entries:
            if entry.window and entry.window.start <= at < entry.window.end:
                return self._reading(table, key, entry)
        raise NoSuchWindowError(f"no window of {key!r} holds {at}")

    def point(self, table: str, key: str) -> Reading | None:
        entries = self._data.get(table, {}).get(key)
        if self.delay is not None or not entries or self.restoring or self.unreachable:
            return None
        return self._reading(table, key, entries[-1])

    async def values(
        self, table: str, keys: Sequence[str], *, max_staleness_ms: int | None = None, local_only: bool = False
    ) -> Sequence[Reading | Exception]:
        self.table(table)
        found: list[Reading | Exception] = []
        for key in keys:
            try:
                found.append(await self.get(table, key, max_staleness_ms=max_staleness_ms))
            except QueryError as error:
                found.append(error)
        return found

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
        await self._called(
            "windows", table=table, key=key, start=start, end=end, limit=limit, cursor=cursor, local_only=local_only
        )
        entries = self._entries(table, key)
        if self._infos[table].kind == "latest":
            raise BadParameterError("table", f"{table} has no windows")
        after = self._decode(cursor)
        chosen = [
            self._reading(table, key, entry)
            for entry in entries
            if entry.window
            and (start is None or entry.window.start >= start)
            and (end is None or entry.window.start < end)
            and (after is None or entry.window.start > int(after))
        ]
        return self._page(chosen, limit, lambda reading: str(reading.window.start))

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
        await self._called("top", table=table, by=by, order=order, limit=limit, local_only=local_only)
        info = self.table(table)
        numeric = [field.name for field in info.fields if field.type in ("number", "integer")]
        if by not in numeric:
            raise BadParameterError("by", f"{by!r} is no numeric field of {table}; there are {', '.join(numeric)}")
        sign = -1 if order == "desc" else 1

        def rank(reading: Reading) -> tuple[bool, float, str]:
            number = reading.value.get(by)
            return (number is None, 0 if number is None else sign * number, reading.key)

        readings = [
            self._reading(table, key, self._data[table][key][-1])
            for key in self._reachable(table)
            if key.startswith(tuple(prefixes))
        ]
        return Page(sorted(readings, key=rank)[:limit], None, sorted(self.unreachable), len(readings))

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
        self.table(table)
        self.calls.append(
            ("changes", {"table": table, "key": key, "prefix": prefix, "condition": condition, "since": since})
        )
        if key is not None and self.partition(key) in self.unreachable:
            raise OwnerUnreachableError(f"changes of {key!r} come from the worker that owns it")
        wake = asyncio.Event()
        pending: dict[str, Change] = {}

        def concerns(reading: Reading) -> bool:
            asked = key in (None, reading.key) and reading.key.startswith(prefix)
            return asked and (condition is None or condition.holds(reading.value))

        for known, entries in self._data[table].items():
            reading = self._reading(table, known, entries[-1])
            if concerns(reading):
                self._changes += 1
                pending[known] = Change(f"c{self._changes}", "snapshot", reading)
        wake.set()
        subscriber = (table, concerns, pending, wake)
        self._subscribers.append(subscriber)
        try:
            yield self._follow(pending, wake)
        finally:
            self._subscribers.remove(subscriber)

    @property
    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscribers)

    def feeds(self) -> Sequence[FeedInfo]:
        return self.feed_infos

    def worker(self) -> WorkerInfo:
        return self.worker_info

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _follow(self, pending: dict[str, Change], wake: asyncio.Event) -> AsyncIterator[Change]:
        while True:
            await wake.wait()
            if self._broken:
                raise RestoringError("the partition moved to another worker", retry_after_s=1)
            wake.clear()
            while pending:
                yield pending.pop(next(iter(pending)))

    async def _called(self, method: str, **arguments: Any) -> None:
        self.calls.append((method, arguments))
        if self.delay is not None:
            await self.delay.wait()

    def partition(self, key: str) -> int:
        """Which of the four partitions holds the key (not the real hash)."""
        return sum(key.encode()) % 4

    def _reachable(self, table: str) -> list[str]:
        return [key for key in self._data[table] if self.partition(key) not in self.unreachable]

    def _entries(self, table: str, key: str) -> list[_Entry]:
        self.table(table)
        if self.partition(key) in self.restoring:
            raise RestoringError(f"partition {self.partition(key)} is being restored", retry_after_s=3)
        if self.partition(key) in self.unreachable:
            raise OwnerUnreachableError(f"the owner of partition {self.partition(key)} did not answer")
        entries = self._data[table].get(key)
        if not entries:
            raise UnknownKeyError(
                f"{table} holds nothing for {key!r}", difflib.get_close_matches(key, self._data[table], n=3)
            )
        return entries

    def _reading(self, table: str, key: str, entry: _Entry) -> Reading:
        now = self.clock.now_ms()
        venue, _, symbol = key.partition(":")
        feed = next(
            (
                FeedFreshness(info.connected, info.symbols.get(symbol, 0) if info.symbols else info.gaps)
                for info in self.feed_infos
                if info.venue == venue
            ),
            None,
        )
        freshness = Freshness(
            as_of=now,
            watermark=entry.event_time,
            partition=self.partition(key),
            offset=entry.offset,
            lag=0,
            restoring=False,
            age_ms=now - entry.event_time,
            staleness_ms=self.staleness_ms,
            feed=feed,
        )
        return Reading(table, key, entry.window, dict(entry.value), freshness)

    def _page(self, items: list[Any], limit: int, position: Any) -> Page:
        shown = items[:limit]
        more = len(items) > limit
        cursor = base64.urlsafe_b64encode(position(shown[-1]).encode()).decode() if more else None
        return Page(shown, cursor, sorted(self.unreachable))

    @staticmethod
    def _decode(cursor: str | None) -> str | None:
        if cursor is None:
            return None
        try:
            return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
        except ValueError:
            raise BadParameterError("cursor", "the cursor is none of this server's") from None


def candle(price: float, volume: float = 1.5, count: int = 3, time: int = 1_790_000_060_000) -> dict[str, Any]:
    """A candle's fields around one price."""
    return {
        "open": price,
        "high": price + 2,
        "low": price - 2.5,
        "close": price + 1,
        "volume": volume,
        "vwap": price + 0.25,
        "count": count,
        "buy_volume": volume / 2,
        "sell_volume": volume / 2,
        "first_time": time,
        "last_time": time + 500,
    }


def latest(price: float, time: int = 1_790_000_060_000) -> dict[str, Any]:
    """The fields of the newest trade and quote at one price."""
    return {
        "price": price,
        "size": 0.25,
        "side": "buy",
        "trade_time": time,
        "bid": price - 0.5,
        "ask": price + 0.5,
        "mid": price,
        "spread": 1.0,
        "quote_time": time,
    }
