"""A changelog that is replayed into a store leaves what a store that was there all along has."""

from collections.abc import Sequence

import msgspec
import pytest

from streamapp.state.entry import CHECKPOINT_KEY, Entry, data_key, time_key
from streamapp.state.replay import REBUILD_KEY, Replay
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, MemoryStore
from tests.fakes.crashes import Message

Pair = tuple[bytes, bytes | None]


def value(offset: int, price: float = 1.0) -> bytes:
    return Entry([offset], 5, [price]).encode()


def replayed(pairs: Sequence[Pair], store: MemoryStore, *, windowed: bool = True, chunk: int = 2) -> Replay:
    replay = Replay(store, windowed=windowed)
    log = [Message(at, *pair) for at, pair in enumerate(pairs)][replay.position :]
    for first in range(0, len(log), chunk):
        part = log[first : first + chunk]
        store.write(replay.take(part, part[-1].offset + 1))
    return replay


LOG: list[Pair] = [
    (REBUILD_KEY, b"{}"),
    (data_key("a", 0), value(3)),
    (data_key("b", 0), value(9)),
    (data_key("a", 0), value(7, 2.0)),
    (data_key("b", 0), None),
    (CHECKPOINT_KEY, b"first"),
    (data_key("c", 60), value(8)),
    (CHECKPOINT_KEY, b"second"),
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_the_newest_value_of_each_key_is_kept_with_its_index_and_a_deleted_one_is_gone(chunk: int):
    store = MemoryStore()
    replay = replayed(LOG, store, chunk=chunk)
    assert dict(store.scan(b"d", b"e")) == {data_key("a", 0): value(7, 2.0), data_key("c", 60): value(8)}
    assert [key for key, _ in store.scan(b"t", b"u")] == [time_key("a", 0), time_key("c", 60)]
    assert store.get(CHECKPOINT_KEY) == b"second"
    assert store.get(REBUILD_KEY) is None
    assert (replay.position, replay.records) == (len(LOG), len(LOG))
    assert store.get(CHANGELOG_OFFSET_KEY) == b"7"


def test_a_table_without_windows_has_no_index_in_order_of_time():
    store = MemoryStore()
    replayed(LOG, store, windowed=False)
    assert not list(store.scan(b"t", b"u"))


def test_the_horizon_is_the_highest_offset_of_any_value_that_was_seen_also_in_an_earlier_chunk():
    store = MemoryStore()
    replayed(LOG, store, chunk=2)
    # 9 was seen, then deleted; that it was counted stays true
    assert msgspec.msgpack.decode(store.get(HORIZON_KEY) or b"") == [9]
    replayed([*LOG, (data_key("d", 0), value(4))], store)
    assert msgspec.msgpack.decode(store.get(HORIZON_KEY) or b"") == [9]


def test_a_replay_goes_on_where_the_store_is():
    store = MemoryStore()
    replayed(LOG[:4], store)
    assert replayed(LOG, store).records == 4
    whole = MemoryStore()
    replayed(LOG, whole)
    assert list(store.scan(b"", b"z")) == list(whole.scan(b"", b"z"))


def test_a_gap_behind_the_last_record_counts_as_taken():
    store = MemoryStore()
    replay = Replay(store, windowed=True)
    store.write(replay.take([Message(3, data_key("a", 0), value(1))], 10))
    assert (replay.position, Replay(store, windowed=True).position) == (10, 10)
    store.write(replay.take([], 12))
    assert Replay(store, windowed=True).position == 12
