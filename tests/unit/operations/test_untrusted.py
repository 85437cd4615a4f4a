"""What comes from a feed is words, numbers, or visibly data of bounded length."""

import json
from collections import deque
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.errors import BadParameterError
from streamapp.operations.answers import CurrentValues, Freshness, Item, ItemFreshness
from streamapp.operations.text import render
from streamapp.operations.untrusted import (
    asked_key,
    exact_key,
    is_askable,
    is_symbol,
    meant_key,
    shown_fields,
    shown_key,
    shown_value,
)


@pytest.mark.parametrize("key", ["coinbase:BTC-USD", "x:1000PEPE-USDT", "a", "kraken:A/B-USD", "user@host"])
def test_symbol_goes_as_it_is(key: str) -> None:
    assert shown_key(key) == key
    assert asked_key(key) == key


@given(st.text(max_size=400))
def test_shown_key_has_no_spaces_and_a_bound(key: str) -> None:
    shown = shown_key(key)
    assert len(shown) <= 128
    assert shown.isascii()
    assert " " not in shown
    assert "\n" not in shown


@given(st.text(max_size=40))
def test_exact_key_means_that_key(key: str) -> None:
    assert asked_key(exact_key(key)) == key


@pytest.mark.parametrize(
    ("key", "askable"),
    [("p%41", True), ("a b", True), ("x" * 128, True), ("a " * 100, False), ("", False), ('""', True)],
)
def test_key_that_was_cut_or_is_empty_is_not_askable(key: str, askable: bool) -> None:
    assert is_askable(key) is askable


@given(st.text(min_size=1, max_size=20))
def test_short_key_can_be_asked_for_as_it_was_shown(key: str) -> None:
    if "%" not in key and len(shown_key(key)) < 128:
        assert asked_key(shown_key(key)) == key


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=40), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_shown_value_is_json_without_prose(value: object) -> None:
    shown = shown_value(value)
    json.dumps(shown, allow_nan=False)

    def look(part: object) -> None:
        if isinstance(part, str):
            assert not part or is_symbol(part, 64)
        elif isinstance(part, dict):
            if set(part) == {"untrusted_text"}:
                assert len(part["untrusted_text"]) <= 120
                assert "\n" not in part["untrusted_text"]
                return
            for name, inner in part.items():
                assert " " not in name
                look(inner)
        elif isinstance(part, list):
            for inner in part:
                look(inner)

    look(shown)


@given(st.dictionaries(st.sampled_from(["a", "b"]), VALUES, min_size=1))
def test_text_of_a_value_stays_on_its_line(value: dict[str, object]) -> None:
    freshness = ItemFreshness(age_ms=1, staleness_ms=2, lag=0, feed_connected=True)
    item = Item(key="x:Y", window=None, value=shown_fields(value), freshness=freshness)
    answer = CurrentValues(table="t", items=[item], freshness=Freshness(as_of=1))
    lines = render(answer).split("\n")
    assert len(lines) == 5
    assert lines[-1].startswith("freshness: as_of=1 ")


@given(st.dictionaries(st.text(max_size=200) | st.integers() | st.none(), st.integers(), max_size=300))
def test_names_that_a_fold_takes_from_records_are_bounded_words(value: dict[str, int]) -> None:
    shown = shown_fields(value)
    assert len(shown) <= 200
    assert all(len(name) <= 128 and name.isascii() and not set(" \n,=") & set(name) for name in shown)
    assert shown_fields({"p99_9": 1, "_x": 2, "c.open": 3}) == {"p99_9": 1, "_x": 2, "c.open": 3}


def test_value_of_another_kind_is_shown_as_the_http_interface_writes_it() -> None:
    value = {"raw": b"raw", "set": {1.5}, "day": date(2026, 1, 2), "parts": deque([1, 2]), None: 1, True: 2, 3: 4}
    assert shown_fields(value) == {  # type: ignore[arg-type]
        "raw": "cmF3", "set": [1.5], "day": "2026-01-02", "parts": [1, 2], "null": 1, "true": 2, "3": 4
    }  # fmt: skip
    assert shown_fields({"odd": object()}) == {"odd": None}


@pytest.mark.parametrize("key", ["", "a\nb", "nul\x00", "x" * 1025])
def test_key_that_no_read_takes_is_not_askable_in_any_form(key: str) -> None:
    assert not is_askable(key)
    with pytest.raises(BadParameterError, match="1 to 1024 characters"):
        meant_key(exact_key(key))
