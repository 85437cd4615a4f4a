"""The store on disk behaves as the store in memory does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.engine.rocks import RocksFactory, RocksStore
from streamapp.errors import StateError
from streamapp.state.entry import data_key
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore, StateStore, WriteSet
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Tumbling
from tests.fakes.crashes import Event, batch, definition

KEYS = [b"a", b"b", b"b\x00", b"b\xff", b"c", b"", b"\x00", b"\xff\xff"]


@pytest.fixture(params=["rocks", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    found: StateStore = RocksFactory(tmp_path).open("table", 0) if request.param == "rocks" else MemoryStore()
    yield found
    found.close()


def test_scans_hold_their_start_and_not_their_end_both_ways(store: StateStore):
    store.write(WriteSet([(key, b"v" + key) for key in KEYS]))
    for low in KEYS:
        for high in KEYS:
            wanted = [(key, b"v" + key) for key in sorted(KEYS) if low <= key < high]
            assert list(store.scan(low, high)) == wanted
            assert list(store.scan(low, high, reverse=True)) == wanted[::-1]


def test_a_missing_key_is_none_and_an_empty_value_is_not(store: StateStore):
    store.write(WriteSet([(b"t", b"")]))
    assert store.get(b"t") == b""
    assert store.get(b"u") is None


def test_marks_are_keys_with_nothing_behind_them(store: StateStore):
    changes = WriteSet([(b"a", b"1")], bulk={b"b": b"2"}, marks=[b"t", b"u"])
    assert changes.puts_count == 4
    store.write(changes)
    assert list(store.scan(b"a", b"z")) == [(b"a", b"1"), (b"b", b"2"), (b"t", b""), (b"u", b"")]


def test_deletes_come_after_puts(store: StateStore):
    store.write(WriteSet([(b"a", b"1"), (b"b", b"1")]))
    store.write(WriteSet([(b"a", b"2"), (b"c", b"2")], [b"a", b"never"]))
    assert list(store.scan(b"a", b"z")) == [(b"b", b"1"), (b"c", b"2")]


def test_a_scan_goes_on_while_the_store_is_written(store: StateStore):
    store.write(WriteSet([(b"a", b"1"), (b"b", b"1"), (b"c", b"1")]))
    scan = store.scan(b"a", b"z")
    assert next(scan) == (b"a", b"1")
    store.write(WriteSet([(b"bb", b"2")]))
    assert [key for key, _ in scan][-1] == b"c"


def test_what_was_written_is_there_after_reopening(tmp_path: Path):
    factory = RocksFactory(tmp_path)
    store = factory.open("table", 0)
    state = PartitionState(definition(Tumbling(10, 0, 1_000), Candle()), 0, store)
    state.apply(batch([Event("a", 5), Event("b\x00", 15)]))
    plan = state.prepare_flush("c", ("i",), (-1,))
    assert plan is not None
    state.complete_flush(plan, 7)
    store.close()
    again = PartitionState(state.definition, 0, factory.open("table", 0))
    assert again.keys() == ["a", "b\x00"]
    assert again.changelog_offset == 7
    assert again.store.get(data_key("a", 0)) is not None
    again.store.close()


def test_a_store_that_another_holds_cannot_be_opened_and_the_message_names_it(tmp_path: Path):
    factory = RocksFactory(tmp_path)
    store = factory.open("table", 3)
    with pytest.raises(
        StateError, match=r"table table, partition 3: cannot open the local state at .*table/3"
    ) as problem:
        factory.open("table", 3)
    assert (problem.value.table, problem.value.partition) == ("table", 3)
    store.close()
    factory.open("table", 3).close()


def test_a_write_that_the_disk_refuses_says_what_to_do(tmp_path: Path):
    store = RocksFactory(tmp_path).open("table", 0)

    class Refusing:
        def write(self, changes: object) -> None:
            raise Exception("IO error: No space left on device")  # as rocksdict raises it

        def close(self) -> None: ...

    assert isinstance(store, RocksStore)
    store.close()
    store._db = Refusing()
    with pytest.raises(StateError, match=r"No space left .* free some disk space"):
        store.write(WriteSet([(b"a", b"1")]))


def test_a_removed_store_is_gone(tmp_path: Path):
    factory = RocksFactory(tmp_path)
    store = factory.open("table", 0)
    store.write(WriteSet([(b"a", b"1")]))
    store.close()
    factory.remove("table", 0)
    again = factory.open("table", 0)
    assert again.get(b"a") is None
    again.close()


def test_a_store_is_let_go_of_though_somebody_is_in_the_middle_of_a_scan(tmp_path: Path) -> None:
    factory = RocksFactory(tmp_path)
    store = factory.open("table", 0)
    store.write(WriteSet([(b"%d" % number, b"") for number in range(9)]))
    ahead, back = store.scan(b"0", b"9"), store.scan(b"0", b"9", reverse=True)
    assert (next(ahead)[0], next(back)[0]) == (b"0", b"8")
    store.close()
    again = factory.open("table", 0)
    assert len(list(again.scan(b"0", b"9"))) == 9
    for scan in (ahead, back):
        with pytest.raises(StateError, match="was closed"):
            next(scan)
    again.close()
