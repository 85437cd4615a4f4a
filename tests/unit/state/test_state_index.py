"""The index over a store says what a plain set of windows would say, whatever is still on its way."""

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamapp.state import index as index_module
from streamapp.state.entry import data_key, time_key
from streamapp.state.index import WindowIndex
from streamapp.state.store import KEY_COUNT_KEY, MemoryStore, WriteSet

NAMES = ["", "a", "a\x00", "a\x00b", "aa", "b", "b\xff", "東", "z"]
STARTS = [0, 1, 60, 120, 1 << 40]


class IndexMachine(RuleBasedStateMachine):
    """Windows are added, flushed, deleted and counted in any order; a set of pairs is the reference."""

    @initialize(known=st.booleans())
    def begin(self, known: bool) -> None:
        self.store = MemoryStore()
        self.all: set[tuple[str, int]] = set()
        self.pending: set[tuple[str, int]] = set()
        self.planned: tuple[WriteSet, set[tuple[str, int]]] | None = None
        if not known:
            self.all = {("a", 0), ("a", 60), ("b", 1)}
            self.store.write(WriteSet([pair for place in self.all for pair in self._rows(place)]))
        self.count: Any = None
        self._open()

    def _open(self) -> None:
        self.index = WindowIndex(self.store, windowed=True, first_open=0)

    @staticmethod
    def _rows(place: tuple[str, int]) -> list[tuple[bytes, bytes]]:
        return [(data_key(*place), b"v"), (time_key(*place), b"")]

    @rule(key=st.sampled_from(NAMES), start=st.sampled_from(STARTS))
    def add(self, key: str, start: int) -> None:
        if (key, start) in self.all:
            return
        if not self.index.may_be_stored(start):
            assert self.store.get(data_key(key, start)) is None
        self.index.add(key, start)
        self.all.add((key, start))
        self.pending.add((key, start))

    @rule()
    def discard(self) -> None:
        if self.pending:
            place = min(self.pending)
            self.index.discard(*place)
            self.pending.remove(place)
            self.all.remove(place)

    @rule(number=st.integers(0, 3))
    def plan(self, number: int) -> None:
        if self.planned is not None:
            return
        stored = sorted(self.all - self.pending, key=lambda place: (place[1], place[0]))
        deleted = set(stored[:number])
        changes = WriteSet([(data_key(*place), b"v") for place in self.pending])
        changes.deletes = [row for place in deleted for row, _ in self._rows(place)]
        self.index.plan(changes, deleted)
        self.pending = set()
        self.planned = changes, deleted

    @rule()
    def written(self) -> None:
        if self.planned is not None:
            changes, deleted = self.planned
            self.store.write(changes)
            self.index.written()
            self.all -= deleted
            self.planned = None

    @rule()
    def count_a_step(self) -> None:
        if self.count is None and not self.index.is_counted:
            self.count = self.index.counting(step_keys=1)
        if self.count is not None and next(self.count, "done") == "done":
            assert self.index.is_counted
            self.count = None

    @rule(ask=st.booleans())
    def count_now(self, ask: bool) -> None:
        if ask:
            assert self.index.count >= 0

    @rule()
    def restart(self) -> None:
        """All that is written is found again by a new index; the rest is lost with the process."""
        self.written()
        self.all -= self.pending
        self.pending = set()
        self.count = None
        self._open()

    @invariant()
    def keys_are_those_of_the_windows(self) -> None:
        if not hasattr(self, "all"):
            return
        keys = sorted({key for key, _ in self.all})
        assert list(self.index.keys()) == keys
        for prefix in ("", "a", "a\x00", "b"):
            for after in (None, "", "a", "a\x00", "m"):
                wanted = [key for key in keys if key.startswith(prefix) and (after is None or key > after)]
                assert list(self.index.keys(prefix, after)) == wanted
        assert all(self.index.has_key(key) == (key in keys) for key in NAMES)

    @invariant()
    def keys_at_a_start_are_its_own(self) -> None:
        if not hasattr(self, "all"):
            return
        for start in STARTS:
            wanted = sorted(key for key, begin in self.all if begin == start)
            assert list(self.index.keys_at(start)) == wanted
            assert list(self.index.keys_at(start, "a")) == [key for key in wanted if key > "a"]
        assert {start for _, start in self.all} <= self.index.open

    @invariant()
    def the_count_is_exact_where_it_is_known(self) -> None:
        if hasattr(self, "all") and self.index.is_counted:
            leaving = self.planned[1] if self.planned is not None else set()
            assert self.index.count == len({key for key, _ in self.all - leaving})


IndexMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, phases=(Phase.generate,)
)
TestIndex = IndexMachine.TestCase


def test_a_key_with_many_windows_is_stepped_over(monkeypatch: pytest.MonkeyPatch):
    store = MemoryStore()
    rows = [(data_key(key, start), b"v") for key in NAMES for start in range(50)]
    store.write(WriteSet(rows))
    seen: list[bytes] = []
    scan = store.scan

    def counted(start: bytes, end: bytes, *, reverse: bool = False) -> Any:
        for pair in scan(start, end, reverse=reverse):
            seen.append(pair[0])
            yield pair

    monkeypatch.setattr(store, "scan", counted)
    index = WindowIndex(store, windowed=False, first_open=None)
    assert list(index.keys()) == sorted(NAMES)
    assert len(seen) < len(NAMES) * (index_module._STEPS_BEFORE_SKIP + 3)


def test_a_count_that_was_not_written_is_counted_when_asked_for():
    store = MemoryStore()
    store.write(WriteSet([(data_key("a", 0), b"v"), (data_key("a", 60), b"v"), (data_key("b", 0), b"v")]))
    index = WindowIndex(store, windowed=False, first_open=None)
    assert not index.is_counted
    assert index.count == 2
    changes = WriteSet()
    index.plan(changes, ())
    assert (KEY_COUNT_KEY, b"2") in changes.puts


@given(st.lists(st.text(max_size=4), max_size=30), st.text(max_size=2), st.none() | st.text(max_size=3))
def test_keys_are_in_the_order_of_text(names: list[str], prefix: str, after: str | None):
    store = MemoryStore()
    store.write(WriteSet([(data_key(name, 0), b"v") for name in names[::2]]))
    index = WindowIndex(store, windowed=False, first_open=None)
    for name in names[1::2]:
        index.add(name, 0)
    wanted = sorted({name for name in names if name.startswith(prefix) and (after is None or name > after)})
    assert list(index.keys(prefix, after)) == wanted
