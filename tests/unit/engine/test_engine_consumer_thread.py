"""Calls into the consumer's thread end with it, whatever it is in the middle of."""

import asyncio
import threading

import pytest
from aiokafka.errors import ConsumerStoppedError

from streamapp.engine.consumer_thread import CallableThread

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
