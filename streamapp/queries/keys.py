"""Which keys can be asked for (a table may hold others, but no address and no argument takes them); how a key is shown."""

import re
from urllib.parse import quote

from streamapp.errors import BadParameterError

KEY_MAX_CHARS = 1_024
SHOWN_MAX_CHARS = 128
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\-]*", re.ASCII)
#: in the place of a key without a character; no other key is shown so, as quotes are encoded
_EMPTY = '""'
#: behind every key that begins with the text before it
_BEHIND = "\U0010ffff"


def is_symbol(text: str, longest: int = SHOWN_MAX_CHARS) -> bool:
    """Whether a text is letters, digits and `._:/@+-` only, and not too long."""
    return len(text) <= longest and _SYMBOL.fullmatch(text) is not None


def shown_key(key: str) -> str:
    """A key as answers and errors show it: a symbol as it is, all else percent-encoded and cut; `""` for the empty one.

    A key may have come from a feed, and a model reads an error as it reads an answer.
    """
    return key if is_symbol(key) else quote(key, safe="")[:SHOWN_MAX_CHARS] or _EMPTY


def is_readable(key: str) -> bool:
    """Whether a key can be asked for: not empty, of bounded length, without control characters."""
    return 0 < len(key) <= KEY_MAX_CHARS and _CONTROL.search(key) is None


def checked_key(key: str, parameter: str = "key") -> str:
    """The key; BadParameterError where it cannot be asked for."""
    if not is_readable(key):
        raise BadParameterError(
            parameter, f"a key has 1 to {KEY_MAX_CHARS} characters and no control characters; got {len(key)} characters"
        )
    return key


def place_of(key: str) -> str:
    """A key's place in a list, to go on behind it: bounded and not empty, whatever the key is.

    Only keys that cannot be asked for are passed over: those that begin with as many characters as a key may have.
    """
    return key[:KEY_MAX_CHARS] + _BEHIND if len(key) > KEY_MAX_CHARS else key or "\0"
