"""Reads of keys that are named: answered here, by the worker that owns the key, or, where it is silent, from a copy."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec.structs import replace

from streamapp.clock import Clock
from streamapp.engine.standby import Standby, Standbys
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import (
    BadParameterError,
    NoSuchWindowError,
    OwnerUnreachableError,
    QueryError,
    RestoringError,
    StaleError,
    UnknownKeyError,
)
from streamapp.queries.cursors import decode_start, encode_cursor
from streamapp.queries.keys import checked_key, shown_key
from streamapp.queries.model import Page, Reading
from streamapp.queries.nearest import nearest_keys
from streamapp.queries.owners import Owners
from streamapp.queries.peers import Peers, in_parts, key_path, reading_of, remote_problem
from streamapp.queries.readings import Readings
from streamapp.state import reads

if TYPE_CHECKING:
    from streamapp.state.entry import Entry

#: of several unknown keys only so many are told which ones look like them
_NEAREST_FOR = 3


class KeyReads:
    """Reads single keys, or several.

    Args:
        readings: of the partitions that live here.
        standbys: copies of others' partitions.
        owners, peers: the other workers.
        clock: for how far a copy is behind.
        most: keys that another worker is asked for at once.
    """

    def __init__(
        self, readings: Readings, standbys: Standbys, owners: Owners, peers: Peers, clock: Clock, most: int
    ) -> None:
        self._readings = readings
        self._standbys = standbys
        self._owners = owners
        self._peers = peers
        self._clock = clock
        self._most = most

    async def get(
        self,
        running: RunningTable,
        key: str,
        *,
        at: int | None = None,
        max_staleness_ms: int | None = None,
        local_only: bool = False,
        with_nearest: bool = True,
    ) -> Reading:
        """See `Queries.get`; `with_nearest`: whether the keys that look like an unknown one are looked for."""
        partition = running.partition_of(key) if running.partitions else 0
        live = running.live.get(partition)
        if live is not None:
            return _fresh_enough(self._here(running, live, key, at, with_nearest), max_staleness_ms)
        try:
            body = await self._peers.get(
                self._owners.of(running, partition, local_only),
                key_path(running.name, key),
                {"at": at, "max_staleness_ms": max_staleness_ms},
            )
            return reading_of(body)
        except (OwnerUnreachableError, RestoringError):
            copy = self._standbys.find(running.name, partition)
            held = copy.snapshot() if copy is not None else None
            if copy is None or held is None:
                elsewhere = (
                    None if local_only else await self._owners.copied(running, partition, key, at, max_staleness_ms)
                )
                if elsewhere is None:
                    raise
                return elsewhere
        return _fresh_enough(self._copied_here(copy, held, key, at), max_staleness_ms)

    async def values(
        self, running: RunningTable, keys: Sequence[str], *, max_staleness_ms: int | None, local_only: bool
    ) -> Sequence[Reading | Exception]:
        """See `Queries.values`; each other worker is asked once for all that it has."""
        found: dict[str, Reading | Exception] = {}
        elsewhere: dict[str, list[str]] = {}
        unknown = 0
        for key in dict.fromkeys(keys):
            partition = running.partition_of(key) if running.partitions else 0
            try:
                checked_key(key)  # of a list of keys as the table holds them; others must not be lost with one of these
                if partition in running.live:
                    found[key] = await self.get(
                        running,
                        key,
                        max_staleness_ms=max_staleness_ms,
                        local_only=True,
                        with_nearest=unknown < _NEAREST_FOR,
                    )
                else:
                    elsewhere.setdefault(self._owners.of(running, partition, local_only), []).append(key)
            except QueryError as problem:
                unknown += isinstance(problem, UnknownKeyError)
                found[key] = problem
        asked = [(url, part) for url, wanted in elsewhere.items() for part in in_parts(wanted, self._most)]
        path = f"/v1/tables/{quote(running.name, safe='')}/values"

        async def ask(url: str, part: Sequence[str]) -> None:
            listed = ",".join(quote(key, safe="") for key in part)
            try:
                body = await self._peers.get(url, f"{path}?keys={listed}", {"max_staleness_ms": max_staleness_ms})
                for key, item in zip(part, body["items"], strict=True):
                    found[key] = remote_problem(item["error"]) if "error" in item else reading_of(item)
            except QueryError as problem:
                for key in part:
                    found[key] = await self._or_copied(problem, running, key, max_staleness_ms)

        await asyncio.gather(*(ask(url, part) for url, part in asked))
        return [found[key] for key in keys]

    async def windows(
        self,
        running: RunningTable,
        key: str,
        *,
        start: int | None,
        end: int | None,
        limit: int,
        cursor: str | None,
        local_only: bool,
    ) -> Page:
        """See `Queries.windows`."""
        table = running.name
        if running.definition.window is None:
            raise BadParameterError(
                "table", f"table {table} has no windows; read /v1/tables/{table}/keys/{shown_key(key)}"
            )
        partition = running.partition_of(key) if running.partitions else 0
        live = running.live.get(partition)
        if live is None:
            body = await self._peers.get(
                self._owners.of(running, partition, local_only),
                key_path(table, key, "/windows"),
                {"from": start, "to": end, "limit": limit, "cursor": cursor},
            )
            return Page([reading_of(item) for item in body["items"]], body.get("cursor"))
        state = self._readings.state(live)
        if not state.has_key(key):
            raise _missing(running, key, None)
        after = decode_start(cursor)
        low = max(start or 0, 0 if after is None else after + 1)
        found: list[tuple[int, Entry]] = []
        for pair in reads.between(state, key, low, reads.FOREVER if end is None else end):
            found.append(pair)
            if len(found) > limit:
                break
        shown = found[:limit]
        more = encode_cursor(str(shown[-1][0])) if len(found) > limit else None
        return Page([self._readings.reading(live, key, *pair) for pair in shown], more)

    def _here(
        self, running: RunningTable, live: LivePartition, key: str, at: int | None, with_nearest: bool
    ) -> Reading:
        state = self._readings.state(live)
        found = reads.current(state, key) if at is None else reads.at(state, key, at)
        if found is None:
            raise _missing(running, key, at, with_nearest)
        return self._readings.reading(live, key, *found)

    def _copied_here(self, copy: Standby, held: LivePartition, key: str, at: int | None) -> Reading:
        """What a copy here holds, as a snapshot of it."""
        assert held.state is not None
        found = reads.current(held.state, key) if at is None else reads.at(held.state, key, at)
        if found is None:
            raise OwnerUnreachableError(
                f"the worker that owns {shown_key(key)!r} did not answer, and the copy here does not hold it",
                retry_after_s=1,
            )
        reading = self._readings.reading(held, key, *found)
        behind_ms = max(0, self._clock.now_ms() - (copy.caught_up_ms or 0))
        freshness = replace(reading.freshness, stale=True, lag=None, staleness_ms=behind_ms)
        return replace(reading, freshness=freshness)

    async def _or_copied(
        self, problem: QueryError, running: RunningTable, key: str, max_staleness_ms: int | None
    ) -> Reading | QueryError:
        """What a copy here or elsewhere says in place of the owner, or why the owner says nothing."""
        if not isinstance(problem, (OwnerUnreachableError, RestoringError)):
            return problem
        try:
            return await self.get(running, key, max_staleness_ms=max_staleness_ms, local_only=True)
        except QueryError:
            partition = running.partition_of(key)
            return await self._owners.copied(running, partition, key, None, max_staleness_ms) or problem


def _fresh_enough(reading: Reading, max_staleness_ms: int | None) -> Reading:
    """The reading; StaleError where it may be further behind than is asked for."""
    if max_staleness_ms is not None and reading.freshness.staleness_ms > max_staleness_ms:
        raise StaleError(
            f"the view may be {reading.freshness.staleness_ms} ms behind, more than max_staleness_ms={max_staleness_ms}",
            reading.freshness.staleness_ms,
        )
    return reading


def _missing(running: RunningTable, key: str, at: int | None, with_nearest: bool = True) -> QueryError:
    """Why a key that would live here has no value."""
    live = running.live[running.partition_of(key)]
    state = live.state
    if at is not None and state is not None and state.has_key(key):
        return NoSuchWindowError(f"no window of {shown_key(key)!r} in {running.name} holds the instant {at}")
    states = [other.state for other in running.in_order() if other.state is not None] if with_nearest else []
    if any(other.has_key(key) for other in states):
        return UnknownKeyError(
            f"table {running.name} has no key {shown_key(key)!r} on partition {live.partition}, where Kafka's default"
            " partitioner puts it, but on another one: have its producer choose as that does (librdkafka: partitioner="
            "murmur2_random), or declare the table with key=",
        )
    return UnknownKeyError(f"table {running.name} has no key {shown_key(key)!r}", nearest_keys(key, states))
