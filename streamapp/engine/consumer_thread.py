"""The thread in which aiokafka's consumer runs, and the calls into it.

This module touches private members of Faust, mode and aiokafka. Each use says why; tests/integration/
test_engine_contract.py fails with the name of what changed when the pinned version does.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiokafka
from aiokafka.errors import CommitFailedError, ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import QueueServiceThread
from mode.utils.futures import maybe_set_exception, maybe_set_result

from streamapp.engine.connections import mend_connections
from streamapp.engine.fetching import hand_out_batches
from streamapp.engine.membership import MemberCoordinator
from streamapp.engine.pacing import Pace, PacedFetches
from streamapp.errors import FencedError

#: how long one fetch waits for records; an idle partition's freshness is at most this old
FETCH_WAIT_MS = 250


class CallableThread(QueueServiceThread):  # type: ignore[misc]
    """A thread whose callers are told when it has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._calls: set[asyncio.Future[Any]] = set()

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Run a method in the thread and wait for it.

        A crash ends the thread before the services that call it: the stock method would wait for ever for what is
        queued behind its end, and a worker with a full disk would neither work nor stop.

        Raises:
            ConsumerStoppedError: the thread ended first.
        """
        promise = self._promise()
        await self.method_queue.call(promise, fun, *args, **kwargs)
        return await promise

    def _promise(self) -> "asyncio.Future[Any]":
        if self._shutdown.is_set():  # the event that the thread sets when it has ended
            raise ConsumerStoppedError
        promise: asyncio.Future[Any] = self.parent_loop.create_future()
        self._calls.add(promise)
        promise.add_done_callback(self._calls.discard)
        return promise

    def set_shutdown(self) -> None:
        """The thread has ended: so does everything that waits for it."""
        super().set_shutdown()
        self.parent_loop.call_soon_threadsafe(self._end_calls)

    def _stopped_set(self) -> None:
        # the stock method raises where the thread ended by itself and its loop is closed
        with contextlib.suppress(RuntimeError):
            super()._stopped_set()

    def _end_calls(self) -> None:
        for promise in list(self._calls):
            if not promise.done():
                promise.set_exception(ConsumerStoppedError())


class LaneConsumerThread(CallableThread, driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The consumer's thread, with shorter and paced fetches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetches: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks only weakly
        self._pace = Pace(0.0, 0)
        self._paced: PacedFetches | None = None

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        mend_connections()
        consumer = super()._create_worker_consumer(transport)
        # Faust fixes fetch_max_wait_ms at 1500; the fetcher reads this attribute when the consumer starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        hand_out_batches(consumer)
        # Faust's one time-out has to outlast a rebalance; see membership for what of that is left to joins
        consumer._client._request_timeout_ms = self.consumer.app.settings.kafka_request_timeout_ms
        # Faust reads its own setting when the app is made, before there is a directory that could remember an identity
        consumer._group_instance_id = self.consumer.app.instance_id or None
        return consumer

    def pace(self, pace: Pace) -> None:
        """How fetches follow each other from now on; from any thread."""
        self._pace = pace
        if self._paced is not None:
            self._paced.pace = pace

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Records of these partitions, as soon as there are any.

        The stock method goes through the queue of calls, whose workers make several tasks for each: at hundreds of
        fetches a second that is a third of what fetching costs. A fetch need not keep its order among other calls.

        Returns:
            Partition -> its batches, which are taken: the next fetch goes on behind them. Empty where it was ended.

        Raises:
            ConsumerStoppedError: the thread ended first.
        """
        return await self._call_soon(self._begin_fetch, active_partitions, timeout)

    async def end_fetches(self) -> None:
        """End the fetches that are waiting; what they had taken by then has been handed to their callers.

        One that waits takes what comes first, also from a position that was set, and of an assignment that was made, since
        it began, and its caller drops what it does not expect.
        """
        with contextlib.suppress(ConsumerStoppedError):  # then there are none
            await self._call_soon(self._begin_end)

    async def set_position(self, tp: TP, offset: int) -> None:
        """Go on reading there, unless the partition is not assigned (any more): then the next assignment decides.

        The stock method does it from the caller's thread, while aiokafka may be looking at the same places.

        Raises:
            ConsumerStoppedError: the thread ended first.
        """
        await self._call_soon(self._begin_seek, tp, offset)

    def _begin_seek(self, promise: "asyncio.Future[Any]", tp: TP, offset: int) -> None:
        try:
            if tp in self.assignment():
                self.seek(tp, offset)
        except Exception as problem:
            self.parent_loop.call_soon_threadsafe(maybe_set_exception, promise, problem)
        else:
            self.parent_loop.call_soon_threadsafe(maybe_set_result, promise, None)

    async def _call_soon(self, begin: Callable[..., None], *args: Any) -> Any:
        """Begin something in the thread, in the order of these calls, and wait for what it promises."""
        promise = self._promise()
        try:
            self.thread_loop.call_soon_threadsafe(begin, promise, *args)
        except RuntimeError:  # its loop was closed just now
            raise ConsumerStoppedError from None
        return await promise

    def _begin_fetch(self, promise: "asyncio.Future[Any]", active: set[TP] | None, timeout: float) -> None:
        task = self.thread_loop.create_task(self._fetch(active, timeout))
        self._fetches.add(task)
        task.add_done_callback(functools.partial(self._fetched, promise))

    async def _fetch(self, active: set[TP] | None, timeout: float) -> Any:
        consumer = self._ensure_consumer()
        most = consumer._max_poll_records  # as the stock method
        found = await self._fetch_records(consumer, active, timeout=timeout, max_records=most)
        if self._paced is not None:
            self._paced.took(sum(max(batch.count, 1) for batches in found.values() for batch in batches))
        return found

    def _fetched(self, promise: "asyncio.Future[Any]", task: "asyncio.Task[Any]") -> None:
        self._fetches.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self.parent_loop.call_soon_threadsafe(maybe_set_exception, promise, problem)
        else:
            found = {} if task.cancelled() else task.result()
            self.parent_loop.call_soon_threadsafe(maybe_set_result, promise, found)

    def _begin_end(self, promise: "asyncio.Future[Any]") -> None:
        waiting = list(self._fetches)
        for fetch in waiting:
            fetch.cancel()

        def done(_: Any) -> None:  # after their own callbacks
            self.parent_loop.call_soon_threadsafe(maybe_set_result, promise, None)

        asyncio.gather(*waiting, return_exceptions=True).add_done_callback(done)

    async def commit_told(self, commits: Mapping[TP, tuple[int, str]]) -> bool:
        """Commit positions, each with its metadata; False where nothing of it is assigned, or a rebalance came between."""
        return bool(await self.call_thread(self._commit_told, commits))

    async def _commit_told(self, commits: Mapping[TP, tuple[int, str]]) -> bool:
        # in the place of the stock `_commit`, whose metadata is always empty; the same failures end in the same way
        assigned = self.assignment()
        wanted = {
            driver.ensure_aiokafka_TP(tp): driver.OffsetAndMetadata(offset, told)
            for tp, (offset, told) in commits.items()
            if tp in assigned
        }
        if not wanted:
            return False
        try:
            await self._ensure_consumer().commit(wanted)
        except Exception as problem:
            if isinstance(problem, CommitFailedError) and "already rebalanced" in str(problem):
                return False
            self.log.exception("Committing raised exception: %r\nCurrent assignment: %r", problem, assigned)
            await self.crash(problem)
            return False
        return True

    async def on_start(self) -> None:
        """Start, and watch over the membership."""
        await super().on_start()
        assert self._consumer is not None
        # its fetcher is made when it starts; there is no other way to it
        self._paced = PacedFetches(self._consumer._fetcher, self._pace)
        coordinator = self._consumer._coordinator
        if isinstance(coordinator, MemberCoordinator):
            app = self.consumer.app

            def fenced(problem: FencedError) -> None:
                app.loop.call_soon_threadsafe(app.fail, problem)

            join_timeout_s = self._consumer._request_timeout_ms / 1000  # Faust's own, which the client does not keep
            coordinator.watch(app.engine.lease, app.clock, fenced, join_timeout_s=join_timeout_s)
