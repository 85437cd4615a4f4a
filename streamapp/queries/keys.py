"""Which keys can be asked for: a table may hold others, but no address and no argument is made to take them."""

import re

from streamapp.errors import BadParameterError

KEY_MAX_CHARS = 1_024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: behind every key that begins with the text before it
_BEHIND = "\U0010ffff"


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
