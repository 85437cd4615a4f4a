"""What is found out once for all subscribers of a turn, and again for those of the next one."""

from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import RestoringError
from streamapp.queries.turn_memo import Positions, TurnMemo
from streamapp.state.entry import Entry
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from tests.fakes.crashes import Event, batch, definition


class Readings:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = False

    def state(self, live: LivePartition) -> PartitionState:
        self.asked.append("state")
        if self.gone:
            raise RestoringError("moved")
        assert live.state is not None
        return live.state

    def check_lease(self) -> None:
        self.asked.append("lease")

    def reading(self, _live: LivePartition, key: str, _start: int, entry: Entry) -> Any:
        self.asked.append(key)
        return SimpleNamespace(state=list(entry.state))


@pytest.fixture
def live() -> LivePartition:
    table = RunningTable(definition(None, Count()), "app", 1)
    state = PartitionState(table.definition, 0, MemoryStore())
    state.apply(batch([Event("k", 5)]))
    return LivePartition(table, 0, state.store, state)


def told(memo: TurnMemo, live: LivePartition) -> Any:
    assert live.state is not None
    return memo.reading(live, "k", 0, live.state.entry("k", 0))


def test_whatever_is_the_same_for_all_is_asked_once_in_a_turn(live: LivePartition) -> None:
    readings: Any = Readings()
    memo = TurnMemo(readings, Positions(), b"mark")
    for _ in range(3):
        memo.begin(7)
        memo.state(live)
        assert told(memo, live) is told(memo, live)
        assert memo.told(live) is memo.told(live)
    assert [what for what in readings.asked if what != "lease"] == ["state", "k"]
    assert readings.asked.count("lease") == 3, "a process may be stopped in the middle of a turn"


@pytest.mark.parametrize("turn", [8, None])
def test_nothing_of_an_earlier_turn_is_told_again(live: LivePartition, turn: int | None) -> None:
    readings: Any = Readings()
    memo = TurnMemo(readings, Positions(), b"mark")
    memo.begin(7)
    memo.state(live)
    before, position = told(memo, live), memo.told(live)
    assert live.state is not None
    live.state.apply(batch([Event("k", 6)], first=1))
    memo.begin(turn)
    assert told(memo, live).state != before.state
    assert memo.told(live) != position
    readings.gone = True
    memo.begin(None)
    with pytest.raises(RestoringError):
        memo.state(live)


def test_outside_of_turns_nothing_is_remembered(live: LivePartition) -> None:
    readings: Any = Readings()
    memo = TurnMemo(readings, Positions(), b"mark")
    for _ in range(2):
        memo.begin(None)
        memo.state(live)
    assert readings.asked == ["state", "state"]
