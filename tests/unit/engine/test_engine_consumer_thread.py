"""Calls into the consumer's thread end with it; what its fetches take is handed over, or taken again."""

import asyncio
import threading
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
    """The way of a fetch through the thread, in one loop; what comes is put into `coming`."""

    def __init__(self) -> None:
        self.parent_loop = asyncio.get_running_loop()
        self.coming: asyncio.Queue[Any] = asyncio.Queue()
        self._fetches, self._calls, self._paced = set(), set(), None

    @property
    def thread_loop(self) -> Any:
        return self.parent_loop

    @property
    def _shutdown(self) -> Any:
        return asyncio.Event()

    def _ensure_consumer(self) -> Any:
        return SimpleNamespace(_max_poll_records=10)

    async def _fetch_records(self, *_: Any, **__: Any) -> Any:
        found = await self.coming.get()
        if isinstance(found, Exception):
            raise found
        return found

    def fetching(self) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.getmany({TRADES}, 1.0))


async def test_a_fetch_brings_what_came_or_what_was_wrong():
    thread = Fetching()
    fetch = thread.fetching()
    thread.coming.put_nowait({TRADES: ["some"]})
    assert await asyncio.wait_for(fetch, WAIT_S) == {TRADES: ["some"]}
    fetch = thread.fetching()
    thread.coming.put_nowait(ConsumerStoppedError())
    with pytest.raises(ConsumerStoppedError):
        await asyncio.wait_for(fetch, WAIT_S)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_fetch_that_is_ended_takes_nothing(begun: bool):
    thread = Fetching()
    fetch = thread.fetching()
    async with asyncio.timeout(WAIT_S):
        while not (thread.coming._getters if begun else thread._calls):  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0)
    await asyncio.wait_for(thread.end_fetches(), WAIT_S)
    assert fetch.done() or not begun
    assert await asyncio.wait_for(fetch, WAIT_S) == {}
    thread.coming.put_nowait({TRADES: ["behind"]})
    assert await asyncio.wait_for(thread.fetching(), WAIT_S) == {TRADES: ["behind"]}


async def test_what_a_fetch_has_taken_is_handed_to_its_caller_before_fetches_have_ended():
    thread = Fetching()
    fetch = thread.fetching()
    thread.coming.put_nowait({TRADES: ["taken"]})
    async with asyncio.timeout(WAIT_S):
        while not thread.coming.empty():  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0)
    await asyncio.wait_for(thread.end_fetches(), WAIT_S)
    assert await asyncio.wait_for(fetch, WAIT_S) == {TRADES: ["taken"]}


class Lane:
    ready = True
    next_offset = 7

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes

    def offer(self, batches: Any) -> bool:
        return self.takes


@pytest.mark.parametrize("takes", [False, True])
async def test_where_a_fetch_has_left_something_out_reading_goes_on_there_and_nobody_gets_what_lies_behind(takes: bool):
    consumer: Any = LaneConsumer.__new__(LaneConsumer)
    sought: list[tuple[str, int, int]] = []
    fed: list[list[Any]] = []

    async def seek_lane(*place: Any) -> None:
        sought.append(place)

    vars(consumer).update(
        _read_offset={},
        app=SimpleNamespace(engine=SimpleNamespace(lanes={("trades", 0): Lane(takes=takes)})),
        seek_lane=seek_lane,
        has_agents=lambda *_: True,
        _feeders={TRADES: SimpleNamespace(offer=fed.append)},
    )
    await consumer._hand_over(TRADES, [SimpleNamespace(next_offset=12, records=lambda: ["a record"])])
    assert sought == ([] if takes else [("trades", 0, 7)])
    assert fed == ([["a record"]] if takes else [])


async def test_a_fetch_without_records_begins_nothing_that_agents_would_have_to_finish():
    consumer: Any = LaneConsumer.__new__(LaneConsumer)
    vars(consumer).update(
        _read_offset={},
        app=SimpleNamespace(engine=SimpleNamespace(lanes={("trades", 0): Lane(takes=True)})),
        has_agents=lambda *_: True,
        _feeders={},
        _acks={},
    )
    await consumer._hand_over(TRADES, [SimpleNamespace(next_offset=12, records=list)])
    assert not consumer._acks


@pytest.mark.parametrize("assigned", [False, True])
async def test_a_position_is_set_in_the_thread_and_only_where_the_partition_is_assigned(assigned: bool):
    thread: Any = Fetching()
    sought: list[Any] = []
    thread.assignment = lambda: {TRADES} if assigned else set()
    thread.seek = lambda *place: sought.append(place)
    await asyncio.wait_for(thread.set_position(TRADES, 7), WAIT_S)
    assert sought == ([(TRADES, 7)] if assigned else [])


async def test_what_is_wrong_with_a_position_reaches_who_sets_it():
    thread: Any = Fetching()
    thread.assignment = lambda: {TRADES}
    with pytest.raises(AttributeError):
        await asyncio.wait_for(thread.set_position(TRADES, 7), WAIT_S)
