"""The text of a summary within a budget of tokens: as many lines as fit below a head that always fits."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson

from streamapp.errors import BadParameterError
from streamapp.operations.answers import Freshness
from streamapp.operations.tokens import TokenCounter

Kind = Literal["moves", "anomalies", "trouble", "levels"]
TITLES: Mapping[Kind, str] = {
    "moves": "moves",
    "anomalies": "anomalies",
    "trouble": "gaps",
    "levels": "levels",
}
_VENUE_CHARS = 24
#: how much of the head is told, from all of it to the least: the note, and how many venues that are down by name
_DETAILS: tuple[tuple[bool, int], ...] = ((True, 3), (False, 3), (False, 1), (False, 0))


@dataclass(frozen=True, slots=True)
class Line:
    """Something that could be told.

    Attributes:
        kind: its place in the order of importance.
        rank: orders it among its kind, the least first.
        key: of what.
        text, content: what is told of it, in text and in JSON.
        group: goes into its title.
        topic: what a reader knows after it; lines of one topic stand for each other.
    """

    kind: Kind
    rank: tuple[float, str, str]
    key: str
    text: str
    content: Sequence[object]
    group: str = ""
    topic: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """What every summary says, as far as the budget goes.

    Attributes:
        freshness: of everything that was looked at.
        cursor: for the next summary.
        delta: only changes are told.
        unchanged: values that are not told for that reason.
        note: what was not looked at, in words.
        venues: so many of the feeds that are down are named.
        least: nothing but how old it is, how much was left out and the cursor, for a tokenizer that makes much of little.
    """

    freshness: Freshness
    cursor: str
    delta: bool
    unchanged: int
    note: str
    venues: int = 3
    least: bool = False

    def down(self) -> tuple[list[str], int]:
        """The names of feeds that are down, and how many more there are."""
        names = [name[:_VENUE_CHARS] for name in self.freshness.feeds_down[: self.venues]]
        return names, len(self.freshness.feeds_down) - len(names)


Write = Callable[[Head, Sequence[Line], Mapping[str, int]], str]


def as_text(head: Head, shown: Sequence[Line], left: Mapping[str, int]) -> str:
    """Lines of text under their titles."""
    freshness = head.freshness
    behind = "unknown" if freshness.staleness_ms is None else f"{freshness.staleness_ms} ms"
    if head.least:
        return f"as of {freshness.as_of}, behind {behind}\nleft out: {sum(left.values())}\ncursor {head.cursor}"
    names, more = head.down()
    down = f"{', '.join(names)} and {more} more" if names and more else ", ".join(names) or str(more or "none")
    parts = [f"as of {freshness.as_of}, behind {behind}, feeds down: {down}"]
    if head.delta:
        parts.append(f"changes only; {head.unchanged} values unchanged")
    for (kind, group), lines in _grouped(shown).items():
        parts.append(f"{TITLES[kind]} {group}:" if group else f"{TITLES[kind]}:")
        parts += [f"{line.key} {line.text}" for line in lines]
    told = ", ".join(f"{count} {TITLES[kind]}" for kind, count in _counts(left)) or "nothing"
    parts.append(f"left out: {told}{'; ' + head.note if head.note else ''}")
    parts.append(f"cursor {head.cursor}")
    return "\n".join(parts)


def as_json(head: Head, shown: Sequence[Line], left: Mapping[str, int]) -> str:
    """Compact JSON: by kind and group, the values of each key."""
    freshness = head.freshness
    content: dict[str, object] = {"as_of": freshness.as_of, "staleness_ms": freshness.staleness_ms}
    if head.least:
        return orjson.dumps({**content, "left_out": sum(left.values()), "cursor": head.cursor}).decode()
    names, more = head.down()
    content["feeds_down"] = names
    if more:
        content["more_feeds_down"] = more
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
    for kind in TITLES:
        for line in shown:
            if line.kind == kind:
                groups.setdefault((kind, line.group), []).append(line)
    return groups


def _counts(left: Mapping[str, int]) -> list[tuple[Kind, int]]:
    return [(kind, left[kind]) for kind in TITLES if left[kind]]


def left_out(lines: Sequence[Line], shown: int) -> dict[str, int]:
    """How many lines of each kind come after those that are shown."""
    left: dict[str, int] = dict.fromkeys(TITLES, 0)
    for line in lines[shown:]:
        left[line.kind] += 1
    return left


async def fitted(
    head: Head, lines: Sequence[Line], budget: int, counter: TokenCounter, write: Write
) -> tuple[str, int, int]:
    """The text with as many lines as fit, its tokens, and how many lines these are.

    Of a head that does not fit by itself first the note goes, then the names of the feeds that are down, then all but the
    least of it.

    Raises:
        BadParameterError: even that does not fit.
    """
    for note, venues in _DETAILS:
        head = replace(head, note=head.note if note else "", venues=venues)
        if counter.count(write(head, (), left_out(lines, 0))) <= budget:
            break
    else:
        head = replace(head, least=True)
        text = write(head, (), left_out(lines, 0))
        tokens = counter.count(text)
        if tokens > budget:
            raise BadParameterError(
                "budget_tokens", f"the least summary has more than {budget} tokens by {counter.name}; ask for {tokens}"
            )
        return text, tokens, 0

    def written(count: int) -> str:
        return write(head, lines[:count], left_out(lines, count))

    low, high = 0, min(len(lines), budget // 4)
    while low < high:
        middle = (low + high + 1) // 2
        if counter.count(written(middle)) <= budget:
            low = middle
        else:
            high = middle - 1
        await asyncio.sleep(0)
    text = written(low)
    tokens = counter.count(text)
    while low > 0 and tokens > budget:  # a line more may once make a token less
        low -= 1
        text = written(low)
        tokens = counter.count(text)
        await asyncio.sleep(0)
    return text, tokens, low
