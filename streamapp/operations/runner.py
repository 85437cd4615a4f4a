"""Runs operations: arguments checked, gated until the tables are restored, bounded, counted per caller."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from streamapp.clock import Clock
from streamapp.errors import BadParameterError, QueryError, RateLimitedError, RestoringError
from streamapp.metrics import Metrics
from streamapp.operations import describing, reading, waiting
from streamapp.operations.answers import Answer
from streamapp.operations.catalogue import BY_NAME, OPERATIONS
from streamapp.operations.cursors import CursorBook
from streamapp.operations.failures import bad_arguments
from streamapp.operations.source import Source, Surroundings
from streamapp.operations.summary import summarize_state
from streamapp.operations.tokens import TokenCounter, load_counter
from streamapp.queries.access import ANONYMOUS, Access, Caller
from streamapp.queries.bound import bound
from streamapp.queries.model import Queries
from streamapp.queries.trace import ON_BEHALF
from streamapp.settings import Settings

log = logging.getLogger(__name__)

Run = Callable[[Source, Any], Awaitable[Answer]]
_LOGGED_CHARS = 300
_ACCESSES_MAX = 256


class OperationTimeoutError(QueryError):
    """The answer was not ready within the request time-out."""

    code, status = "timeout", 504


class Operations:
    """All operations over one worker's `Queries`.

    Args:
        queries: answers for the whole cluster.
        settings: bounds.
        metrics: calls are counted there by operation, caller and outcome.
        clock: local time.
        counter: counts the tokens of summaries; default: what `token_counter` names.
    """

    def __init__(
        self,
        queries: Queries,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        *,
        counter: TokenCounter | None = None,
    ) -> None:
        self._queries = queries
        self._clock = clock
        self._surroundings: OrderedDict[Access, Surroundings] = OrderedDict()
        self._settings = settings
        self._metrics = metrics
        self._counter = counter
        self._book = CursorBook(settings.summary_cursors_max, settings.summary_values_max)
        self._been_ready = False
        self._waiting = 0
        self._run: dict[str, Run] = {
            "list_tables": describing.list_tables,
            "describe_table": describing.describe_table,
            "find_keys": describing.find_keys,
            "get_feed_health": describing.get_feed_health,
            "get_current": reading.get_current,
            "get_windows": reading.get_windows,
            "get_top": reading.get_top,
            "compare": reading.compare,
            "get_signals": reading.get_signals,
            "wait_for": waiting.wait_for,
            "summarize_state": self._summarize,
        }
        assert list(BY_NAME) == [one.name for one in OPERATIONS]
        assert self._run.keys() == BY_NAME.keys()

    def queries(self, caller: Caller) -> Queries:
        """The reads as a caller may make them."""
        return bound(self._queries, caller)

    def _source(self, caller: Caller) -> Source:
        shared = self._surroundings.get(caller.access)
        if shared is None:
            shared = self._surroundings[caller.access] = Surroundings()
            while len(self._surroundings) > _ACCESSES_MAX:
                self._surroundings.popitem(last=False)
        queries = self.queries(caller)
        return Source(
            queries,
            self._settings,
            self._clock,
            owner=caller.owner,
            surroundings=shared,
            again=queries if caller.unbound else self.queries(replace(caller, limits=None, trace=None)),
        )

    async def call(self, name: str, given: Mapping[str, Any], caller: Caller = ANONYMOUS) -> Answer:
        """Run one operation.

        Args:
            name: one of `catalogue.OPERATIONS`.
            given: its arguments, not checked yet.
            caller: who asks: what it may read, and the name to count it by.

        Raises:
            QueryError: the reason for which there is no answer.
        """
        now = asyncio.get_running_loop().time
        began = now()
        outcome = "internal"
        ON_BEHALF.set(caller.metric_label)
        try:
            answer = await self._answer(name, given, caller)
            outcome = "ok"
            return answer
        except QueryError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:
            # such as of an aggregate's own code; every way here tells it as what it is, not as the caller's mistake
            log.exception("%s failed", name[:100])
            raise QueryError("the call failed here; the worker's log says why") from None
        finally:
            took_s = now() - began
            label = name if name in BY_NAME else "unknown"
            if caller.trace is not None:
                caller.trace.operation, caller.trace.outcome = label, outcome
            self._metrics.operation_calls.labels(operation=label, caller=caller.metric_label, outcome=outcome).inc()
            self._metrics.operation_seconds.labels(operation=label).observe(took_s)
            log.info(
                "%s called %s: %s in %.1f ms, %s", caller.name, label, outcome, took_s * 1000, _loggable(label, given)
            )

    async def _answer(self, name: str, given: Mapping[str, Any], caller: Caller) -> Answer:
        operation = BY_NAME.get(name)
        if operation is None:
            raise BadParameterError(
                "operation", f"there is no operation {name[:100]!r}; there are: {', '.join(BY_NAME)}"
            )
        try:
            arguments = operation.arguments.model_validate(given)
        except ValidationError as problem:
            raise bad_arguments(problem) from None
        self._gate()
        run = partial(self._run[name], self._source(caller), arguments)
        if operation.waits:
            return await self._wait(run)
        timeout_s = self._settings.request_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                return await run()
        except TimeoutError:
            raise OperationTimeoutError(f"no answer within {timeout_s:g} s") from None

    def _gate(self) -> None:
        """Nothing is answered before the tables have been restored once; later each partition speaks for itself."""
        if self._been_ready:
            return
        worker = self._queries.worker()
        if not worker.ready:
            raise RestoringError(
                f"the tables are not ready: {worker.detail or 'the worker is starting'}", retry_after_s=1
            )
        self._been_ready = True

    async def _wait(self, run: Callable[[], Awaitable[Answer]]) -> Answer:
        if self._waiting >= self._settings.waits_max:
            raise RateLimitedError(f"{self._waiting} calls wait already, which is the most", retry_after_s=5)
        self._waiting += 1
        try:
            return await run()
        finally:
            self._waiting -= 1

    async def _summarize(self, source: Source, arguments: Any) -> Answer:
        if self._counter is None:
            # a tokenizer may read its vocabulary from the disk
            self._counter = await asyncio.to_thread(partial(load_counter, self._settings.token_counter))
        return await summarize_state(source, arguments, counter=self._counter, book=self._book)


def _loggable(name: str, given: Mapping[str, Any]) -> str:
    """The arguments that the operation declares, which hold no secrets; what was sent by mistake may be one."""
    declared = BY_NAME[name].arguments.model_fields if name in BY_NAME else ()
    text = repr({argument: value for argument, value in given.items() if argument in declared})
    return text if len(text) <= _LOGGED_CHARS else text[:_LOGGED_CHARS] + "..."
