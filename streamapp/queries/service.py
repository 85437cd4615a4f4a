"""All reads: from the partitions that live here, and from the other workers for what does not."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal
from urllib.parse import quote

from streamapp.engine.runtime import Engine
from streamapp.engine.tables import RunningTable
from streamapp.errors import UnknownTableError
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.following import Followed, Following
from streamapp.queries.freshness import FetchState, FreshnessBook
from streamapp.queries.gauges import Gauges
from streamapp.queries.key_lists import KeyLists
from streamapp.queries.key_reads import KeyReads
from streamapp.queries.model import (
    Change,
    FeedInfo,
    FieldInfo,
    Heartbeat,
    Page,
    Predicate,
    Reading,
    TableInfo,
    WorkerInfo,
)
from streamapp.queries.owners import Distribution, Owners
from streamapp.queries.peers import Peers
from streamapp.queries.positions import decode
from streamapp.queries.readings import Readings
from streamapp.queries.remote_changes import events_of
from streamapp.queries.subscribers import Subscribers
from streamapp.state import reads
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session

log = logging.getLogger(__name__)

_OBSERVE_S = 0.1
#: so many looks until sizes are asked for again, which costs more than the rest
_LOOKS_PER_SIZE = 10
#: so many looks until quiet subscriptions are told that partitions have moved
_LOOKS_PER_MOVED = 10
#: what `/v1/status` tells of: this many keys of a partition, from this share on, and so many in all
_HOT_PER_PARTITION, _HOT_SHARE, _HOT_MAX = 3, 0.05, 20


class QueryService:
    """The `Queries` of a worker; see the protocol for what each method answers.

    Args:
        engine: the tables and the partitions that live here.
        feed_health: the state of the feeds.
        owners: URL -> topic -> partitions, of every worker.
        fetch_state: end offset and time of the latest fetch of a partition.
        copies: as `owners`, of the workers that keep copies.
    """

    def __init__(
        self,
        engine: Engine,
        feed_health: FeedHealth,
        owners: Distribution,
        fetch_state: FetchState,
        copies: Distribution = dict,
    ) -> None:
        self._engine = engine
        self._feed_health = feed_health
        self._freshness = FreshnessBook(engine, feed_health, fetch_state, engine.clock)
        self._gauges = Gauges(engine, self._freshness.lag)
        self._peers = Peers(engine.settings, engine.metrics)
        self._owners = Owners(self._peers, owners, copies)
        self._readings = Readings(engine, self._freshness)
        most = engine.settings.page_limit_max
        self._reads = KeyReads(self._readings, engine.standbys, self._owners, self._peers, engine.clock, most)
        self._lists = KeyLists(self._readings, self._owners, most)
        self._subscribers = Subscribers(engine, self._readings)
        self._observers: list[asyncio.Task[None]] = []

    async def start(self, own_url: str) -> None:
        """Begin to keep the books of freshness; `own_url` is where the others reach this worker."""
        self._owners.own_url = own_url.rstrip("/")
        await self._peers.start()
        self._observers = [
            asyncio.create_task(self._observe_forever(), name="freshness"),
            asyncio.create_task(self._freshness.held_ends.keep_up(), name="held-ends"),
            asyncio.create_task(self._freshness.forwarded.keep_up(), name="forwarded"),
        ]
        for observer in self._observers:
            observer.add_done_callback(_tell)

    async def stop(self) -> None:
        """Stop that, and close the connections to the others."""
        for observer in self._observers:
            observer.cancel()
        await asyncio.gather(*self._observers, return_exceptions=True)
        await self._peers.stop()

    async def _observe_forever(self) -> None:
        for look in itertools.count():
            await asyncio.sleep(_OBSERVE_S)
            self._freshness.observe()
            self._gauges.look()
            if look % _LOOKS_PER_SIZE == 0:
                self._gauges.look_at_sizes()
            if look % _LOOKS_PER_MOVED == 0:
                self._subscribers.look()

    # --- what there is -------------------------------------------------------------------------------------------------

    def tables(self) -> Sequence[TableInfo]:
        """Every table, in order of declaration."""
        return [self.table(name) for name in self._engine.tables]

    def table(self, name: str) -> TableInfo:
        """One table."""
        running = self._table(name)
        definition, window = running.definition, running.definition.window
        return TableInfo(
            name=name,
            kind=definition.kind,
            fields=[
                FieldInfo(field.name, field.type, field.unit or None, field.nullable, field.description)
                for field in definition.aggregate.fields
            ],
            key_form=definition.key_form,
            partitions=running.partitions,
            size_ms=window.size_ms if isinstance(window, (Tumbling, Hopping)) else None,
            step_ms=window.step_ms if isinstance(window, Hopping) else None,
            gap_ms=window.gap_ms if isinstance(window, Session) else None,
            grace_ms=window.grace_ms if window is not None else None,
            retention_ms=window.retention_ms if window is not None else None,
            description=definition.description,
            combine={
                field.name: (field.combine, field.weight)
                for field in definition.aggregate.fields
                if field.combine != "last"
            },
        )

    def feeds(self) -> Sequence[FeedInfo]:
        """Every feed that `feed-status` told of."""
        return self._feed_health.feeds()

    def worker(self) -> WorkerInfo:
        """What this worker is doing."""
        engine = self._engine
        assigned: dict[str, list[int]] = {}
        lag: dict[str, int] = {}
        for topic, partition in sorted(engine.lanes):
            assigned.setdefault(topic, []).append(partition)
            lag[topic] = lag.get(topic, 0) + (self._freshness.lag((topic, partition)) or 0)
        applied = sum(
            int(sample.value)
            for family in engine.metrics.records_applied.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        )
        restoring = engine.unrestored()
        answers = engine.lease.valid  # else every read of what is here is refused
        ready = engine.settled and not restoring and answers
        detail = "" if ready else ("restoring" if restoring and answers else "waiting for partitions to be assigned")
        hot = [one for lane in engine.lanes.values() for one in lane.hot_keys.top(_HOT_PER_PARTITION)]
        hot = sorted((one for one in hot if one.share >= _HOT_SHARE), key=lambda one: -one.share)[:_HOT_MAX]
        return WorkerInfo(ready, restoring, assigned, lag, applied, detail, hot)

    # --- values --------------------------------------------------------------------------------------------------------

    async def get(
        self,
        table: str,
        key: str,
        *,
        at: int | None = None,
        max_staleness_ms: int | None = None,
        local_only: bool = False,
    ) -> Reading:
        """The current value of a key, or that of an instant."""
        return await self._reads.get(
            self._table(table), key, at=at, max_staleness_ms=max_staleness_ms, local_only=local_only
        )

    def point(self, table: str, key: str) -> Reading | None:
        """The current value of a key that lives here."""
        running = self._engine.tables.get(table)
        if running is None or not running.partitions:
            return None
        live = running.live.get(running.partition_of(key))
        if live is None:
            return None
        found = reads.current(self._readings.state(live), key)
        return None if found is None else self._readings.reading(live, key, *found)

    async def values(
        self, table: str, keys: Sequence[str], *, max_staleness_ms: int | None = None, local_only: bool = False
    ) -> Sequence[Reading | Exception]:
        """Several keys, in the order asked."""
        return await self._reads.values(
            self._table(table), keys, max_staleness_ms=max_staleness_ms, local_only=local_only
        )

    async def windows(
        self,
        table: str,
        key: str,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
        local_only: bool = False,
    ) -> Page:
        """Windows of a key in order of start."""
        return await self._reads.windows(
            self._table(table), key, start=start, end=end, limit=limit, cursor=cursor, local_only=local_only
        )

    # --- over all keys -------------------------------------------------------------------------------------------------

    async def key_counts(self, tables: Sequence[str], *, local_only: bool = False) -> Sequence[int | None]:
        """How many keys each table holds, over all workers; None where a part of them is not known."""
        counted = (self._lists.count(self._table(name), local_only=local_only) for name in tables)
        return await asyncio.gather(*counted)

    async def keys(
        self, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None, local_only: bool = False
    ) -> Page:
        """Keys in order, of all workers."""
        return await self._lists.keys(
            self._table(table), prefix=prefix, limit=limit, cursor=cursor, local_only=local_only
        )

    async def top(
        self,
        table: str,
        *,
        by: str,
        order: Literal["asc", "desc"] = "desc",
        limit: int = 10,
        prefixes: Sequence[str] = ("",),
        local_only: bool = False,
    ) -> Page:
        """Newest readings of the keys with one of these beginnings, ordered by one field; of no beginning, none."""
        return await self._lists.top(
            self._table(table), by=by, order=order, limit=limit, prefixes=prefixes, local_only=local_only
        )

    # --- changes -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def changes(
        self,
        table: str,
        key: str | None = None,
        *,
        prefix: str = "",
        condition: Predicate | None = None,
        since: str | None = None,
        local_only: bool = False,
    ) -> AsyncIterator[Following]:
        """First what there is, or has changed since, then every change; of the other workers, theirs are passed on."""
        running = self._table(table)
        partition = running.partition_of(key) if key is not None and running.partitions else None
        here = partition is None or partition in running.live
        if not here and partition is not None:
            urls = [self._owners.of(running, partition, local_only)]
        elif key is None and not local_only:
            urls = self._owners.of_others(running)
        else:
            urls = []
        since_told = None if since is None else decode(since) or {}
        async with AsyncExitStack() as stack:
            local: Followed | None = None
            if here:
                local = stack.enter_context(self._subscribers.follow(running, key, prefix, condition))
                await local.begin(since_told)
            remote: list[AsyncIterator[Change | Heartbeat]] = []
            path = f"/v1/tables/{quote(table, safe='')}/changes"
            wanted = {
                "key": key,
                "prefix": prefix or None,
                "condition": condition.text if condition is not None else None,
            }
            for url in urls:
                answer = await stack.enter_async_context(self._peers.stream(url, path, wanted, since=since))
                remote.append(events_of(answer, url))
            yield Following(local, remote)

    # --- inside --------------------------------------------------------------------------------------------------------

    def _table(self, name: str) -> RunningTable:
        running = self._engine.tables.get(name)
        if running is None:
            known = ", ".join(self._engine.tables)
            raise UnknownTableError(f"there is no table {name!r}; there are: {known}")
        return running


def _tell(observer: asyncio.Task[None]) -> None:
    """An observer that ended by itself would leave old figures behind, which look like new ones."""
    if not observer.cancelled() and (problem := observer.exception()) is not None:
        log.critical("%s is not observed any more: restart the worker", observer.get_name(), exc_info=problem)
