"""Whether a load was the one that was meant is found out by its own records."""

import math
from typing import Any

import pytest

from benchmarks import load as module
from benchmarks.load import OverloadError, SteadyLoad, behind_limit_s
from benchmarks.processes import Mark, ProgramError
from benchmarks.worker import Tally, tally

_RATE = 1_000.0
#: on the topic before the load began
_BEFORE = 50_000.0
_LOOK_COST_S = 0.02


class Clock:
    """Stands for the modules `time` and `asyncio`: time passes by sleeping and by looking."""

    def __init__(self) -> None:
        self.now = 7_000.0

    def perf_counter(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Sender:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.began = 0.0
        self.stopped = False
        self.dead = False

    async def start(self) -> None:
        self.began = self.clock.now

    async def mark(self, name: str, _: float) -> Mark:
        return Mark(name, {"at": self.began}, self.clock.now)

    def marks_so_far(self, name: str) -> list[Mark]:
        return [Mark(name, {"sent": 700, "delivered": 500, "behind": 0}, 0.0)]

    def check_alive(self) -> None:
        if self.dead:
            raise ProgramError("load ended with code 1; its log ends with: DeliveryError")

    async def stop(self, *, hard: bool = False) -> None:
        self.stopped = hard


class Consumer:
    """A worker that applies what was due `behind_s` ago, and so much of it."""

    def __init__(self, clock: Clock, sender: Sender) -> None:
        self.clock = clock
        self.sender = sender
        self.behind_s = 0.3
        self.share = 1.0
        self.paused_until_s = 0.0
        self.answers = True

    async def metric(self, _: str) -> float | None:
        return await self.applied() if self.answers else None

    async def applied(self) -> float:
        self.clock.now += _LOOK_COST_S
        since = self.clock.now - self.sender.began
        if not self.sender.began or since < self.paused_until_s:
            return _BEFORE
        return _BEFORE + self.share * max(0.0, since - self.behind_s) * _RATE

    async def tally(self) -> Tally:
        return Tally(await self.applied(), 76.0, 3.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "asyncio", clock)
    return clock


@pytest.fixture
def sender(clock: Clock) -> Sender:
    return Sender(clock)


@pytest.fixture
def worker(clock: Clock, sender: Sender) -> Consumer:
    return Consumer(clock, sender)


@pytest.fixture
def load(sender: Any, worker: Any) -> SteadyLoad:
    return SteadyLoad(sender, _RATE, worker)


@pytest.mark.parametrize("behind_s", [0.0, 0.3, 0.8])
async def test_load_that_is_kept_up_with_has_its_own_rate(
    load: SteadyLoad, clock: Clock, sender: Sender, worker: Consumer, behind_s: float
) -> None:
    worker.behind_s = behind_s
    async with load:
        begin = await load.settled()
        clock.now += 2.0
        applied = await load.kept_up(begin)
    assert begin.records < _BEFORE  # of the load alone
    assert applied == pytest.approx(_RATE, rel=0.1)
    assert sender.stopped


async def test_pause_at_the_end_of_a_short_measurement_is_waited_for(
    load: SteadyLoad, clock: Clock, worker: Consumer
) -> None:
    async with load:
        begin = await load.settled()
        clock.now += 2.0
        # a count at this moment is two tenths short
        worker.behind_s = 0.7
        assert await load.kept_up(begin) == pytest.approx(_RATE, rel=0.2)


async def test_backlog_is_worked_off_before_anything_is_measured(
    load: SteadyLoad, clock: Clock, worker: Consumer
) -> None:
    worker.paused_until_s = 6.0
    async with load:
        begin = await load.settled()
        assert begin.due_at >= clock.now - module.BEHIND_MIN_S
        assert begin.due_at - worker.sender.began >= worker.paused_until_s - module.BEHIND_MIN_S
        clock.now += 2.0
        assert await load.kept_up(begin) == pytest.approx(_RATE, rel=0.2)


@pytest.mark.parametrize(("seconds", "share"), [(2.0, 0.5), (8.0, 0.85), (20.0, 0.88)])
async def test_worker_that_does_less_than_the_load_is_no_measurement(
    load: SteadyLoad, clock: Clock, worker: Consumer, seconds: float, share: float
) -> None:
    async with load:
        begin = await load.settled()
        done = await worker.applied()
        # all of what came before the measurement, and that share of what comes in it
        worker.share = (done - _BEFORE + share * seconds * _RATE) / (done - _BEFORE + seconds * _RATE)
        clock.now += seconds
        with pytest.raises(OverloadError) as raised:
            await load.kept_up(begin)
    message = str(raised.value)
    assert message.startswith(f"expected 1000 events/s to be applied within {behind_limit_s(seconds):.1f} s each, got ")
    assert "700 sent and 500 acknowledged" in message
    assert "(76 were late, 3 became dead letters)" in message
    assert 0 < raised.value.events_per_s < _RATE


async def test_worker_that_never_catches_up_is_no_measurement(load: SteadyLoad, worker: Consumer) -> None:
    worker.behind_s = 1.5
    async with load:
        with pytest.raises(OverloadError, match=r"within 1\.0 s each"):
            await load.settled()


async def test_sender_that_ended_is_named_as_the_cause(load: SteadyLoad, sender: Sender, worker: Consumer) -> None:
    worker.share, sender.dead = 0.0, True
    async with load:
        with pytest.raises(ProgramError, match="DeliveryError"):
            await load.settled()


async def test_worker_that_does_not_answer_is_no_beginning(load: SteadyLoad, worker: Consumer) -> None:
    worker.answers = False
    with pytest.raises(ProgramError, match=r"no answer of /metrics"):
        await load.__aenter__()


def test_worker_may_be_a_tenth_of_the_time_behind_and_at_least_a_second() -> None:
    assert [behind_limit_s(seconds) for seconds in (0.1, 2, 10, 20)] == [1, 1, 1, 2]


def test_tally_tells_late_records_and_dead_letters_from_those_applied() -> None:
    text = (
        'streamapp_records_applied_total{table="a"} 49924.0\n'
        'streamapp_late_records_total{table="a"} 70.0\n'
        'streamapp_dead_letters_total{reason="x",topic="t"} 4.0\n'
        'streamapp_dead_letters_total{reason="y",topic="t"} 2.0\n'
    )
    assert str(tally(text)) == "49924 (70 were late, 6 became dead letters)"
    assert tally("") == Tally(0, 0, 0)
    assert tally(text) + tally(text) == Tally(99_848, 140, 12)
    assert str(Tally(math.nan, math.nan, math.nan)) == "an unknown number, as /metrics does not answer"
