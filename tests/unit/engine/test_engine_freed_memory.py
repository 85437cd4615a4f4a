"""When freed memory goes back to the system."""

import pytest

from streamapp.engine import process
from streamapp.engine.freed_memory import FreedMemory


class Bench:
    def __init__(self) -> None:
        self.released = self.changes = 0
        self.memory = FreedMemory(self._release)

    def _release(self) -> None:
        self.released += 1

    async def checkpoints(self, *sizes: int) -> int:
        """How often memory was given back after checkpoints of so many windows."""
        before = self.released
        for size in sizes:
            self.changes += size
            await self.memory.look(self.changes)
        return self.released - before


async def test_memory_goes_back_once_after_a_load_and_not_while_it_lasts():
    bench = Bench()
    assert await bench.checkpoints(20_000, 50_000, 30_000) == 0
    assert await bench.checkpoints(5_000, 0, 0, 100) == 1
    assert await bench.checkpoints(10_000, 0) == 1


async def test_a_steady_load_gives_nothing_back():
    bench = Bench()
    assert await bench.checkpoints(*[40_000, 30_000, 50_000] * 10) == 0
    assert await Bench().checkpoints(*[200, 0, 9_999] * 20) == 0


async def test_partitions_that_leave_are_no_load():
    bench = Bench()
    await bench.checkpoints(50_000, 0)
    bench.changes = 0
    assert await bench.checkpoints(0, 200, 0) == 0


@pytest.mark.parametrize("has_glibc", [True, False])
def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch, has_glibc: bool):
    trimmed: list[int] = []

    class Libc:
        malloc_trim = staticmethod(trimmed.append)

    monkeypatch.setattr(process, "_has_glibc", lambda: has_glibc)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: Libc)
    process.release_freed_memory()
    assert trimmed == ([0] if has_glibc else [])
