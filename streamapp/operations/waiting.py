"""`wait_for`: follow one key until a condition holds, or until a deadline."""

import asyncio
import random

from streamapp.errors import OwnerUnreachableError, RestoringError
from streamapp.operations.answers import Waited
from streamapp.operations.arguments import WaitFor
from streamapp.operations.conditions import Condition, parse
from streamapp.operations.source import Source, item, refuse_stale
from streamapp.operations.untrusted import asked_key
from streamapp.queries.model import Reading

_RETRY_S = 0.25


async def wait_for(source: Source, arguments: WaitFor) -> Waited:
    """Return as soon as the condition holds for the key's newest value; at the deadline say that it did not.

    The key has to be there: an unknown one is refused at once, with what looks like it.
    """
    info = source.queries.table(arguments.table)
    condition = parse(arguments.condition, info.fields)
    key = asked_key(arguments.key)
    began = source.clock.monotonic_ms()
    deadline_ms = min(arguments.timeout_ms, source.settings.wait_max_ms)
    newest = await source.queries.get(info.name, key)
    held = condition.holds(newest.value)
    if not held and deadline_ms > 0:
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                newest = await _until(source, newest, condition)
                held = True
        except TimeoutError:
            newest = await source.queries.get(info.name, key)
            held = condition.holds(newest.value)
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


async def _until(source: Source, newest: Reading, condition: Condition) -> Reading:
    """The first reading of this window or a newer one for which the condition holds."""
    since = newest.window.start if newest.window is not None else 0
    while True:
        try:
            async with source.queries.changes(newest.table, newest.key) as changes:
                async for change in changes:
                    window = change.reading.window
                    start = window.start if window is not None else 0
                    # a late event may still change an older window, which is not the current value
                    if start >= since:
                        since = start
                        if condition.holds(change.reading.value):
                            return change.reading
        except (RestoringError, OwnerUnreachableError):
            pass  # the partition moves; it goes on elsewhere
        await asyncio.sleep(_RETRY_S * (1 + random.random()))
