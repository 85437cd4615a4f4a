"""Operations that say what there is: tables, keys, feeds."""

import asyncio
import difflib
import heapq
import itertools
from collections.abc import Iterable, Iterator

from streamapp.errors import BadParameterError, QueryError
from streamapp.operations.answers import (
    ExampleCall,
    Feed,
    FeedHealth,
    FieldInfo,
    FoundKey,
    FoundKeys,
    TableDescription,
    TableEntry,
    TableList,
    TableWindow,
)
from streamapp.operations.arguments import DescribeTable, FindKeys, GetFeedHealth, ListTables
from streamapp.operations.source import Source
from streamapp.operations.untrusted import asked_key, is_askable, shown_key
from streamapp.queries.model import FeedInfo, TableInfo

_EXAMPLES = 3
#: among so many keys are those that can be asked for
_EXAMPLES_AMONG = 50
_SCAN_MAX = 20_000
_HERE_MAX = 500
_COMPARED_MAX = 2_000
_SYMBOLS_MAX = 20
_STATES = ("connected", "disconnected", "gap", "recovered", "error")


async def list_tables(source: Source, _arguments: ListTables) -> TableList:
    """Every table, in order of declaration."""
    tables = [
        TableEntry(
            name=info.name,
            kind=info.kind,
            description=info.description,
            fields=[field.name for field in info.fields],
            key_form=info.key_form,
            size_ms=info.size_ms,
        )
        for info in source.queries.tables()
    ]
    return TableList(tables=tables, freshness=source.freshness())


async def describe_table(source: Source, arguments: DescribeTable) -> TableDescription:
    """One table: fields with units, windows, the form of its keys, a call to start with."""
    info = source.queries.table(arguments.table)
    try:
        page = await source.queries.keys(info.name, limit=min(_EXAMPLES_AMONG, source.settings.page_limit_max))
        keys = [shown_key(key) for key in _askable(page.items, _EXAMPLES)]
        absent = page.missing_partitions
    except QueryError:
        keys, absent = [], ()  # being restored: the description stands without examples
    (count,) = await source.queries.key_counts([info.name])
    return TableDescription(
        name=info.name,
        kind=info.kind,
        description=info.description,
        key_form=info.key_form,
        window=_window(info),
        fields=[
            FieldInfo(
                name=field.name,
                type=field.type,
                unit=field.unit,
                nullable=field.nullable,
                description=field.description,
            )
            for field in info.fields
        ],
        partitions=info.partitions,
        keys=count,
        example_keys=keys,
        example=ExampleCall(
            tool="get_current", arguments={"table": info.name, "keys": keys[:1] or ["a key from find_keys"]}
        ),
        freshness=source.freshness(missing_partitions=absent),
    )


def _window(info: TableInfo) -> TableWindow | None:
    if info.kind == "latest":
        return None
    return TableWindow(
        size_ms=info.size_ms,
        step_ms=info.step_ms,
        gap_ms=info.gap_ms,
        grace_ms=info.grace_ms,
        retention_ms=info.retention_ms,
    )


async def find_keys(source: Source, arguments: FindKeys) -> FoundKeys:
    """Keys that hold the query, the closest first; where none does, those that look like it."""
    names = (
        [info.name for info in source.queries.tables()]
        if arguments.table is None
        else [source.queries.table(arguments.table).name]
    )
    query = arguments.query.strip()
    holders: dict[str, list[str]] = {}
    absent: set[int] = set()
    truncated = False
    for name in names:
        cursor = None
        read = 0
        while True:
            page = await source.queries.keys(name, limit=source.settings.page_limit_max, cursor=cursor)
            absent.update(page.missing_partitions)
            for key in page.items:
                holders.setdefault(key, []).append(name)
            read += len(page.items)
            cursor = page.cursor
            if cursor is None:
                break
            if read >= _SCAN_MAX:
                truncated = True
                # keys come in order, so those that begin with the query can be had wherever they are
                page = await source.queries.keys(name, prefix=query, limit=source.settings.page_limit_max)
                for key in page.items:
                    if name not in holders.setdefault(key, []):
                        holders[key].append(name)
                break
    lowered, wanted = query.lower(), arguments.limit + 1
    found = _askable(_holding(lowered, holders), wanted) if len(holders) <= _HERE_MAX else []
    if not found:
        # looking through many, or for similar ones, takes longer than others should have to wait
        found = await asyncio.to_thread(_best, lowered, holders, wanted)
    return FoundKeys(
        query=arguments.query,
        keys=[FoundKey(key=shown_key(key), tables=holders[key]) for key in found[: arguments.limit]],
        truncated=truncated or len(found) > arguments.limit,
        freshness=source.freshness(missing_partitions=sorted(absent)),
    )


def _best(query: str, keys: dict[str, list[str]], count: int) -> list[str]:
    held = _holding(query, keys) or _holding(asked_key(query).lower(), keys)  # it may be a part of a key as it is shown
    return _askable(held if held else _alike(query, keys), count)


def _askable(keys: Iterable[str], count: int) -> list[str]:
    return list(itertools.islice(filter(is_askable, keys), count))


def _holding(query: str, keys: dict[str, list[str]]) -> list[str]:
    """The whole key or its last part first, then its beginning, then anywhere; ties in order of the keys."""
    groups: tuple[list[str], ...] = ([], [], [])
    for key in sorted(keys):
        lowered = key.lower()
        symbol = lowered.rpartition(":")[2]
        if query in (lowered, symbol):
            groups[0].append(key)
        elif lowered.startswith(query) or symbol.startswith(query):
            groups[1].append(key)
        elif query in lowered:
            groups[2].append(key)
    return [key for group in groups for key in group]


def _alike(query: str, keys: dict[str, list[str]]) -> Iterator[str]:
    """Those that look like the query, the closest first."""
    by_lowered: dict[str, str] = {}
    for key in sorted(keys):
        by_lowered.setdefault(key.lower(), key)
        by_lowered.setdefault(key.lower().rpartition(":")[2], key)
    alike = difflib.get_close_matches(query, _candidates(query, by_lowered), 10, 0.5)
    yield from dict.fromkeys(by_lowered[one] for one in alike)


def _candidates(query: str, texts: Iterable[str]) -> list[str]:
    """Those that may look like the query, at most `_COMPARED_MAX`: comparing two texts in full is slow."""
    length = len(query)
    found = [text for text in texts if length <= 3 * len(text) and len(text) <= 3 * length]
    if len(found) <= _COMPARED_MAX:
        return found
    parts = {query[at : at + 3] for at in range(max(1, length - 2))}
    return heapq.nlargest(
        _COMPARED_MAX, found, key=lambda text: (sum(part in text for part in parts), -abs(len(text) - length))
    )


async def get_feed_health(source: Source, arguments: GetFeedHealth) -> FeedHealth:
    """Every feed, or one venue's: whether it is live, and its gaps."""
    feeds = list(source.queries.feeds())
    if arguments.venue is not None:
        known = [feed.venue for feed in feeds]
        feeds = [feed for feed in feeds if arguments.venue in (feed.venue, shown_key(feed.venue))]
        if not feeds:
            raise BadParameterError(
                "venue",
                f"no feed is known of venue {arguments.venue[:100]!r}; known are:"
                f" {', '.join(map(shown_key, known[:_SYMBOLS_MAX])) or 'none'}",
            )
    now = source.clock.now_ms()
    return FeedHealth(feeds=[_feed(feed, now) for feed in feeds], freshness=source.freshness())


def _feed(info: FeedInfo, now_ms: int) -> Feed:
    # the feed's own `detail` is free text from outside, so it is left out
    gaps = sorted(info.symbols.items(), key=lambda pair: (-pair[1], pair[0]))[:_SYMBOLS_MAX]
    state = next((known for known in _STATES if known == info.state), "unknown")
    return Feed.model_validate(
        {
            "venue": shown_key(info.venue),
            "connected": info.connected,
            "state": state,
            "last_heartbeat": info.last_heartbeat,
            "silent_ms": None if info.last_heartbeat is None else max(0, now_ms - info.last_heartbeat),
            "gaps": info.gaps,
            "symbols_with_gaps": {shown_key(symbol): count for symbol, count in gaps},
        }
    )
