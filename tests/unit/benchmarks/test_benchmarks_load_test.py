"""From when on a latency counts, where requests are due at fixed instants."""

import pytest

from benchmarks import load_test as module

#: an event loop's timer
_LATE_S = 0.002


class Clock:
    """Stands for the modules `time` and `asyncio`: whoever sleeps goes on a little late."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + _LATE_S


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "asyncio", clock)
    return clock


async def test_a_late_timer_is_no_part_of_a_latency(clock: Clock):
    assert await module.until_due(100.5) == clock.now == 100.5 + _LATE_S


async def test_a_request_that_waited_for_the_answer_before_counts_from_its_own_instant(clock: Clock):
    clock.now = 100.7
    assert await module.until_due(100.5) == 100.5
    assert clock.now == 100.7
