"""Cursors come back from callers: as they were, or as somebody has made them up."""

import pytest

from streamapp.errors import BadParameterError
from streamapp.queries.cursors import decode_cursor, decode_start, encode_cursor


@pytest.mark.parametrize("position", ["", "k1", "ä/ö", "\U0010ffff"])
def test_position_comes_back(position: str) -> None:
    assert decode_cursor(encode_cursor(position)) == position


def test_start_of_a_window_comes_back() -> None:
    assert decode_start(encode_cursor("1790000000000")) == 1_790_000_000_000
    assert decode_start(None) is None


@pytest.mark.parametrize("made_up", ["", "k1", "-1", "\u00b2", "\u0661", "9" * 30])
def test_start_that_is_none_is_refused(made_up: str) -> None:
    with pytest.raises(BadParameterError):
        decode_start(encode_cursor(made_up))


@pytest.mark.parametrize("cursor", ["%", "a", "gA", "\u00e4"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadParameterError):
        decode_cursor(cursor)
