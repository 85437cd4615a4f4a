"""`summarize_state`: what matters most of all tables, within a budget of tokens.

What could be told is put in one order of importance, and the longest beginning of that order that fits is told: the largest
moves, the strongest anomalies, gaps and staleness, then more of each, then levels. The same state gives the same text.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streamapp.errors import ForbiddenError, QueryError, UnknownKeyError
from streamapp.operations.answers import Freshness, LeftOut, Summary
from streamapp.operations.arguments import SummarizeState
from streamapp.operations.cursors import CursorBook, Place, Told, Topic, gaps_topic, keep_untold, told_of
from streamapp.operations.fitting import Head, Kind, Line, as_json, as_text, fitted, left_out
from streamapp.operations.reading import COMPARED_FIELDS
from streamapp.operations.source import (
    SIGNALS_TABLE,
    Source,
    anomaly_kind,
    nothing_read,
    number,
    numeric_fields,
    refuse_stale,
)
from streamapp.operations.tokens import TokenCounter
from streamapp.operations.untrusted import meant_key, shown_key
from streamapp.queries.keys import is_readable
from streamapp.queries.model import Reading, TableInfo

#: values that one summary looks at, over all tables
VALUES_MAX = 20_000
_CHUNK_KEYS = 200
#: of what moves, that which all tables of a key have in common; the mean or the value of another table is something else
_PRICE_FIELDS = frozenset({"close", "price", "mid"})
_STALE_MS = 10_000
#: larger numbers are told with an exponent: all their digits would take a budget for one of them
_DIGITS_BELOW = 1e15
_NOTED_KEYS = 3
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))
_NOTED_CHARS = 40
#: so many of each come first, before more of any
_FIRST: Mapping[Kind, int] = {"moves": 5, "anomalies": 3, "trouble": 3}


@dataclass(slots=True)
class _Survey:
    """What was found: candidates, what is to be remembered of each value and by which topics it is told."""

    moves: dict[Topic, tuple[float, Line]] = field(default_factory=dict)  # of each price the largest of its tables
    levels: dict[tuple[str, str], Line] = field(default_factory=dict)
    others: list[Line] = field(default_factory=list)
    told: dict[Place, Told] = field(default_factory=dict)
    topics: dict[Place, list[Topic]] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)
    with_gaps: set[str] = field(default_factory=set)
    unknown: dict[str, UnknownKeyError] = field(default_factory=dict)
    unanswered: dict[str, QueryError] = field(default_factory=dict)
    forbidden: dict[str, ForbiddenError] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    unchanged: int = 0
    unread: bool = False

    def forbidden_keys(self) -> list[str]:
        """Keys that the caller may read in none of the tables."""
        known = {key for _, key in self.told} | self.unanswered.keys() | self.unknown.keys()
        return [key for key in self.forbidden if key not in known]

    def unknown_keys(self) -> list[str]:
        """Keys that are in none of the tables."""
        known = {key for _, key in self.told} | self.unanswered.keys()
        return [key for key in self.unknown if key not in known]

    def note(self, forgotten: bool) -> str:
        """What is not in the summary, in words."""
        notes = ["the cursor is not known here, so everything is told"] if forgotten else []
        if self.unread:
            notes.append("only a part of the keys was looked at; name tables or keys")
        if unknown := self.unknown_keys():
            named = ", ".join(shown_key(key)[:_NOTED_CHARS] for key in unknown[:_NOTED_KEYS])
            more = len(unknown) - _NOTED_KEYS
            notes.append(f"unknown keys: {named}{f' and {more} more' if more > 0 else ''}")
        if forbidden := self.forbidden_keys():
            notes.append(f"{len(forbidden)} keys are not open to this caller")
        if self.unreadable:
            notes.append(f"{len(self.unreadable)} keys cannot be asked for")
        if self.unanswered:
            notes.append(f"{len(self.unanswered)} keys did not answer")
        if self.missing:
            notes.append("partitions without an answer are left out")
        return "; ".join(notes)


async def summarize_state(
    source: Source, arguments: SummarizeState, *, counter: TokenCounter, book: CursorBook
) -> Summary:
    """A summary of the newest values of these tables and keys; see the module.

    Raises:
        UnknownKeyError: none of the keys is in any of the tables.
        ForbiddenError: none of the keys may be read in any of them.
        StaleError: the view is too old, or nothing could be read to tell how old it is.
    """
    queries = source.queries
    names = arguments.tables
    infos = [queries.table(name) for name in dict.fromkeys(names)] if names is not None else list(queries.tables())
    before = book.find(arguments.cursor, source.owner) if arguments.cursor is not None else None
    keys = None if arguments.keys is None else list(dict.fromkeys(meant_key(key) for key in arguments.keys))
    survey = _Survey()
    for info in infos:
        await _survey_table(source, info, keys, before, survey)
    freshness = source.freshness(survey.readings, sorted(survey.missing))
    _refuse(survey, keys, freshness, arguments.max_staleness_ms)
    cursor = book.new_cursor(freshness.as_of)
    note = survey.note(forgotten=arguments.cursor is not None and before is None)
    head = Head(freshness, cursor, before is not None, survey.unchanged, note)
    lines = await _in_order(survey)
    write = as_json if arguments.style == "json" else as_text
    text, tokens, shown = await fitted(head, lines, arguments.budget_tokens, counter, write)
    if before is not None:
        await keep_untold(survey.told, survey.topics, before, {line.topic for line in lines[:shown]})
    # what could not be read now is compared with what was told of it last, when it is there again
    lost = before if survey.missing or survey.unanswered else None
    book.keep(cursor, {**(lost or {}), **survey.told}, source.owner)
    left = left_out(lines, shown)
    return Summary(
        summary=text,
        tokens=tokens,
        budget_tokens=arguments.budget_tokens,
        counted_with=counter.name,
        left_out=LeftOut(
            lines=sum(left.values()),
            moves=left["moves"],
            anomalies=left["anomalies"],
            levels=left["levels"],
            note=note,
        ),
        delta=before is not None,
        cursor=cursor,
        freshness=freshness,
    )


def _refuse(survey: _Survey, keys: Sequence[str] | None, freshness: Freshness, max_staleness_ms: int | None) -> None:
    """The error in place of a summary of nothing, or of one that is too old."""
    if keys is not None and (forbidden := survey.forbidden_keys()) and len(forbidden) == len(keys):
        raise survey.forbidden[forbidden[0]]
    if keys is not None and len(survey.unknown_keys()) + len(survey.forbidden_keys()) == len(keys):
        raise next((error for error in survey.unknown.values() if error.nearest), next(iter(survey.unknown.values())))
    if max_staleness_ms is not None and not survey.readings:
        raise next(iter(survey.unanswered.values()), nothing_read(freshness.as_of))
    refuse_stale(freshness, max_staleness_ms)


# --- what there is -----------------------------------------------------------------------------------------------------


async def _survey_table(
    source: Source, info: TableInfo, keys: Sequence[str] | None, before: Mapping[Place, Told] | None, survey: _Survey
) -> None:
    cursor: str | None = None
    while True:
        if keys is not None:
            part: Sequence[str] = keys
        else:
            page = await source.queries.keys(
                info.name, limit=min(_CHUNK_KEYS, source.settings.page_limit_max), cursor=cursor
            )
            part, cursor = [key for key in page.items if is_readable(key)], page.cursor
            survey.unreadable.update(key for key in page.items if not is_readable(key))
            survey.missing.update(page.missing_partitions)
        if part:
            for key, found in zip(part, await source.queries.values(info.name, part), strict=True):
                if isinstance(found, Reading):
                    _survey_reading(info, found, before, survey)
                elif isinstance(found, UnknownKeyError):
                    survey.unknown.setdefault(key, found)
                elif isinstance(found, ForbiddenError):
                    survey.forbidden.setdefault(key, found)
                elif isinstance(found, QueryError):
                    survey.unanswered.setdefault(key, found)
                else:
                    raise found
        await asyncio.sleep(0)  # others may want to read
        if keys is not None or cursor is None:
            return
        if len(survey.readings) >= VALUES_MAX:
            survey.unread = True
            return


def _survey_reading(info: TableInfo, reading: Reading, before: Mapping[Place, Told] | None, survey: _Survey) -> None:
    main = _main_field(info)
    level = number(reading.value.get(main)) if main is not None else None
    place = (info.name, reading.key)
    survey.readings.append(reading)
    now = survey.told[place] = told_of(reading, level)
    earlier = before.get(place) if before is not None else None
    if earlier is not None and earlier.digest == now.digest and earlier.gaps == now.gaps:
        survey.unchanged += 1
        return
    key = shown_key(reading.key)
    topics = _add_trouble(info, reading, key, survey)
    if info.name == SIGNALS_TABLE:
        topics += _add_anomaly(reading, key, survey)
    elif main is not None and level is not None:
        topics += _add_level(info, reading, (main, level), earlier, survey)
    if before is not None:
        survey.topics[place] = topics


def _add_level(
    info: TableInfo, reading: Reading, main: tuple[str, float], earlier: Told | None, survey: _Survey
) -> list[Topic]:
    name, level = main
    key = shown_key(reading.key)
    is_price = name in _PRICE_FIELDS
    concept = "price" if is_price else info.name
    topic = ("level", concept, reading.key)
    move, span = None, "since"
    moves = name in COMPARED_FIELDS  # of counts and the like it is the level that matters
    if moves and earlier is not None and earlier.level is not None:
        move = _ratio(earlier.level, level)
    elif moves:
        move, span = _move(reading.value), _span(info)
    label = "" if is_price else f"{info.name}.{name} "
    if move:
        known = survey.moves.get(topic)
        if known is None or abs(move) > known[0]:
            percent = _percent(move * 100)
            ago = _window_ago(reading)
            text = f"{label}{percent}% {_short(level)}{ago and ' ' + ago}"
            content = [
                *([] if is_price else [f"{info.name}.{name}"]),
                float(percent),
                _rounded(level),
                *filter(None, [ago]),
            ]
            line = Line("moves", (-abs(move), key, info.name), key, text, content, span, topic)
            survey.moves[topic] = (abs(move), line)
    shown = [f"{info.name}.{name}", _rounded(level)]
    if (concept, reading.key) not in survey.levels or info.kind == "latest":
        line = Line("levels", (0, concept, key), key, f"{label}{_short(level)}", shown, topic=topic)
        survey.levels[concept, reading.key] = line
    return [topic]


def _main_field(info: TableInfo) -> str | None:
    known = numeric_fields(info)
    return next((name for name in COMPARED_FIELDS if name in known), known[0] if known else None)


def _move(value: Mapping[str, object]) -> float | None:
    first, last = number(value.get("open")), number(value.get("close"))
    return _ratio(first, last) if first is not None and last is not None else None


def _ratio(first: float, last: float) -> float | None:
    """By how much of itself a number has moved, up or down as the number did, also below zero; None from zero on."""
    ratio = number((last - first) / abs(first)) if first else None
    return None if ratio is None or number(ratio * 100) is None else ratio


def _span(info: TableInfo) -> str:
    size = info.size_ms or 0
    for unit, width in _UNITS:
        if size and size % width == 0:
            return f"{size // width}{unit}"
    return f"{size}ms" if size else info.name


def _window_ago(reading: Reading) -> str:
    """How long a window is over, where that is longer than it took: what moved then is not what moves now."""
    window = reading.window
    over_ms = 0 if window is None else reading.freshness.as_of - window.end
    return _ago(over_ms) if window is not None and over_ms > window.end - window.start else ""


def _ago(ms: float) -> str:
    unit, width = next((one for one in _UNITS if ms >= one[1]), _UNITS[-1])
    return f"{max(0, int(ms // width))}{unit} ago"


def _add_anomaly(reading: Reading, key: str, survey: _Survey) -> list[Topic]:
    z = number(reading.value.get("z"))
    if z is None:
        return []
    kind = anomaly_kind(reading.value.get("kind"))
    topic = ("anomaly", reading.key)
    # the newest one of a key stands until there is another
    began = number(reading.value.get("window_start"))
    ago = "" if began is None else _ago(reading.freshness.as_of - began)
    text, content = f"{kind} z={z:.1f}{ago and ' ' + ago}", [kind, round(z, 1), *filter(None, [ago])]
    line = Line("anomalies", (-abs(z), key, kind), key, text, content, topic=topic)
    survey.others.append(line)
    return [topic]


def _add_trouble(info: TableInfo, reading: Reading, key: str, survey: _Survey) -> list[Topic]:
    block = reading.freshness
    if block.staleness_ms >= _STALE_MS:
        behind = f"{info.name} {block.staleness_ms // 1000} s behind"
        rank = (-float(block.staleness_ms), key, info.name)
        survey.others.append(Line("trouble", rank, key, behind, [info.name, "staleness_ms", block.staleness_ms]))
    # the gaps are the feed's, so they are told once for all tables
    gaps = block.feed.gaps if block.feed is not None else 0
    if not gaps:
        return []
    topic = gaps_topic(reading.key)
    if reading.key not in survey.with_gaps:
        survey.with_gaps.add(reading.key)
        survey.others.append(
            Line("trouble", (-float(gaps), key, "gaps"), key, f"{gaps} gaps", ["gaps", gaps], topic=topic)
        )
    return [topic]


def _percent(move: float) -> str:
    return f"{move:+.{1 if abs(move) >= 1 else 2}f}" if abs(move) < _DIGITS_BELOW else f"{move:+.3g}"


def _short(level: float) -> str:
    return f"{level:.0f}" if 1e6 <= abs(level) < _DIGITS_BELOW else f"{level:.6g}"


def _rounded(level: float) -> float:
    return float(_short(level))


# --- what is told ------------------------------------------------------------------------------------------------------


async def _in_order(survey: _Survey) -> list[Line]:
    """Everything that could be told, the most important first."""
    by_kind: dict[Kind, list[Line]] = {"moves": [line for _, line in survey.moves.values()]}
    by_kind["anomalies"] = [line for line in survey.others if line.kind == "anomalies"]
    by_kind["trouble"] = [line for line in survey.others if line.kind == "trouble"]
    for lines in by_kind.values():
        lines.sort(key=lambda line: line.rank)
        await asyncio.sleep(0)
    first: list[Line] = []
    more: list[Line] = []
    rest: list[Line] = []
    for kind, count in _FIRST.items():
        first += by_kind[kind][:count]
        more += by_kind[kind][count : 4 * count]
        rest += by_kind[kind][4 * count :]
    rest.sort(key=lambda line: line.kind == "moves")  # from here on a move is told for its level
    await asyncio.sleep(0)
    levels = sorted(survey.levels.values(), key=lambda line: line.rank)
    await asyncio.sleep(0)
    return first + more + rest + [line for line in levels if line.topic not in survey.moves]  # a move tells its level
