"""Calls into the consumer's thread end with it; what its fetches bring is of the position that was set last."""

import asyncio
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import ConsumerStoppedError
from faust.types import TP

from streamapp.engine.consumer_thread import CallableThread, LaneConsumerThread
from streamapp.engine.transport import LaneConsumer

WAIT_S = 20


class Thread(CallableThread):
    """Stops as aiokafka's does: when its queue of calls is closed there is still something to be done."""

    wait_for_shutdown = True

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()
        self.may_end = threading.Event()

    async def on_thread_stop(self) -> None:
        await super().on_thread_stop()
        self.closed.set()
        await asyncio.to_thread(self.may_end.wait, WAIT_S)


async def _answer(value: int) -> int:
    return value


def _crash(thread: Thread) -> None:
    # what a crash does to every service: the thread ends by itself, nobody has stopped its callers yet
    thread._crash(RuntimeError("the disk is full"))


async def test_a_call_gets_its_answer():
    thread = Thread()
    await thread.start()
    thread.may_end.set()
    try:
        assert await asyncio.wait_for(thread.call_thread(_answer, 3), WAIT_S) == 3
    finally:
        await thread.stop()


async def test_a_call_that_nobody_takes_any_more_is_told():
    thread = Thread()
    await thread.start()
    _crash(thread)
    assert await asyncio.to_thread(thread.closed.wait, WAIT_S)
    call = asyncio.ensure_future(thread.call_thread(_answer, 3))
    done, _ = await asyncio.wait({call}, timeout=0.1)
    assert not done
    thread.may_end.set()
    with pytest.raises(ConsumerStoppedError):
        await asyncio.wait_for(call, WAIT_S)
    await thread.stop()


async def test_a_call_after_the_end_is_refused():
    thread = Thread()
    await thread.start()
    thread.may_end.set()
    _crash(thread)
    await asyncio.wait_for(thread._shutdown.wait(), WAIT_S)
    with pytest.raises(ConsumerStoppedError):
        await asyncio.wait_for(thread.call_thread(_answer, 3), WAIT_S)
    await thread.stop()


TRADES = TP("trades", 0)


class Fetching(LaneConsumerThread):
    """The way of a fetch through the thread, without a thread."""

    def __init__(self, *answers: Any) -> None:
        self.parent_loop = asyncio.get_running_loop()
        self.seeks, self._paced, self.answers = Counter(), None, list(answers)

    def _ensure_consumer(self) -> Any:
        return SimpleNamespace(_max_poll_records=10)

    async def _fetch_records(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)
        return self.answers.pop(0)

    async def fetched(self) -> Any:
        promise = self.parent_loop.create_future()
        await self._fetch(promise, {TRADES}, 1.0)
        return await promise


async def test_what_a_fetch_has_taken_says_whether_the_position_was_set_since():
    thread = Fetching({TRADES: ["before"]}, {TRADES: ["behind"]})
    before = await thread.fetched()
    thread.seeks["trades", 0] += 1
    assert await thread.fetched() == {TRADES: (1, ["behind"])}
    assert before == {TRADES: (0, ["before"])}


async def test_records_from_before_a_lanes_position_was_set_are_handed_to_nobody():
    consumer: Any = LaneConsumer.__new__(LaneConsumer)
    handed: list[Any] = []
    fetcher = SimpleNamespace(_stopped=asyncio.Event())
    answers = [{TRADES: (1, ["before"])}, {TRADES: (2, ["behind"])}, {}]

    async def getmany(**_: Any) -> Any:
        if len(answers) == 1:
            fetcher._stopped.set()
        return answers.pop(0)

    vars(consumer).update(
        flow_active=True,
        _stopped=asyncio.Event(),
        _thread=SimpleNamespace(seeks=Counter({("trades", 0): 2})),
        _fetchable=lambda: ({TRADES}, False),
        _getmany=getmany,
        _hand_over=lambda tp, batches: handed.append((tp, batches)),
        _watches_idle=False,
        _batching=SimpleNamespace(look=lambda lanes: False),
        app=SimpleNamespace(engine=SimpleNamespace(lanes={})),
    )
    async with asyncio.timeout(WAIT_S):
        await consumer._drain_messages(fetcher)
    assert handed == [(TRADES, ["behind"])]
