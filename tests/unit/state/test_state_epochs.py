"""Records of an owner that was replaced are not believed, wherever they lie."""

import random
from collections.abc import Sequence

import pytest

from streamapp.state.entry import CHECKPOINT_KEY, Entry, data_key
from streamapp.state.epochs import (
    EPOCH_HEADER,
    EPOCH_KEY,
    claim_value,
    epoch_bytes,
    epoch_number,
    epoch_of,
    next_epoch,
    restamped,
)
from streamapp.state.replay import Replay
from streamapp.state.store import MemoryStore
from tests.fakes.crashes import Message, compacted

A, B, C = (data_key(key, 0) for key in "abc")
Written = tuple[bytes, bytes | None, int]


def value(offset: int, epoch: int) -> bytes:
    return Entry([offset], 5, [float(offset)]).encode(epoch_bytes(epoch))


def put(key: bytes, offset: int, epoch: int) -> Written:
    return key, value(offset, epoch), epoch


def claim(epoch: int) -> Written:
    return EPOCH_KEY, claim_value(epoch_bytes(epoch), "somebody"), epoch


def log_of(*written: Written) -> list[Message]:
    """As the owners of these epochs write it."""
    told = [
        ((EPOCH_HEADER, epoch_bytes(epoch)),) if raw is None or key == CHECKPOINT_KEY else ()
        for key, raw, epoch in written
    ]
    return [Message(at, *pair[:2], headers) for at, (pair, headers) in enumerate(zip(written, told, strict=True))]


def replayed(log: Sequence[Message], store: MemoryStore | None = None, chunk: int = 100) -> tuple[MemoryStore, Replay]:
    store = store or MemoryStore()
    replay = Replay(store, windowed=True)
    missing = [message for message in log if message.offset >= replay.position]
    for first in range(0, len(missing), chunk):
        part = missing[first : first + chunk]
        store.write(replay.take(part, part[-1].offset + 1))
    return store, replay


def offsets(store: MemoryStore) -> dict[bytes, int]:
    return {key: Entry.decode(raw).offsets[0] for key, raw in store.scan(b"d", b"e")}


def test_epochs_compare_as_bytes_and_count_on() -> None:
    assert epoch_bytes(255) < epoch_bytes(256) < epoch_bytes(1 << 24)
    assert epoch_number(next_epoch(epoch_bytes(41))) == 42


def test_value_says_the_same_in_the_name_of_another_epoch() -> None:
    again = restamped(A, value(7, 1), epoch_bytes(2))
    assert again == value(7, 2)
    assert epoch_of(Message(0, A, again)) == epoch_bytes(2)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_late_write_of_a_replaced_owner_is_ignored_and_its_key_doubted(chunk: int) -> None:
    log = log_of(
        claim(1), put(A, 10, 1), put(B, 11, 1), (CHECKPOINT_KEY, b"one", 1),
        claim(2), put(A, 20, 2), (CHECKPOINT_KEY, b"two", 2),
        put(A, 12, 1), (B, None, 1), put(C, 13, 1), (CHECKPOINT_KEY, b"late", 1),
    )  # fmt: skip
    store, replay = replayed(log, chunk=chunk)
    assert offsets(store) == {A: 20, B: 11}
    assert store.get(CHECKPOINT_KEY) == b"two"
    assert replay.doubted == {A, B, C, CHECKPOINT_KEY}
    assert replay.epoch == epoch_bytes(2)
    # and it is not forgotten by the one that goes on from there
    again = Replay(store, windowed=True)
    assert (again.doubted, again.epoch) == (replay.doubted, replay.epoch)


@pytest.mark.parametrize("chunk", [1, 100])
def test_owner_that_says_it_again_ends_the_doubt(chunk: int) -> None:
    log = log_of(claim(1), put(A, 10, 1), claim(2), put(A, 12, 1), put(A, 10, 2))
    store, replay = replayed(log, chunk=chunk)
    assert offsets(store) == {A: 10}
    assert not replay.doubted
    assert not list(store.scan(b"m:doubted:", b"m:doubted;"))


def test_what_the_former_owner_wrote_before_the_claim_counts() -> None:
    store, replay = replayed(log_of(claim(1), put(A, 10, 1), put(B, 11, 1), claim(2)))
    assert offsets(store) == {A: 10, B: 11}
    assert not replay.doubted


def test_claim_that_comes_too_late_is_none() -> None:
    store, replay = replayed(log_of(claim(1), put(A, 10, 1), claim(3), claim(2), put(A, 20, 2), put(A, 30, 3)))
    assert offsets(store) == {A: 30}
    assert replay.epoch == epoch_bytes(3)


def test_any_log_with_its_repairs_is_the_same_whole_in_chunks_and_compacted() -> None:
    """Owners follow each other; replaced ones write on; each owner says again what it finds doubted when it takes over."""
    chance = random.Random(11)
    keys = [A, B, C]
    for _ in range(400):
        written: list[Written] = []
        truth: dict[bytes, int] = {}
        clock = 0
        for epoch in range(1, chance.randint(2, 6)):
            written.append(claim(epoch))
            for _ in range(chance.randint(0, 12)):
                clock += 1
                key = chance.choice(keys)
                if chance.random() < 0.3 and epoch > 1:  # a late write: a value, a deletion or a checkpoint
                    stale = chance.randint(1, epoch - 1)
                    late = chance.choice([put(key, clock, stale), (key, None, stale), (CHECKPOINT_KEY, b"x", stale)])
                    written.append(late)
                    continue
                if chance.random() < 0.2:
                    written.append((key, None, epoch))
                    truth.pop(key, None)
                else:
                    written.append(put(key, clock, epoch))
                    truth[key] = clock
            # before it goes, or when the next one comes, what is doubted is said again
            store, replay = replayed(log_of(*written), chunk=chance.randint(1, 5))
            assert offsets(store) == truth
            for key in sorted(replay.doubted - {CHECKPOINT_KEY}):
                raw = store.get(key)
                written.append((key, None if raw is None else restamped(key, raw, epoch_bytes(epoch)), epoch))
        log = log_of(*written)
        for chunk in (1, 2, 100):
            assert offsets(replayed(log, chunk=chunk)[0]) == truth
        assert offsets(replayed(compacted(log), chunk=chance.randint(1, 5))[0]) == truth
