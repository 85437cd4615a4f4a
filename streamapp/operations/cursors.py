"""What a reader has been told: so that the next summary tells only what has changed."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import msgspec

from streamapp.errors import BadParameterError
from streamapp.queries.model import Reading

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

Place = tuple[str, str]  # table, key
Topic = tuple[str, ...]  # what a reader knows after a line
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class Told:
    """One value as it was told: a digest of it, its main number, and the gaps of its feed."""

    digest: bytes
    level: float | None
    gaps: int


class CursorBook:
    """Remembers what the latest summaries told, for a bounded number of them; the oldest are forgotten first.

    Args:
        cursors_max: summaries remembered.
        values_max: values remembered in all; about 200 bytes each.
    """

    def __init__(self, cursors_max: int = 64, values_max: int = 100_000) -> None:
        self._cursors_max = cursors_max
        self._values_max = values_max
        self._books: OrderedDict[tuple[str, str], Mapping[Place, Told]] = OrderedDict()  # by owner and cursor
        self._values = 0
        self._numbers = itertools.count(1)

    def new_cursor(self, as_of: int) -> str:
        """A cursor for a summary as of this instant; `keep` gives it a meaning."""
        return f"{_base36(as_of)}.{_base36(next(self._numbers))}"

    def keep(self, cursor: str, told: Mapping[Place, Told], owner: str = "") -> None:
        """Remember what its owner was told under a new cursor."""
        self._books[owner, cursor] = told
        self._values += len(told)
        while len(self._books) > self._cursors_max or (self._values > self._values_max and len(self._books) > 1):
            _, forgotten = self._books.popitem(last=False)
            self._values -= len(forgotten)

    def find(self, cursor: str, owner: str = "") -> Mapping[Place, Told] | None:
        """What was told when the cursor was given; None where that is not known here (any more), or to somebody else.

        Raises:
            BadParameterError: it is no cursor.
        """
        time, dot, number = cursor.partition(".")
        try:
            int(time, 36)
            int(number, 36)
        except ValueError:
            dot = ""
        if not dot or len(cursor) > 40:
            raise BadParameterError("cursor", "the cursor is none of this call's; leave it out to be told everything")
        return self._books.get((owner, cursor))


def told_of(reading: Reading, level: float | None) -> Told:
    """What is to be remembered of a value."""
    feed = reading.freshness.feed
    digest = blake2b(msgspec.json.encode(dict(reading.value), enc_hook=_plain), digest_size=8).digest()
    return Told(digest, level, feed.gaps if feed is not None else 0)


def _plain(value: object) -> object:
    """What makes two values differ, of kinds that only a user's own aggregate shows."""
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, Sequence) else repr(value)


def gaps_topic(key: str) -> Topic:
    """The topic of the gaps in a key's feed."""
    return "gaps", key


async def keep_untold(
    told: dict[Place, Told],
    topics: Mapping[Place, Sequence[Topic]],
    before: Mapping[Place, Told],
    shown: Collection[Topic],
) -> None:
    """Put back what was told before where a change did not fit, so that the next summary tells it.

    Args:
        told: all values as they are; changed in place.
        topics: those by which each changed value was to be told.
        before: the values as they were told last.
        shown: the topics that were told.
    """
    for done, (place, wanted) in enumerate(topics.items()):
        if done % _CHUNK == 0:
            await asyncio.sleep(0)
        untold = [topic for topic in wanted if topic not in shown]
        if not untold:
            continue
        now, earlier = told[place], before.get(place)
        of_gaps = gaps_topic(place[1])
        gaps = now.gaps if of_gaps not in untold else earlier.gaps if earlier is not None else 0
        if untold == [of_gaps]:
            told[place] = replace(now, gaps=gaps)
        elif earlier is not None:
            told[place] = replace(earlier, gaps=gaps)
        else:
            del told[place]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
