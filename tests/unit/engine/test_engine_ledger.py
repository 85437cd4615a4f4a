"""An owner that knows its own offsets knows what others wrote."""

from streamapp.engine.ledger import Ledger


def test_owner_that_is_alone_finds_nothing_foreign() -> None:
    ledger = Ledger(10)
    ledger.wrote([10, 11, 12])
    ledger.wrote([])
    ledger.wrote([13])
    ledger.found_end(14)
    assert (ledger.foreign, ledger.next, ledger.position) == ([], 14, 13)


def test_gaps_before_between_and_behind_own_records_are_foreign() -> None:
    ledger = Ledger(10)
    ledger.wrote([11, 12, 15])
    assert ledger.foreign == [(10, 11), (13, 15)]
    ledger.found_end(18)
    assert ledger.foreign == [(10, 11), (13, 15), (16, 18)]
    assert ledger.next == 18


def test_position_stays_before_the_first_foreign_record_until_it_was_looked_at() -> None:
    ledger = Ledger(10)
    ledger.wrote([10, 11])
    ledger.wrote([13, 14])
    assert ledger.position == 11
    ledger.foreign.clear()
    assert ledger.position == 14


def test_end_that_is_known_already_changes_nothing() -> None:
    ledger = Ledger(10)
    ledger.found_end(9)
    ledger.found_end(10)
    assert (ledger.foreign, ledger.next) == ([], 10)


def test_own_records_whose_place_nobody_told_are_gaps_unless_their_neighbours_tell_it() -> None:
    ledger = Ledger(10)
    ledger.wrote([10, -1, 12])
    assert (ledger.foreign, ledger.next) == ([], 13)
    ledger.wrote([13, -1])
    ledger.wrote([-1])
    assert (ledger.foreign, ledger.next, ledger.position) == ([], 14, 13), "nothing shows where they are"
    ledger.wrote([-1, 17])
    assert (ledger.foreign, ledger.position) == ([(14, 17)], 13)
