"""Text that came from a feed, on its way to a language model: only what looks like a symbol or a word goes as it is.

A model reads an answer as it reads its instructions, so a feed that could put a sentence there could give orders. Keys and
field values are therefore either words without spaces, or visibly wrapped as data and cut to a length.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from streamapp.queries.keys import checked_key, is_readable
from streamapp.queries.keys import is_symbol as is_symbol
from streamapp.queries.keys import shown_key as shown_key

WORD_MAX_CHARS = 64
TEXT_MAX_CHARS = 120
_PARTS_MAX = 50
#: of one value; names come from the application, but a user's fold may make them of what its records say
_FIELDS_MAX = 200
_DEPTH_MAX = 4
_ESCAPED = re.compile(r"[%\x00-\x1f\x7f]")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def asked_key(key: str) -> str:
    """The key that a caller means, who may repeat one as `shown_key` gave it."""
    return unquote(key) if "%" in key else key


def meant_key(key: str) -> str:
    """The same; BadParameterError where it is none that can be asked for, which only its encoded form hides."""
    return checked_key(asked_key(key))


def exact_key(key: str) -> str:
    """A key as an argument that means this very key: `asked_key` gives it back, whatever is in it."""
    return _ESCAPED.sub(lambda found: quote(found[0], safe=""), key)


def is_askable(key: str) -> bool:
    """Whether a key may be asked for as it is shown; lists leave the others out, which no read takes or which were cut."""
    return is_readable(key) and asked_key(shown_key(key)) == key


def shown_word(word: str, known: Sequence[str]) -> str:
    """One of the words that are expected there; `unknown` for every other."""
    return word if word in known else "unknown"


def shown_value(value: Any, depth: int = 0) -> Any:
    """A field's value: numbers and words as they are, other text as `{"untrusted_text": ...}`, all of it bounded."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        if not value or is_symbol(value, WORD_MAX_CHARS):
            return value
        return {"untrusted_text": _UNPRINTABLE.sub(" ", value[:TEXT_MAX_CHARS])}
    if depth >= _DEPTH_MAX:
        return None
    if isinstance(value, Mapping):
        return _shown_parts(value, _PARTS_MAX, depth + 1)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [shown_value(part, depth + 1) for part in islice(value, _PARTS_MAX)]
    try:
        # what the HTTP interface writes of it: another worker passes that on, and both have to answer alike
        return shown_value(msgspec.json.decode(msgspec.json.encode(value)), depth + 1)
    except (TypeError, ValueError):
        return None


def _shown_parts(value: Mapping[Any, Any], most: int, depth: int) -> dict[str, Any]:
    shown = {}
    for name, part in islice(value.items(), most):
        text = name if isinstance(name, str) else msgspec.json.encode(name).decode().strip('"')
        shown[shown_key(text)] = shown_value(part, depth)
    return shown


def shown_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a reading's value, their names as keys are shown, since a user's fold may take them from records."""
    return _shown_parts(value, _FIELDS_MAX, 0)
