"""What another worker's event stream says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamapp.errors import OwnerUnreachableError
from streamapp.metrics import Metrics
from streamapp.queries.following import Following
from streamapp.queries.model import Change, Freshness, Heartbeat, Reading
from streamapp.queries.positions import Position, encode
from streamapp.queries.remote_changes import events_of
from streamapp.views.pumping import Pumped
from streamapp.views.serialise import dumps

FRESH = Freshness(1, 1, 0, 1, 0, False, 0, 0, None)
READING = Reading("table", "k", None, {"count": 1}, FRESH)


class Said:
    """An answer that says these blocks, and then nothing more."""

    def __init__(self, *blocks: bytes) -> None:
        self.content = self
        self._blocks = [*blocks, b""]

    async def readuntil(self, _separator: bytes) -> bytes:
        return self._blocks.pop(0)


def answer(*blocks: bytes) -> Any:
    return Said(*blocks)


def identity(applied: int) -> str:
    return encode({(b"mark", 0): Position(1, (applied,), 0, (applied,), 0)})


async def test_heartbeat_says_how_far_the_other_worker_is() -> None:
    said = answer(
        b"retry: 1000\n\n",
        b": heartbeat\n\n",
        b"event: change\ndata: " + dumps(READING) + b"\n\n",
        b": heartbeat\nid: abc\n\n",
    )
    events = events_of(said, "http://other")
    change, heartbeat = await anext(events), await anext(events)
    with pytest.raises(OwnerUnreachableError):
        await anext(events)
    assert isinstance(change, Change)
    assert change.reading == READING
    assert heartbeat == Heartbeat("abc")


async def test_heartbeats_move_the_position_and_are_nobodys_change() -> None:
    over = asyncio.Event()

    async def parts() -> AsyncIterator[Change | Heartbeat]:
        yield Change(identity(1), "change", READING)
        yield Heartbeat(identity(5))
        over.set()
        await asyncio.Event().wait()

    pumped = Pumped(parts(), 10, Metrics())
    async with asyncio.timeout(10):
        await over.wait()
    assert [change.reading for change in pumped.take(10)] == [READING]
    assert pumped.take(10) == []
    assert [position.applied for position in pumped.told.values()] == [(5,)]
    await pumped.close()

    following = Following(None, [parts()])
    assert (await anext(following)).kind == "change"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(following)
