"""Ids of events: what comes back is what was sent, and what is none, or of something else, is nothing."""

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.queries.positions import ID_MAX_CHARS, Position, decode, encode, mark_of, oldest, since

MARK, OTHER = mark_of(("cluster", "table")), mark_of(("cluster", "another"))
offsets = st.integers(-1, 1 << 50)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    applied = draw(st.lists(offsets, min_size=1, max_size=3))
    durable = [draw(st.integers(-1, offset)) for offset in applied]
    watermark = draw(st.integers(-1, 1 << 53))
    closed = draw(st.integers(-1, watermark))
    return Position(draw(st.integers(0, 1 << 32)), tuple(applied), watermark, tuple(durable), closed)


@given(
    st.dictionaries(st.tuples(st.sampled_from([MARK, OTHER]), st.integers(0, 300)), positions(), min_size=1, max_size=8)
)
def test_id_says_what_it_was_made_of(told: dict[tuple[bytes, int], Position]) -> None:
    text = encode(told)
    assert decode(text) == told
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text


@given(st.lists(positions(), min_size=1, max_size=4))
def test_what_is_news_to_one_part_is_news_to_a_subscriber_of_all(parts: list[Position]) -> None:
    origins = len(parts[0].applied)
    parts = [part for part in parts if len(part.applied) == origins]
    both = oldest([{(MARK, number): part, (OTHER, 7): part} for number, part in enumerate(parts)])
    assert {place: both[place] for place in both if place[0] == MARK} == {
        (MARK, number): part for number, part in enumerate(parts)
    }, "of a place that one part speaks of it is the part's"
    for part in parts:
        for have, known in zip(both[OTHER, 7].applied, part.applied, strict=True):
            assert have <= known
        for have, known in zip(both[OTHER, 7].durable, part.durable, strict=True):
            assert have <= known
        assert both[OTHER, 7].watermark <= part.watermark
        assert both[OTHER, 7].durable_watermark <= part.durable_watermark
        assert both[OTHER, 7].epoch <= part.epoch


def test_subscribers_of_one_partition_share_its_id_until_it_moves_on() -> None:
    first, second = (Position(1, (applied,), 50, (3,), 40) for applied in (5, 6))
    assert decode(encode({(MARK, 0): first})) == {(MARK, 0): first}
    assert decode(encode({(MARK, 0): second})) == {(MARK, 0): second}
    assert decode(encode({(MARK, 1): second})) == {(MARK, 1): second}


@pytest.mark.parametrize(
    "text", ["", "c4", "!", "é", "0-17", "A" * 5_000, base64.urlsafe_b64encode(b"x" * 40).decode()]
)
def test_what_is_no_id_says_nothing(text: str) -> None:
    assert decode(text) is None


def test_damaged_id_says_nothing() -> None:
    text = encode({(MARK, 3): Position(2, (1_000,), 5_000, (900,), 4_000)})
    chance = random.Random(1)
    for _ in range(500):
        place = chance.randrange(len(text))
        damaged = text[:place] + chance.choice("ABCDEFGHabcdefgh01234567-_") + text[place + 1 :]
        assert damaged == text or decode(damaged) is None or decode(damaged) == decode(text)
    assert decode(text[:-4]) is None


def test_id_that_would_be_too_long_for_a_header_is_not_sent() -> None:
    told = {(MARK, partition): Position(1, tuple(range(10**9, 10**9 + 8)), 1, (0,) * 8, 0) for partition in range(100)}
    assert encode(told) == ""
    assert len(encode(dict(list(told.items())[:20]))) < ID_MAX_CHARS
    assert encode({}) == ""


def test_owner_goes_on_from_what_was_merged_and_another_from_what_was_durable() -> None:
    at = Position(4, (100, 7), 5_000, (90, 5), 4_500)
    assert since(at, 4, (120, 7)) == ((100, 7), 5_000)
    assert since(at, 6, (95, 5)) == ((90, 5), 4_500), "what was merged and not durable is merged again"


def test_position_that_cannot_be_of_this_state_is_none() -> None:
    at = Position(4, (100, 7), 5_000, (90, 5), 4_500)
    assert since(at, 3, (200, 200)) is None, "an epoch that is yet to come"
    assert since(at, 4, (99, 7)) is None, "more than this owner has merged"
    assert since(at, 5, (80, 5)) is None, "durable offsets that are gone"
    assert since(at, 5, (95,)) is None, "another number of sources"


def test_mark_differs_with_every_part_of_the_identity() -> None:
    parts = ["cluster", "app", "table", "changelog id", "fingerprint", 5_000]
    marks = {mark_of([*parts[:index], "other", *parts[index + 1 :]]) for index in range(len(parts))}
    assert len(marks | {mark_of(parts)}) == len(parts) + 1
