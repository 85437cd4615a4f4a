"""Cursors of lists: opaque to whoever gets one, a place in the order of the list to this API."""

import base64
import binascii

from streamapp.errors import BadParameterError

#: more than any start has, and less than what a key of the store can hold
_START_MAX_DIGITS = 16


def encode_cursor(position: str) -> str:
    """The cursor of a list that goes on behind this position."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """What `encode_cursor` was given; None of a list that begins.

    Raises:
        BadParameterError: it was not made here.
    """
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise not_of_this_route() from None


def decode_start(cursor: str | None) -> int | None:
    """The same, of a list of windows in order of their starts, in ms.

    Raises:
        BadParameterError: it was not made here.
    """
    start = decode_cursor(cursor)
    if start is None:
        return None
    if not (start.isascii() and start.isdigit() and len(start) <= _START_MAX_DIGITS):
        raise not_of_this_route()
    return int(start)


def not_of_this_route() -> BadParameterError:
    """What a cursor is refused with."""
    return BadParameterError("cursor", "the cursor is none of this route's")
