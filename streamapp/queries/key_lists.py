"""Reads over all keys of a table: in their order, ranked by a field, or counted; each worker's part, put together."""

import asyncio
import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal
from urllib.parse import quote

from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import BadParameterError
from streamapp.queries.cursors import decode_cursor, encode_cursor
from streamapp.queries.keys import place_of
from streamapp.queries.model import Page, Reading
from streamapp.queries.owners import Owners
from streamapp.queries.peers import reading_of
from streamapp.queries.readings import Readings
from streamapp.state import reads
from streamapp.state.partition import PartitionState

#: keys of a table that are read at once, before others come in between
_STEP_KEYS = 500


class KeyLists:
    """Lists keys; what nobody answers for is named as missing, and the rest is told all the same.

    Args:
        readings: of the partitions that live here.
        owners: of the others.
        most: longest page, here as at the others.
    """

    def __init__(self, readings: Readings, owners: Owners, most: int) -> None:
        self._readings = readings
        self._owners = owners
        self._most = most

    async def keys(
        self, running: RunningTable, *, prefix: str, limit: int, cursor: str | None, local_only: bool
    ) -> Page:
        """See `Queries.keys`."""
        limit = min(limit, self._most)  # others give no more
        after = decode_cursor(cursor)
        parts: list[Iterable[str]] = [
            self._readings.state(live).keys(prefix, after, limit + 1) for live in self._readable(running, local_only)
        ]
        answers, missing = await self._owners.gather(
            running,
            local_only,
            f"/v1/tables/{quote(running.name, safe='')}/keys",
            {"prefix": prefix or None, "limit": limit, "cursor": cursor},
        )
        more_elsewhere = False
        for body in answers:
            parts.append(body["items"])
            more_elsewhere = more_elsewhere or body.get("cursor") is not None
        merged = list(heapq.merge(*parts))
        shown = merged[:limit]
        more = encode_cursor(place_of(shown[-1])) if shown and (len(merged) > limit or more_elsewhere) else None
        return Page(shown, more, missing)

    async def top(
        self,
        running: RunningTable,
        *,
        by: str,
        order: Literal["asc", "desc"],
        limit: int,
        prefixes: Sequence[str],
        local_only: bool,
    ) -> Page:
        """See `Queries.top`."""
        table = running.name
        numeric = [f.name for f in running.definition.aggregate.fields if f.type in ("number", "integer", "any")]
        if by not in numeric:
            raise BadParameterError(
                "by", f"by={by!r}: expected a numeric field of {table}: {', '.join(numeric) or 'it has none'}"
            )
        limit = min(limit, self._most)  # others give no more
        if not prefixes:
            return Page([], None)  # others must not be asked: a path without beginnings asks for all keys
        sign = -1 if order == "desc" else 1

        def rank(value: Any, key: str) -> tuple[bool, float, str]:
            # what is not finite is told as null, and NaN would be in no order with any other
            usable = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
            usable = usable and not isinstance(value, bool)
            return (not usable, sign * value if usable else 0.0, key)

        candidates: list[tuple[tuple[bool, float, str], Any]] = []
        states: dict[int, PartitionState] = {}
        read = 0
        for live in self._readable(running, local_only):
            state = states[live.partition] = self._readings.state(live)
            ranked = self._readings.field(live, by)
            for key in itertools.chain.from_iterable(map(state.iter_keys, prefixes)):
                read += 1
                if read % _STEP_KEYS == 0:
                    await asyncio.sleep(0)  # others may want to read; meanwhile the partition may have gone
                    self._readings.state(live)
                found = reads.current(state, key)
                if found is not None:
                    candidates.append((rank(ranked(*found), key), (live, key, found)))
        looked_at = len(candidates)
        path = f"/v1/tables/{quote(table, safe='')}/top"
        if tuple(prefixes) != ("",):
            path += f"?prefixes={','.join(quote(prefix, safe='') for prefix in prefixes)}"
        parameters = {"by": by, "order": order, "limit": limit}
        answers, missing = await self._owners.gather(running, local_only, path, parameters)
        for body in answers:
            for item in body["items"]:
                reading = reading_of(item)
                candidates.append((rank(reading.value.get(by), reading.key), reading))
        # partitions that have gone while the others were asked can be read no more
        gone = {partition for partition, state in states.items() if not _is_still(running, partition, state)}
        if gone:
            missing = sorted(gone.union(missing))
            candidates = [
                pair for pair in candidates if isinstance(pair[1], Reading) or pair[1][0].partition not in gone
            ]
        best = heapq.nsmallest(limit, candidates, key=lambda pair: pair[0])
        items = [
            item if isinstance(item, Reading) else self._readings.reading(item[0], item[1], *item[2])
            for _, item in best
        ]
        return Page(items, None, missing, looked_at)

    async def count(self, running: RunningTable, *, local_only: bool) -> int | None:
        """See `Queries.key_counts`."""
        states = [live.state for live in running.live.values()]
        counts = [None if state is None else state.known_key_count for state in states]
        answers, missing = await self._owners.gather(
            running, local_only, f"/v1/tables/{quote(running.name, safe='')}", {}
        )
        counts += [body.get("keys") for body in answers]
        known = [count for count in counts if count is not None]
        return sum(known) if running.partitions and len(known) == len(counts) and not missing else None

    def _readable(self, running: RunningTable, local_only: bool) -> list[LivePartition]:
        """What can be read here at once; partitions being restored are left out, unless there is nothing else."""
        here = running.in_order()
        ready = [live for live in here if live.state is not None]
        if here and not ready and local_only:
            self._readings.state(here[0])  # says why
        return ready


def _is_still(running: RunningTable, partition: int, state: PartitionState) -> bool:
    """Whether a partition lives here, in the state that was read."""
    live = running.live.get(partition)
    return live is not None and live.state is state
