"""`summarize_state`: what matters most of all tables, within a budget of tokens.

What could be told is put in one order of importance, and the longest beginning of that order that fits is told: the largest
moves, the strongest anomalies, gaps and staleness, then more of each, then levels. The same state gives the same text.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from streamapp.operations.answers import Freshness, LeftOut, Summary
from streamapp.operations.arguments import SummarizeState
from streamapp.operations.cursors import REPEAT_MS, CursorBook, Place, Told, told_of
from streamapp.operations.reading import COMPARED_FIELDS, SIGNALS_TABLE
from streamapp.operations.source import Source, number, numeric_fields, refuse_stale
from streamapp.operations.tokens import TokenCounter
from streamapp.operations.untrusted import asked_key, shown_key, shown_value
from streamapp.queries.model import Reading, TableInfo

Kind = Literal["moves", "anomalies", "trouble", "levels"]
#: values that one summary looks at, over all tables
VALUES_MAX = 20_000
_CHUNK_KEYS = 200
_PRICE_FIELDS = frozenset(COMPARED_FIELDS)
_STALE_MS = 10_000
#: so many of each come first, before more of any
_FIRST: Mapping[Kind, int] = {"moves": 5, "anomalies": 3, "trouble": 3}
_TITLES: Mapping[Kind, str] = {
    "moves": "moves",
    "anomalies": "anomalies",
    "trouble": "gaps",
    "levels": "levels",
}


@dataclass(frozen=True, slots=True)
class Line:
    """Something that could be told; `rank` orders it among its kind, the least first, and `group` goes into its title."""

    kind: Kind
    rank: tuple[float, str, str]
    key: str
    text: str
    content: Sequence[object]
    group: str = ""


@dataclass(slots=True)
class _Survey:
    """What was found: candidates, what was told of each value, the worst freshness."""

    moves: dict[str, tuple[float, Line]] = field(default_factory=dict)  # by key, the largest of its tables
    levels: dict[tuple[str, str], Line] = field(default_factory=dict)
    others: list[Line] = field(default_factory=list)
    told: dict[Place, Told] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)
    with_gaps: set[str] = field(default_factory=set)
    unchanged: int = 0
    unread: bool = False


@dataclass(frozen=True, slots=True)
class _Before:
    """What a delta is told against; `told` is None where only the time is known."""

    as_of: int
    told: Mapping[Place, Told] | None

    def changed(self, reading: Reading, now: Told, place: Place) -> bool:
        if self.told is not None:
            earlier = self.told.get(place)
            return earlier is None or earlier.digest != now.digest or earlier.gaps != now.gaps
        age = reading.freshness.age_ms
        return age is None or reading.freshness.as_of - age > self.as_of - REPEAT_MS

    def level(self, place: Place) -> float | None:
        earlier = self.told.get(place) if self.told is not None else None
        return earlier.level if earlier is not None else None


async def summarize_state(
    source: Source, arguments: SummarizeState, *, counter: TokenCounter, book: CursorBook
) -> Summary:
    """A summary of the newest values of these tables and keys; see the module."""
    queries = source.queries
    names = arguments.tables
    infos = [queries.table(name) for name in names] if names is not None else list(queries.tables())
    before = _Before(*book.find(arguments.cursor)) if arguments.cursor is not None else None
    keys = None if arguments.keys is None else list(dict.fromkeys(asked_key(key) for key in arguments.keys))
    survey = _Survey()
    for info in infos:
        await _survey_table(source, info, keys, before, survey)
    freshness = source.freshness(survey.readings, sorted(survey.missing))
    refuse_stale(freshness, arguments.max_staleness_ms)
    cursor = book.keep(freshness.as_of, survey.told)
    head = _Head(freshness, cursor, before is not None, survey.unchanged, survey.unread)
    lines = _in_order(survey)
    write = _as_json if arguments.style == "json" else _as_text
    text, shown = await _fitted(head, lines, arguments.budget_tokens, counter, write)
    left = _left_out(lines, shown)
    return Summary(
        summary=text,
        tokens=counter.count(text),
        budget_tokens=arguments.budget_tokens,
        counted_with=counter.name,
        left_out=LeftOut(
            lines=sum(left.values()),
            moves=left["moves"],
            anomalies=left["anomalies"],
            levels=left["levels"],
            note=head.note,
        ),
        delta=before is not None,
        cursor=cursor,
        freshness=freshness,
    )


# --- what there is -----------------------------------------------------------------------------------------------------


async def _survey_table(
    source: Source, info: TableInfo, keys: Sequence[str] | None, before: _Before | None, survey: _Survey
) -> None:
    cursor: str | None = None
    while True:
        if keys is not None:
            part: Sequence[str] = keys
        else:
            page = await source.queries.keys(info.name, limit=_CHUNK_KEYS, cursor=cursor)
            part, cursor = page.items, page.cursor
            survey.missing.update(page.missing_partitions)
        if part:
            for reading in await source.queries.values(info.name, part):
                if isinstance(reading, Reading):
                    _survey_reading(info, reading, before, survey)
        await asyncio.sleep(0)  # others may want to read
        if keys is not None or cursor is None:
            return
        if len(survey.readings) >= VALUES_MAX:
            survey.unread = True
            return


def _survey_reading(info: TableInfo, reading: Reading, before: _Before | None, survey: _Survey) -> None:
    main = _main_field(info)
    level = number(reading.value.get(main)) if main is not None else None
    place = (info.name, reading.key)
    survey.readings.append(reading)
    now = survey.told[place] = told_of(reading, level)
    if before is not None and not before.changed(reading, now, place):
        survey.unchanged += 1
        return
    key = shown_key(reading.key)
    _add_trouble(info, reading, key, survey)
    if info.name == SIGNALS_TABLE:
        _add_anomaly(reading, key, survey)
        return
    if main is None or level is None:
        return
    earlier = before.level(place) if before is not None else None
    if before is not None and before.told is not None and earlier is not None:
        move, span = (level / earlier - 1 if earlier else None), "since"
    else:
        move, span = _move(reading.value), _span(info)
    concept = "price" if main in _PRICE_FIELDS else info.name
    if move:
        known = survey.moves.get(reading.key)
        if known is None or abs(move) > known[0]:
            percent = f"{move * 100:+.{1 if abs(move) >= 0.01 else 2}f}"
            text = f"{percent}% {_short(level)}"
            content = [float(percent), _rounded(level)]
            line = Line("moves", (-abs(move), key, info.name), key, text, content, span)
            survey.moves[reading.key] = (abs(move), line)
    label = "" if concept == "price" else f"{info.name}.{main} "
    shown = Line("levels", (0, concept, key), key, f"{label}{_short(level)}", [f"{info.name}.{main}", _rounded(level)])
    if (concept, reading.key) not in survey.levels or info.kind == "latest":
        survey.levels[concept, reading.key] = shown


def _main_field(info: TableInfo) -> str | None:
    known = numeric_fields(info)
    return next((name for name in COMPARED_FIELDS if name in known), known[0] if known else None)


def _move(value: Mapping[str, object]) -> float | None:
    first, last = number(value.get("open")), number(value.get("close"))
    return last / first - 1 if first and last is not None else None


def _span(info: TableInfo) -> str:
    size = info.size_ms or 0
    for unit, width in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if size and size % width == 0:
            return f"{size // width}{unit}"
    return f"{size}ms" if size else info.name


def _add_anomaly(reading: Reading, key: str, survey: _Survey) -> None:
    z = number(reading.value.get("z"))
    kind = shown_value(reading.value.get("kind"))
    if z is not None and isinstance(kind, str):
        survey.others.append(Line("anomalies", (-abs(z), key, kind), key, f"{kind} z={z:.1f}", [kind, round(z, 1)]))


def _add_trouble(info: TableInfo, reading: Reading, key: str, survey: _Survey) -> None:
    block = reading.freshness
    if block.staleness_ms >= _STALE_MS:
        behind = f"{info.name} {block.staleness_ms // 1000} s behind"
        rank = (-float(block.staleness_ms), key, info.name)
        survey.others.append(Line("trouble", rank, key, behind, [info.name, "staleness_ms", block.staleness_ms]))
    # the gaps are the feed's, so they are told once for all tables
    gaps = block.feed.gaps if block.feed is not None else 0
    if gaps and key not in survey.with_gaps:
        survey.with_gaps.add(key)
        survey.others.append(Line("trouble", (-float(gaps), key, "gaps"), key, f"{gaps} gaps", ["gaps", gaps]))


def _short(level: float) -> str:
    return f"{level:.6g}" if abs(level) < 1e6 else f"{level:.0f}"


def _rounded(level: float) -> float:
    return float(_short(level))


# --- what is told ------------------------------------------------------------------------------------------------------


def _in_order(survey: _Survey) -> list[Line]:
    """Everything that could be told, the most important first."""
    by_kind: dict[Kind, list[Line]] = {"moves": [line for _, line in survey.moves.values()]}
    by_kind["anomalies"] = [line for line in survey.others if line.kind == "anomalies"]
    by_kind["trouble"] = [line for line in survey.others if line.kind == "trouble"]
    for lines in by_kind.values():
        lines.sort(key=lambda line: line.rank)
    first: list[Line] = []
    more: list[Line] = []
    rest: list[Line] = []
    for kind, count in _FIRST.items():
        first += by_kind[kind][:count]
        more += by_kind[kind][count : 4 * count]
        rest += by_kind[kind][4 * count :]
    rest.sort(key=lambda line: line.kind == "moves")  # from here on a move is told for its level
    levels = sorted(survey.levels.values(), key=lambda line: line.rank)
    moved = {line.key for line in by_kind["moves"]}
    return first + more + rest + [line for line in levels if line.rank[1] != "price" or line.key not in moved]


@dataclass(frozen=True, slots=True)
class _Head:
    """What every summary says, whatever the budget."""

    freshness: Freshness
    cursor: str
    delta: bool
    unchanged: int
    unread: bool

    @property
    def note(self) -> str:
        """What was not looked at, in words."""
        notes = ["only a part of the keys was looked at; name tables or keys"] if self.unread else []
        if self.freshness.missing_partitions:
            notes.append("partitions without an answer are left out")
        return "; ".join(notes)


def _down(freshness: Freshness) -> str:
    named = ", ".join(name[:24] for name in freshness.feeds_down[:3])
    more = len(freshness.feeds_down) - 3
    return f"{named} and {more} more" if more > 0 else named or "none"


def _as_text(head: _Head, shown: Sequence[Line], left: Mapping[str, int]) -> str:
    freshness = head.freshness
    behind = "unknown" if freshness.staleness_ms is None else f"{freshness.staleness_ms} ms"
    parts = [f"as of {freshness.as_of}, behind {behind}, feeds down: {_down(freshness)}"]
    if head.delta:
        parts.append(f"changes only; {head.unchanged} values unchanged")
    for (kind, group), lines in _grouped(shown).items():
        parts.append(f"{_TITLES[kind]} {group}:" if group else f"{_TITLES[kind]}:")
        parts += [f"{line.key} {line.text}" for line in lines]
    told = ", ".join(f"{count} {_TITLES[kind]}" for kind, count in _counts(left)) or "nothing"
    parts.append(f"left out: {told}{'; ' + head.note if head.note else ''}")
    parts.append(f"cursor {head.cursor}")
    return "\n".join(parts)


def _as_json(head: _Head, shown: Sequence[Line], left: Mapping[str, int]) -> str:
    freshness = head.freshness
    content: dict[str, object] = {
        "as_of": freshness.as_of,
        "staleness_ms": freshness.staleness_ms,
        "feeds_down": list(freshness.feeds_down[:3]),
    }
    if head.delta:
        content["unchanged"] = head.unchanged
    for (kind, group), lines in _grouped(shown).items():
        rows: dict[str, list[object]] = {}
        for line in lines:
            rows.setdefault(line.key, []).extend(line.content)
        content[f"{kind}_{group}" if group else kind] = rows
    # how many lines; the answer has them by kind
    content["left_out"] = sum(left.values())
    if head.note:
        content["note"] = head.note
    content["cursor"] = head.cursor
    return orjson.dumps(content).decode()


def _grouped(shown: Sequence[Line]) -> dict[tuple[Kind, str], list[Line]]:
    """Lines under their titles: by kind, and of a kind in order of importance."""
    groups: dict[tuple[Kind, str], list[Line]] = {}
    for kind in _TITLES:
        for line in shown:
            if line.kind == kind:
                groups.setdefault((kind, line.group), []).append(line)
    return groups


def _counts(left: Mapping[str, int]) -> list[tuple[Kind, int]]:
    return [(kind, left[kind]) for kind in _TITLES if left[kind]]


def _left_out(lines: Sequence[Line], shown: int) -> dict[str, int]:
    left: dict[str, int] = dict.fromkeys(_TITLES, 0)
    for line in lines[shown:]:
        left[line.kind] += 1
    return left


async def _fitted(
    head: _Head,
    lines: Sequence[Line],
    budget: int,
    counter: TokenCounter,
    write: Callable[[_Head, Sequence[Line], Mapping[str, int]], str],
) -> tuple[str, int]:
    """The text with as many lines as fit, and how many these are."""

    def written(count: int) -> str:
        return write(head, lines[:count], _left_out(lines, count))

    low, high = 0, min(len(lines), budget // 4)
    while low < high:
        middle = (low + high + 1) // 2
        if counter.count(written(middle)) <= budget:
            low = middle
        else:
            high = middle - 1
        await asyncio.sleep(0)
    text = written(low)
    while low > 0 and counter.count(text) > budget:  # a line more may once make a token less
        low -= 1
        text = written(low)
    return text, low
