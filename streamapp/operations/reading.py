"""Operations that read values: newest ones, series, rankings, comparisons, anomalies."""

from collections import deque
from collections.abc import AsyncIterator, Sequence

from streamapp.errors import BadParameterError, QueryError, UnknownKeyError, UnknownTableError
from streamapp.operations import downsample
from streamapp.operations.answers import (
    Compared,
    Comparison,
    CurrentValues,
    Downsampling,
    Missing,
    Point,
    Signals,
    TopValues,
    WindowSeries,
)
from streamapp.operations.arguments import Compare, GetCurrent, GetSignals, GetTop, GetWindows
from streamapp.operations.source import SIGNALS_TABLE, Source, item, missing, number, number_field, refuse_stale
from streamapp.operations.untrusted import meant_key, shown_fields, shown_key
from streamapp.queries.model import Reading, TableInfo

#: windows that one call reads of one key at most
SCAN_WINDOWS_MAX = 5_000
COMPARED_FIELDS = ("close", "price", "mid", "mean", "value")


async def get_current(source: Source, arguments: GetCurrent) -> CurrentValues:
    """The newest value of each key, in the order asked."""
    source.queries.table(arguments.table)
    readings, absent = await _values(source, arguments.table, arguments.keys)
    freshness = source.freshness(readings)
    refuse_stale(freshness, arguments.max_staleness_ms)
    return CurrentValues(
        table=arguments.table, items=[item(reading) for reading in readings], missing=absent, freshness=freshness
    )


async def _values(source: Source, table: str, keys: Sequence[str]) -> tuple[list[Reading], list[Missing]]:
    """The readings that there are, and why the others are missing; the error itself where there is none at all."""
    asked = list(dict.fromkeys(meant_key(key) for key in keys))
    readings: list[Reading] = []
    absent: list[Missing] = []
    first_error: QueryError | None = None
    for key, found in zip(asked, await source.queries.values(table, asked), strict=True):
        if isinstance(found, Reading):
            readings.append(found)
        elif isinstance(found, QueryError):
            first_error = first_error or found
            absent.append(missing(key, found))
        else:
            raise found
    if not readings and first_error is not None:
        raise first_error
    return readings, absent


async def get_windows(source: Source, arguments: GetWindows) -> WindowSeries:
    """The windows of a key whose start lies in [from_ms, to_ms), in order, as at most `max_points` points."""
    info = source.queries.table(arguments.table)
    if info.kind == "latest":
        raise BadParameterError("table", f"table {info.name} has no windows; ask get_current for its newest value")
    if arguments.from_ms is not None and arguments.to_ms is not None and arguments.to_ms < arguments.from_ms:
        raise BadParameterError("to_ms", "to_ms must not be before from_ms")
    key = meant_key(arguments.key)
    if arguments.from_ms is None:
        readings, truncated = await _newest_windows(source, info, key, arguments.to_ms, arguments.max_points), False
    else:
        readings, truncated = await _windows(source, info.name, key, arguments.from_ms, arguments.to_ms)
    freshness = source.freshness(readings[-1:] or [await source.queries.get(info.name, key)])
    refuse_stale(freshness, arguments.max_staleness_ms)
    parts = downsample.groups(readings, arguments.max_points)
    per_point = len(parts[0]) if parts else 1
    return WindowSeries(
        table=info.name,
        key=shown_key(key),
        points=[_point(info, part) for part in parts],
        downsampled=None
        if per_point == 1
        else Downsampling(windows=len(readings), windows_per_point=per_point, rules=downsample.rules(info)),
        truncated=truncated,
        freshness=freshness,
    )


async def _newest_windows(
    source: Source, info: TableInfo, key: str, to_ms: int | None, points: int
) -> Sequence[Reading]:
    """The last windows that begin before an instant, at most `points`; reads are in order of start, so look back."""
    step = info.step_ms or info.size_ms
    # from the newest window, not from the clock or an instant behind it: what is replayed or quiet lies further back
    newest = await source.queries.get(info.name, key)
    end = newest.window.start + (step or 1) if newest.window is not None else source.clock.now_ms()
    end = end if to_ms is None else min(end, to_ms)
    span = points * (step or 2 * (info.gap_ms or 1))
    while True:
        start = max(0, end - span)
        found: deque[Reading] = deque(maxlen=points)
        async for part in _pages(source, info.name, key, start, to_ms):
            found.extend(part)
        # sessions are of any length and as far apart as it comes; other windows follow each other
        if step is not None or start == 0 or len(found) >= points:
            return list(found)
        span *= 8


async def _pages(
    source: Source, table: str, key: str, start: int | None, end: int | None
) -> AsyncIterator[Sequence[Reading]]:
    cursor: str | None = None
    while True:
        page = await source.queries.windows(
            table, key, start=start, end=end, limit=source.settings.page_limit_max, cursor=cursor
        )
        yield page.items
        cursor = page.cursor
        if cursor is None:
            return


async def _windows(
    source: Source, table: str, key: str, start: int | None, end: int | None
) -> tuple[list[Reading], bool]:
    """The windows that begin in a span, the first `SCAN_WINDOWS_MAX` of them; whether there are more."""
    found: list[Reading] = []
    async for part in _pages(source, table, key, start, end):
        found += part
        if len(found) > SCAN_WINDOWS_MAX:
            break
    return found[:SCAN_WINDOWS_MAX], len(found) > SCAN_WINDOWS_MAX


def _point(info: TableInfo, part: Sequence[Reading]) -> Point:
    windows = len(part)
    if info.kind == "hopping":
        part = part[-1:]
    first, last = part[0].window, part[-1].window
    assert first is not None
    assert last is not None
    value = part[0].value if len(part) == 1 else downsample.merged(info, [reading.value for reading in part])
    return Point(
        start=first.start,
        end=last.end,
        final=all(reading.window is not None and reading.window.final for reading in part),
        windows=windows,
        value=shown_fields(value),
    )


async def get_top(source: Source, arguments: GetTop) -> TopValues:
    """The newest values of all keys, ordered by one number."""
    page = await source.queries.top(arguments.table, by=arguments.by, order=arguments.order, limit=arguments.limit)
    freshness = source.freshness(page.items, page.missing_partitions)
    refuse_stale(freshness, arguments.max_staleness_ms)
    return TopValues(
        table=arguments.table,
        by=arguments.by,
        order=arguments.order,
        items=[item(reading) for reading in page.items],
        freshness=freshness,
    )


async def compare(source: Source, arguments: Compare) -> Comparison:
    """One number of several keys over the same span, side by side."""
    info = source.queries.table(arguments.table)
    _check_span(source, info, arguments.span_ms)
    name = number_field(info, arguments.field, COMPARED_FIELDS)
    readings, absent = await _values(source, info.name, arguments.keys)
    freshness = source.freshness(readings)
    refuse_stale(freshness, arguments.max_staleness_ms)
    to_ms = _span_end(readings, freshness.as_of)
    from_ms = max(0, to_ms - arguments.span_ms)
    series: list[list[tuple[int, float | None]]] = []
    for reading in readings:
        windows, truncated = await _windows(source, info.name, reading.key, from_ms, to_ms)
        if truncated:
            raise BadParameterError(
                "span_ms",
                f"{shown_key(reading.key)} has more than {SCAN_WINDOWS_MAX} windows, which is the most, within"
                f" span_ms={arguments.span_ms}; ask for a shorter span",
            )
        series.append([(one.window.start, number(one.value.get(name))) for one in windows if one.window is not None])
    width = max(1, -(-(to_ms - from_ms) // arguments.max_points))
    slots = sorted({(start - from_ms) // width for one in series for start, _ in one})
    items = [_compared(reading.key, one, slots, from_ms, width) for reading, one in zip(readings, series, strict=True)]
    return Comparison(
        table=info.name,
        field=name,
        from_ms=from_ms,
        to_ms=to_ms,
        starts=[from_ms + slot * width for slot in slots],
        items=items,
        missing=absent,
        freshness=freshness,
    )


def _check_span(source: Source, info: TableInfo, span_ms: int) -> None:
    """BadParameterError where there is no span to compare over, or one of more windows than are read."""
    if info.kind == "latest":
        others = [other.name for other in source.queries.tables() if other.kind != "latest"]
        raise BadParameterError(
            "table",
            f"table {info.name} keeps only newest values, so nothing is known of a span; get_current puts those side by"
            f" side, and tables with windows are: {', '.join(others) or 'none'}",
        )
    step = info.step_ms or info.size_ms
    if step is not None and span_ms > SCAN_WINDOWS_MAX * step:
        raise BadParameterError(
            "span_ms",
            f"span_ms={span_ms} is more than {SCAN_WINDOWS_MAX} windows of {info.name}; expected at most"
            f" {SCAN_WINDOWS_MAX * step}, or a table of longer windows",
        )


def _span_end(readings: Sequence[Reading], as_of: int) -> int:
    ends = [reading.window.start + 1 for reading in readings if reading.window is not None]
    return max(ends, default=as_of)


def _compared(
    key: str, series: Sequence[tuple[int, float | None]], slots: Sequence[int], from_ms: int, width: int
) -> Compared:
    values = [value for _, value in series if value is not None]
    first, last = (values[0], values[-1]) if values else (None, None)
    # one value has not moved, it has only been seen once
    change = None if first is None or last is None or len(values) < 2 else number(last - first)
    newest = {(start - from_ms) // width: value for start, value in series if value is not None}
    return Compared(
        key=shown_key(key),
        windows=len(series),
        first=first,
        last=last,
        change=change,
        change_pct=number(change / abs(first) * 100) if change is not None and first else None,
        least=min(values, default=None),
        greatest=max(values, default=None),
        points=[newest.get(slot) for slot in slots],
    )


async def get_signals(source: Source, arguments: GetSignals) -> Signals:
    """The newest anomaly of each key, the newest first."""
    known = [info.name for info in source.queries.tables()]
    if SIGNALS_TABLE not in known:
        raise UnknownTableError(
            f"this application has no table {SIGNALS_TABLE!r}, so it judges no anomalies; there are: {', '.join(known)}"
        )
    absent: Sequence[int] = ()
    unread = False
    if arguments.keys is None:
        page = await source.queries.top(
            SIGNALS_TABLE, by="window_start", order="desc", limit=source.settings.page_limit_max
        )
        readings, absent = list(page.items), page.missing_partitions
        # older ones are not looked at, unless all of those would be left out for their age
        oldest = number(readings[-1].value.get("window_start")) if readings else None
        full = len(readings) >= source.settings.page_limit_max
        unread = full and (oldest is None or oldest >= (arguments.since_ms or 0))
    else:
        asked = list(dict.fromkeys(meant_key(key) for key in arguments.keys))
        found = await source.queries.values(SIGNALS_TABLE, asked)
        # a key without an anomaly so far is not there, which is an answer and no error
        readings = [one for one in found if isinstance(one, Reading)]
        for one in found:
            if isinstance(one, Exception) and not isinstance(one, UnknownKeyError):
                raise one
    since = arguments.since_ms or 0
    kept = [
        reading
        for reading in readings
        if abs(number(reading.value.get("z")) or 0.0) >= arguments.least_abs_z
        and (number(reading.value.get("window_start")) or 0.0) >= since
    ]
    kept.sort(key=lambda one: (-(number(one.value.get("window_start")) or 0.0), one.key))
    # of all that were looked at: that none is left is as old as they are
    freshness = source.freshness(readings, absent)
    refuse_stale(freshness, arguments.max_staleness_ms)
    return Signals(
        items=[item(reading) for reading in kept[: arguments.limit]],
        truncated=unread or len(kept) > arguments.limit,
        freshness=freshness,
    )
