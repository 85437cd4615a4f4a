"""Existing keys that look like one that does not exist, at a bounded price: it is asked for on the event loop."""

import difflib
import heapq
from collections.abc import Iterable, Sequence
from itertools import islice

from streamapp.state.partition import PartitionState

NEAREST_MAX = 5
#: keys looked at, of all partitions together; reading one and comparing its pairs of letters takes some microseconds
_SCAN_MAX = 2_000
#: of which so many, the most promising, are compared letter by letter, which takes a hundred times as long
_COMPARED_MAX = 50
_LEAST_RATIO = 0.5


def nearest_keys(key: str, states: Sequence[PartitionState]) -> list[str]:
    """At most `NEAREST_MAX` keys that look like this one, best first.

    Where there are more keys than are looked at, those that begin as this one does come first: with the whole of it, with
    half of it, with its first part up to a colon; then any.
    """
    return nearest_of(key, _candidates(key, states))


def nearest_of(key: str, candidates: Iterable[str]) -> list[str]:
    """At most `NEAREST_MAX` of these that look like the key, best first."""
    pairs = _pairs(key)
    promising = heapq.nlargest(
        _COMPARED_MAX,
        candidates,
        key=lambda known: 2 * len(pairs & _pairs(known)) / (len(pairs) + len(known)),
    )
    return difflib.get_close_matches(key, promising, NEAREST_MAX, _LEAST_RATIO)


def _candidates(key: str, states: Sequence[PartitionState]) -> dict[str, None]:
    found: dict[str, None] = {}
    for prefix in beginnings(key):
        for number, state in enumerate(states):
            share = (_SCAN_MAX - len(found)) // (len(states) - number)
            found.update(dict.fromkeys(islice(state.iter_keys(prefix), share)))
        if len(found) >= _SCAN_MAX:
            break
    return found


def beginnings(key: str) -> list[str]:
    """How keys that look like this one may begin, the likeliest first; the last one is any."""
    head, colon, tail = key.partition(":")
    prefixes = [key, head + colon + tail[: max(1, len(tail) // 2)], head + colon, key[: len(key) // 2], ""]
    return list(dict.fromkeys(prefixes))


def _pairs(text: str) -> set[str]:
    text = text.lower()
    return {text[at : at + 2] for at in range(max(1, len(text) - 1))}
