"""Copies of other workers' partitions, whatever fails on the way."""

import asyncio
import socket
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.clock import SystemClock
from streamapp.engine import standby
from streamapp.engine.changelog import ChangelogReader, Chunk
from streamapp.engine.standby import Standbys
from streamapp.errors import KafkaError, StateError
from streamapp.settings import Settings
from streamapp.state.entry import Entry, data_key
from streamapp.state.store import MemoryStore, WriteSet
from tests.fakes.crashes import Message

LOG = [Message(offset, data_key(f"k{offset}", 0), Entry([offset], offset, [offset]).encode()) for offset in range(30)]
STEP = 10


class Reader:
    """Brings the log in steps; the first connections fail."""

    refusals = 0

    def __init__(self, _settings: Settings, positions: Mapping[Any, int]) -> None:
        self._positions = dict(positions)

    async def __aenter__(self) -> "Reader":
        if Reader.refusals:
            Reader.refusals -= 1
            raise KafkaError("no broker")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def next(self, _timeout_s: float) -> list[Chunk]:
        await asyncio.sleep(0)
        chunks: list[Chunk] = []
        for place, begin in self._positions.items():
            records = LOG[begin : begin + STEP]
            self._positions[place] = begin + len(records)
            chunk: Any = SimpleNamespace(
                place=place,
                end=begin + len(records),
                high_watermark=len(LOG),
                nothing_here=not records,
                records=lambda records=records: records,
            )
            chunks.append(chunk)
        if not any(chunk.end < len(LOG) for chunk in chunks):
            await asyncio.sleep(0.01)
        return chunks


class Failing(MemoryStore):
    """A store whose second write fails."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, changes: WriteSet) -> None:
        self.writes += 1
        if self.writes == 2:
            raise StateError("table", 0, "no space left on device")
        super().write(changes)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(standby, "ChangelogReader", Reader)
    monkeypatch.setattr(standby, "_RETRY_S", 0.01)
    return SimpleNamespace(name="table", changelog_topic="changelog", definition=SimpleNamespace(window=None))


async def until(met: Any) -> None:
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 - another thread brings it about
            await asyncio.sleep(0.01)


def keys(store: MemoryStore) -> int:
    return sum(1 for _ in store.scan(b"d", b"e"))


async def test_copy_whose_write_failed_goes_on_from_what_it_holds(table: Any) -> None:
    store = Failing()
    copies = Standbys(Settings(), SystemClock())
    copies.add(table, 0, store, 0)
    copies.resume()
    await until(lambda: store.writes == 2)
    # the next rebalance
    await copies.pause()
    assert keys(store) == STEP
    copies.resume()
    await until(lambda: keys(store) == len(LOG))
    await copies.pause()
    assert copies.take("table", 0) is store
    await copies.stop()


async def test_stores_are_asked_once_per_rebalance_where_they_stand(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Noted(standby.Replay):
        def __init__(self, store: MemoryStore, **begin: Any) -> None:
            asked.append(store)
            super().__init__(store, **begin)

    monkeypatch.setattr(standby, "Replay", Noted)
    stores = [MemoryStore(), MemoryStore()]
    copies = Standbys(Settings(), SystemClock())
    copies.add(table, 0, stores[0], 0)
    copies.resume()
    await copies.pause()
    assert asked == stores[:1]
    copies.add(table, 1, stores[1], 0)
    copies.resume()
    await copies.stop()
    assert asked == [stores[0], *stores]


async def test_copies_wait_for_brokers_that_cannot_be_reached(table: Any) -> None:
    Reader.refusals = 3
    store = MemoryStore()
    copies = Standbys(Settings(), SystemClock())
    copies.add(table, 0, store, 0)
    copies.resume()
    await until(lambda: keys(store) == len(LOG))
    await copies.stop()


async def test_reader_says_as_one_of_our_errors_that_no_broker_is_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        settings = Settings(kafka_brokers=f"127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(KafkaError, match="cannot be read"):
            async with ChangelogReader(settings, {("changelog", 0): 0}):
                pass
