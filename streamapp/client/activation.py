"""State changes that start something: a coroutine, or any LangChain tool, when a condition begins to hold for a key."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamapp.client.stream_client import StreamClient
from streamapp.operations.conditions import Condition, parse
from streamapp.queries.model import FieldInfo

log = logging.getLogger(__name__)

_PAUSE_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Activation:
    """What started an action: the reading as the worker told it.

    Key and value hold a feed's text as it came; where they go on to a language model, pass them through
    `operations.untrusted`, as `streamapp.tools.EventTriggeredTool` does.
    """

    table: str
    key: str
    value: Mapping[str, Any]
    reading: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `error` is None where it succeeded."""

    activation: Activation
    result: Any
    error: str | None
    attempts: int


Action = Callable[[Activation], Awaitable[Any]]
Publish = Callable[[Outcome], Awaitable[None]]


async def _unpublished(_outcome: Outcome) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class _Place:
    """What is known of one key: whether the condition held, what waits to be acted on, who acts."""

    held: bool = False
    waiting: Activation | None = None
    task: asyncio.Task[None] | None = field(default=None)


class OnChange:
    """Runs an action whenever a condition begins to hold for a key, until it is cancelled.

    Edge-triggered: once it has run, the condition has to stop holding before it runs for that key again. What holds when
    the watch begins counts as a beginning, also when a lost stream is opened again, so effects happen at least once. Of a
    table with windows each key's newest one counts; late events of earlier windows neither begin nor end anything.

    Args:
        client: open.
        table: the table to follow.
        condition: such as `z > 4`; see `operations.conditions`.
        action: given what started it.
        key: this key only; default: all that begin with `prefix`.
        prefix: see `key`.
        debounce_ms: an action starts when its key has not changed for this long, with the newest value, if that still
            fulfils the condition.
        debounce_max_ms: it starts after this long all the same, however often its key changes.
        concurrency: actions that run at once; further ones wait, at most one for each key, with the newest value.
        timeout_s: bound on one try.
        retries: further tries after a failure.
        pause_s: upper bound of the first pause between tries; it doubles, and pauses are drawn below it.
        publish: told what came of each action, within `timeout_s` too; a failure of its own is logged.
    """

    def __init__(
        self,
        client: StreamClient,
        table: str,
        condition: str,
        action: Action,
        *,
        key: str | None = None,
        prefix: str = "",
        debounce_ms: int = 250,
        debounce_max_ms: int = 2_000,
        concurrency: int = 4,
        timeout_s: float = 30.0,
        retries: int = 2,
        pause_s: float = 0.5,
        publish: Publish = _unpublished,
    ) -> None:
        if key is not None and prefix:
            raise ValueError(f"key and prefix exclude each other, got {key!r} and {prefix!r}; give one of them")
        if concurrency < 1 or retries < 0 or min(debounce_ms, debounce_max_ms, pause_s) < 0 or not timeout_s > 0:
            raise ValueError(
                "expected concurrency from 1, timeout_s above 0, retries, debounce and pause from 0; got"
                f" {concurrency=} {timeout_s=} {retries=} {debounce_ms=} {debounce_max_ms=} {pause_s=}"
            )
        self._client = client
        self._table = table
        self._condition = condition
        self._action = action
        self._key = key
        self._prefix = prefix
        self._debounce_s = debounce_ms / 1000
        self._debounce_max_s = debounce_max_ms / 1000
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout_s = timeout_s
        self._retries = retries
        self._pause_s = pause_s
        self._publish = publish
        self._places: dict[str, _Place] = {}
        self._newest_end: dict[str, int] = {}  # of the windows seen, by key

    async def run(self) -> None:
        """Follow the table and act; ends only by being cancelled, or by an error that a further try cannot mend."""
        described = await self._client.describe_table(self._table)
        fields = [FieldInfo(one.name, one.type, one.unit, one.nullable) for one in described.fields]
        condition = parse(self._condition, fields)
        # a watch that begins anew knows of nothing: what an earlier one was cancelled in the middle of is done again
        self._places, self._newest_end = {}, {}
        try:
            changes = self._client.changes(self._table, self._key, prefix=self._prefix or None)
            async with contextlib.aclosing(changes) as events:
                async for event in events:
                    reading = event.data
                    if self._is_newest(reading):
                        self._changed(condition, Activation(self._table, reading["key"], reading["value"], reading))
        finally:
            tasks = [place.task for place in self._places.values() if place.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _is_newest(self, reading: Mapping[str, Any]) -> bool:
        """Whether no later window of the key was seen; sessions that merge begin earlier, but never end earlier."""
        window = reading.get("window")
        if window is None:
            return True
        if window["end"] < self._newest_end.get(reading["key"], 0):
            return False
        self._newest_end[reading["key"]] = window["end"]
        return True

    def _changed(self, condition: Condition, activation: Activation) -> None:
        holds = condition.holds(activation.value)
        place = self._places.get(activation.key)
        if place is None:
            if not holds:
                return  # keys for which it never held cost next to nothing
            place = self._places[activation.key] = _Place()
        if not holds:
            place.held, place.waiting = False, None
            if place.task is None:
                del self._places[activation.key]
            return
        if place.held and place.waiting is None:
            return
        place.held, place.waiting = True, activation
        if place.task is None:
            place.task = asyncio.create_task(self._act(place, activation.key), name="on-change")

    async def _act(self, place: _Place, key: str) -> None:
        """Act on what waits for one key, one after the other."""
        try:
            while place.waiting is not None:
                await self._settled(place)
                outcome = await self._attempts(place)
                if outcome is not None:
                    await self._tell(outcome)
        finally:
            place.task = None
            if not place.held:
                self._places.pop(key, None)

    async def _settled(self, place: _Place) -> None:
        """Wait until the key has not changed for the debounce, at most for its maximum, or the condition has ended."""
        now = asyncio.get_running_loop().time
        latest = now() + self._debounce_max_s
        newest: Activation | None = None
        while place.waiting is not None and place.waiting is not newest and now() < latest:
            newest = place.waiting
            await asyncio.sleep(min(self._debounce_s, max(0.0, latest - now())))

    async def _attempts(self, place: _Place) -> Outcome | None:
        """What came of acting on what waits; None where nothing does any more."""
        error = ""
        activation: Activation | None = None
        for attempt in range(1, self._retries + 2):
            async with self._slots:  # for one try: while this one pauses others may run
                if activation is None:
                    # while it waited for its turn the value may have changed, or the condition have ended
                    activation, place.waiting = place.waiting, None
                    if activation is None:
                        return None
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return Outcome(activation, await self._action(activation), None, attempt)
                except TimeoutError:
                    error = f"no result within {self._timeout_s:g} s"
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    error = "the action was cancelled"  # something that it waited for was, and not the watch
                except Exception as problem:
                    error = f"{type(problem).__name__}: {problem}"
            if attempt <= self._retries:
                bound = min(_PAUSE_MAX_S, self._pause_s * 2 ** (attempt - 1))
                await asyncio.sleep(random.uniform(bound / 2, bound))
        assert activation is not None
        return Outcome(activation, None, error, self._retries + 1)

    async def _tell(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            log.warning("the action on %s %s failed: %s", self._table, outcome.activation.key, outcome.error)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._publish(outcome)
        except Exception:
            log.exception("the outcome of an action could not be published")


def on_change(client: StreamClient, table: str, condition: str, **options: Any) -> Callable[[Action], OnChange]:
    """Decorate a coroutine function with the change that starts it; `await decorated.run()` then follows the table.

    Args:
        client: open while it runs.
        table: the table to follow.
        condition: such as `close > 70000`.
        options: as of `OnChange`.
    """

    def decorate(action: Action) -> OnChange:
        return OnChange(client, table, condition, action, **options)

    return decorate
