"""Statuses of feeds: what is published when, and what a venue's state is."""

import base64

import pytest

from streamapp.bridge.board import FeedBoard
from streamapp.bridge.letters import dead_letter_entry
from streamapp.clock import ManualClock
from streamapp.feeds.connection import Disconnected
from streamapp.feeds.protocol import GapDetected, VenueError
from streamapp.records.models import DeadLetter

DOWN = Disconnected("silent for 9 ms", failures=1, pause_ms=250, circuit_open=False, was_connected=True)


@pytest.fixture
def board() -> FeedBoard:
    made = FeedBoard(ManualClock(1_000))
    made.add("main", "coinbase")
    return made


def test_board_begins_disconnected(board: FeedBoard):
    (status,) = board.heartbeats()

    assert (status.state, status.detail, status.key) == ("disconnected", "starting", "coinbase")


def test_board_first_connection_is_connected_and_later_ones_recovered(board: FeedBoard):
    assert board.connected("main").state == "connected"
    assert board.disconnected("main", DOWN).state == "disconnected"
    assert board.connected("main").state == "recovered"
    assert [status.state for status in board.heartbeats()] == ["connected"]


def test_board_names_cause_and_next_try(board: FeedBoard):
    opened = Disconnected("refused", failures=8, pause_ms=90_000, circuit_open=True, was_connected=False)

    assert board.disconnected("main", DOWN).detail == "feed main: silent for 9 ms; next try in 250 ms"
    assert "circuit open after 8 failures" in board.disconnected("main", opened).detail
    assert board.circuit_open("coinbase")


def test_board_venue_is_connected_only_if_all_its_feeds_are(board: FeedBoard):
    board.add("second", "coinbase")

    assert board.connected("main").state == "disconnected"
    assert board.connected("second").state == "connected"
    board.disconnected("main", DOWN)
    (status,) = board.heartbeats()
    assert status.state == "disconnected"
    assert "main" in status.detail


def test_board_gap_carries_both_numbers(board: FeedBoard):
    status = board.gap(GapDetected("coinbase", "BTC-USD", 5, 9, "4 trades missing"))

    assert (status.key, status.state) == ("coinbase:BTC-USD", "gap")
    assert (status.sequence_expected, status.sequence_got) == (5, 9)


def test_board_flood_of_complaints_is_bounded_per_heartbeat(board: FeedBoard):
    event = VenueError("coinbase", None, "no such product")

    assert sum(board.error("main", event) is not None for _ in range(1_000)) == 20
    board.heartbeats()
    assert board.error("main", event) is not None


def test_dead_letter_embeds_a_bounded_part_and_says_so():
    entry = dead_letter_entry(
        key=b"coinbase",
        venue="coinbase",
        source="feed:main",
        raw=b"x" * 100,
        reason="oversized",
        error="too long",
        now_ms=5,
        kept_bytes=10,
    )
    letter = DeadLetter.model_validate_json(entry.value)

    assert base64.b64decode(letter.value_base64) == b"x" * 10
    assert "the first 10 of 100 bytes" in letter.error
    assert (letter.topic, letter.reason, letter.attempts) == ("feed:main", "oversized", 1)
