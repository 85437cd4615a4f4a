import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import KafkaError
from streamapp.queries import held_ends
from streamapp.queries.held_ends import HeldEnds


class Admin:
    """Answers with these ends, in turn; None is a failure."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.asked: list[list[tuple[str, int]]] = []

    async def end_offsets(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        self.asked.append(places)
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            raise KafkaError("away")
        return dict.fromkeys(places, answer)


async def looked(admin: Admin, fetched_ms: dict[int, int], monkeypatch: pytest.MonkeyPatch, looks: int) -> HeldEnds:
    """After so many looks, at second 100, over partitions that were fetched at these times."""
    monkeypatch.setattr(held_ends, "_LOOK_S", 0.001)
    clock = ManualClock(100_000)
    lanes: Any = {("t", partition): None for partition in fetched_ms}
    engine: Any = SimpleNamespace(clock=clock, lanes=lanes, admin=admin)
    ends = HeldEnds(engine, lambda _, partition: (10, fetched_ms[partition]))
    task = asyncio.create_task(ends.keep_up())
    async with asyncio.timeout(10):
        while len(admin.asked) < looks:  # noqa: ASYNC110 - it only counts
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return ends


async def test_held_partition_has_the_end_that_it_has_now(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(25, 31)
    ends = await looked(admin, {0: 100_000, 1: 60_000}, monkeypatch, 2)
    assert admin.asked[0] == [("t", 1)]
    assert ends.end(("t", 1), 10) == 31
    assert ends.end(("t", 0), 10) == 10


async def test_end_that_cannot_be_learned_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = await looked(Admin(25, None, None), {0: 60_000}, monkeypatch, 3)
    assert ends.end(("t", 0), 10) == 25


async def test_later_fetch_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = await looked(Admin(25), {0: 60_000}, monkeypatch, 1)
    assert ends.end(("t", 0), 40) == 40
