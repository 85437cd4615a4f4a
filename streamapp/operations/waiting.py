"""`wait_for`: follow one key until a condition holds, or until a deadline."""

import asyncio
import random

import msgspec

from streamapp.errors import LeaseExpiredError, OwnerUnreachableError, QueryError, RestoringError
from streamapp.operations.answers import Waited
from streamapp.operations.arguments import WaitFor
from streamapp.operations.conditions import parse
from streamapp.operations.source import Source, item, refuse_stale
from streamapp.operations.untrusted import meant_key
from streamapp.queries.model import Reading, TableInfo

_RETRY_S = 0.25
_TICK_LEAST_MS, _TICK_MOST_MS = 50, 1_000
#: the partition moves, or for a moment nobody knows where it is; it goes on elsewhere
_PASSING = (RestoringError, OwnerUnreachableError, LeaseExpiredError)


async def wait_for(source: Source, arguments: WaitFor) -> Waited:
    """Return as soon as the condition holds for the key's newest value; at the deadline say that it did not.

    What is judged is what `get_current` answers: after each change, and at least once a second, because a window may also
    become the newest one by the passing of time. The key has to be there: an unknown one is refused at once, with what
    looks like it, and so is a view that is too old already.
    """
    info = source.queries.table(arguments.table)
    condition = parse(arguments.condition, info.fields)
    key = meant_key(arguments.key)
    began = source.clock.monotonic_ms()
    deadline_ms = min(arguments.timeout_ms, source.settings.wait_max_ms)
    newest, read_ms = await source.queries.get(info.name, key), source.clock.monotonic_ms()
    refuse_stale(source.freshness([newest]), arguments.max_staleness_ms)
    held = condition.holds(newest.value)
    if not held and deadline_ms > 0:
        changed = asyncio.Event()
        following = asyncio.create_task(_follow(source, info.name, key, changed))
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                while not held:
                    await _woken(info, changed)
                    if following.done():
                        following.result()
                    try:
                        # not counted: changes that follow cost nothing, and whoever has spent all would see none of them
                        newest, read_ms = await source.again.get(info.name, key), source.clock.monotonic_ms()
                    except QueryError:
                        continue  # what was read last stands until something newer can be read
                    held = condition.holds(newest.value)
        except TimeoutError:
            pass  # that it did not hold is the answer
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    newest = _aged(newest, source.clock.monotonic_ms() - read_ms)
    freshness = source.freshness([newest])
    refuse_stale(freshness, arguments.max_staleness_ms)
    return Waited(
        held=held,
        table=info.name,
        condition=condition.text,
        waited_ms=source.clock.monotonic_ms() - began,
        deadline_ms=deadline_ms,
        item=item(newest),
        freshness=freshness,
    )


def _aged(reading: Reading, by_ms: int) -> Reading:
    """What was read that long ago, as of now: while it could not be read again, it has become older."""
    block = reading.freshness
    freshness = msgspec.structs.replace(
        block,
        as_of=block.as_of + by_ms,
        age_ms=None if block.age_ms is None else block.age_ms + by_ms,
        staleness_ms=block.staleness_ms + by_ms,
    )
    return msgspec.structs.replace(reading, freshness=freshness)


async def _woken(info: TableInfo, changed: asyncio.Event) -> None:
    """Return after the next change, or when it is time to look again."""
    tick_ms = max(_TICK_LEAST_MS, min(info.step_ms or _TICK_MOST_MS, _TICK_MOST_MS))
    try:
        async with asyncio.timeout(tick_ms / 1000):
            await changed.wait()
    except TimeoutError:
        pass
    changed.clear()


async def _follow(source: Source, table: str, key: str, changed: asyncio.Event) -> None:
    """Set the event at every change; ends only by an error that does not pass."""
    try:
        while True:
            try:
                async with source.queries.changes(table, key) as changes:
                    async for _ in changes:
                        changed.set()
            except _PASSING:
                pass
            await asyncio.sleep(_RETRY_S * (1 + random.random()))
    finally:
        changed.set()
