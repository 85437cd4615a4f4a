"""All reads: from the partitions that live here, and from the other workers for what does not."""

import asyncio
import base64
import binascii
import contextlib
import heapq
import itertools
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from msgspec.structs import replace

from streamapp.engine.runtime import Engine
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import (
    BadParameterError,
    NoSuchWindowError,
    OwnerUnreachableError,
    QueryError,
    RestoringError,
    StaleError,
    UnknownKeyError,
    UnknownTableError,
)
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.following import Followed, Following
from streamapp.queries.freshness import FetchState, FreshnessBook
from streamapp.queries.gauges import Gauges
from streamapp.queries.keys import checked_key, place_of
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
from streamapp.queries.nearest import nearest_keys
from streamapp.queries.peers import Peers, in_parts, key_path, reading_of, remote_problem
from streamapp.queries.positions import decode
from streamapp.queries.readings import RESTORING_RETRY_S, Readings
from streamapp.queries.remote_changes import events_of
from streamapp.queries.subscribers import Subscribers
from streamapp.state import reads
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.engine.standby import Standby
    from streamapp.state.entry import Entry

Owners = Callable[[], Mapping[str, Mapping[str, Sequence[int]]]]
log = logging.getLogger(__name__)

_OBSERVE_S = 0.1
#: so many looks until sizes are asked for again, which costs more than the rest
_LOOKS_PER_SIZE = 10
#: keys of a table that are read at once, before others come in between
_STEP_KEYS = 500
#: so many looks until quiet subscriptions are told that partitions have moved
_LOOKS_PER_MOVED = 10
#: of several unknown keys only so many are told which ones look like them
_NEAREST_FOR = 3
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
        owners: Owners,
        fetch_state: FetchState,
        copies: Owners = dict,
    ) -> None:
        self._engine = engine
        self._feed_health = feed_health
        self._owners = owners
        self._copies = copies
        self._settings = engine.settings
        self._freshness = FreshnessBook(engine, feed_health, fetch_state, engine.clock)
        self._gauges = Gauges(engine, self._freshness.lag)
        self._peers = Peers(engine.settings, engine.metrics)
        self._readings = Readings(engine, self._freshness)
        self._subscribers = Subscribers(engine, self._readings)
        self._own_url = ""
        self._observers: list[asyncio.Task[None]] = []

    async def start(self, own_url: str) -> None:
        """Begin to keep the books of freshness; `own_url` is where the others reach this worker."""
        self._own_url = own_url.rstrip("/")
        await self._peers.start()
        self._observers = [
            asyncio.create_task(self._observe_forever(), name="freshness"),
            asyncio.create_task(self._freshness.held_ends.keep_up(), name="held-ends"),
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
        states = [live.state for live in running.live.values()]
        known = [state.known_key_count if state is not None else None for state in states]
        counts = [count for count in known if count is not None]
        return TableInfo(
            name=name,
            kind=definition.kind,
            fields=[
                FieldInfo(field.name, field.type, field.unit or None, field.nullable, field.description)
                for field in definition.aggregate.fields
            ],
            key_form=definition.key_form,
            partitions=running.partitions,
            keys=sum(counts) if len(counts) == len(states) else None,
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
        return await self._get(table, key, at, max_staleness_ms, local_only)

    async def _get(
        self,
        table: str,
        key: str,
        at: int | None,
        max_staleness_ms: int | None,
        local_only: bool,
        *,
        with_nearest: bool = True,
    ) -> Reading:
        running = self._table(table)
        partition = running.partition_of(key) if running.partitions else 0
        live = running.live.get(partition)
        copy: Standby | None = None
        if live is None:
            try:
                body = await self._peers.get(
                    self._owner(running, partition, local_only),
                    key_path(table, key),
                    {"at": at, "max_staleness_ms": max_staleness_ms},
                )
                return reading_of(body)
            except (OwnerUnreachableError, RestoringError):
                copy = self._engine.standbys.find(table, partition)
                live = copy.snapshot() if copy is not None else None
                if live is None:
                    elsewhere = (
                        None if local_only else await self._copied(running, partition, key, at, max_staleness_ms)
                    )
                    if elsewhere is None:
                        raise
                    return elsewhere
        state = self._readings.state(live) if copy is None else live.state
        assert state is not None
        found = reads.current(state, key) if at is None else reads.at(state, key, at)
        if found is None:
            if copy is not None:
                raise OwnerUnreachableError(
                    f"the worker that owns {key!r} did not answer, and the copy here does not hold it", retry_after_s=1
                )
            raise self._missing(running, key, at, with_nearest)
        reading = self._readings.reading(live, key, *found)
        if copy is not None:
            behind_ms = max(0, self._engine.clock.now_ms() - (copy.caught_up_ms or 0))
            freshness = replace(reading.freshness, stale=True, lag=None, staleness_ms=behind_ms)
            reading = replace(reading, freshness=freshness)
        if max_staleness_ms is not None and reading.freshness.staleness_ms > max_staleness_ms:
            raise StaleError(
                f"the view may be {reading.freshness.staleness_ms} ms behind, more than max_staleness_ms={max_staleness_ms}",
                reading.freshness.staleness_ms,
            )
        return reading

    async def _copied(
        self, running: RunningTable, partition: int, key: str, at: int | None, max_staleness_ms: int | None
    ) -> Reading | None:
        """The answer of another worker that keeps a copy of the partition, marked as stale; None where there is none."""
        topic = running.input_topics[0]
        for url, topics in self._copies().items():
            if partition in topics.get(topic, ()) and url.rstrip("/") != self._own_url:
                with contextlib.suppress(QueryError):
                    parameters = {"at": at, "max_staleness_ms": max_staleness_ms}
                    return reading_of(await self._peers.get(url, key_path(running.name, key), parameters))
        return None

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
        """Several keys, in the order asked; each other worker is asked once for all that it has."""
        running = self._table(table)
        found: dict[str, Reading | Exception] = {}
        elsewhere: dict[str, list[str]] = {}
        unknown = 0
        for key in dict.fromkeys(keys):
            partition = running.partition_of(key) if running.partitions else 0
            try:
                checked_key(key)  # of a list of keys as the table holds them; others must not be lost with one of these
                if partition in running.live:
                    with_nearest = unknown < _NEAREST_FOR
                    found[key] = await self._get(table, key, None, max_staleness_ms, True, with_nearest=with_nearest)
                else:
                    elsewhere.setdefault(self._owner(running, partition, local_only), []).append(key)
            except QueryError as problem:
                unknown += isinstance(problem, UnknownKeyError)
                found[key] = problem
        asked = [
            (url, part) for url, wanted in elsewhere.items() for part in in_parts(wanted, self._settings.page_limit_max)
        ]
        path = f"/v1/tables/{quote(table, safe='')}/values"

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

    async def _or_copied(
        self, problem: QueryError, running: RunningTable, key: str, max_staleness_ms: int | None
    ) -> Reading | QueryError:
        """What a copy here or elsewhere says in place of the owner, or why the owner says nothing."""
        if not isinstance(problem, (OwnerUnreachableError, RestoringError)):
            return problem
        try:
            return await self.get(running.name, key, max_staleness_ms=max_staleness_ms, local_only=True)
        except QueryError:
            partition = running.partition_of(key)
            return await self._copied(running, partition, key, None, max_staleness_ms) or problem

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
        running = self._table(table)
        if running.definition.window is None:
            raise BadParameterError("table", f"table {table} has no windows; read /v1/tables/{table}/keys/{key}")
        partition = running.partition_of(key) if running.partitions else 0
        live = running.live.get(partition)
        if live is None:
            body = await self._peers.get(
                self._owner(running, partition, local_only),
                key_path(table, key, "/windows"),
                {"from": start, "to": end, "limit": limit, "cursor": cursor},
            )
            return Page([reading_of(item) for item in body["items"]], body.get("cursor"))
        state = self._readings.state(live)
        if not state.has_key(key):
            raise self._missing(running, key, None)
        after = _decode_cursor(cursor)
        low = start or 0
        if after is not None:
            if not after.isdigit():
                raise BadParameterError("cursor", "the cursor is none of this route's")
            low = max(low, int(after) + 1)
        found: list[tuple[int, Entry]] = []
        for pair in reads.between(state, key, low, reads.FOREVER if end is None else end):
            found.append(pair)
            if len(found) > limit:
                break
        shown = found[:limit]
        more = _encode_cursor(str(shown[-1][0])) if len(found) > limit else None
        return Page([self._readings.reading(live, key, *pair) for pair in shown], more)

    # --- over all keys -------------------------------------------------------------------------------------------------

    async def keys(
        self, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None, local_only: bool = False
    ) -> Page:
        """Keys in order, of all workers."""
        running = self._table(table)
        limit = min(limit, self._settings.page_limit_max)  # others give no more
        after = _decode_cursor(cursor)
        parts: list[Iterable[str]] = [
            self._readings.state(live).keys(prefix, after, limit + 1) for live in self._readable(running, local_only)
        ]
        answers, missing = await self._gather(
            running,
            local_only,
            f"/v1/tables/{quote(table, safe='')}/keys",
            {"prefix": prefix or None, "limit": limit, "cursor": cursor},
        )
        more_elsewhere = False
        for body in answers:
            parts.append(body["items"])
            more_elsewhere = more_elsewhere or body.get("cursor") is not None
        merged = list(heapq.merge(*parts))
        shown = merged[:limit]
        more = _encode_cursor(place_of(shown[-1])) if shown and (len(merged) > limit or more_elsewhere) else None
        return Page(shown, more, missing)

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
        running = self._table(table)
        numeric = [f.name for f in running.definition.aggregate.fields if f.type in ("number", "integer", "any")]
        if by not in numeric:
            raise BadParameterError(
                "by", f"by={by!r}: expected a numeric field of {table}: {', '.join(numeric) or 'it has none'}"
            )
        limit = min(limit, self._settings.page_limit_max)  # others give no more
        if not prefixes:
            return Page([], None)  # others must not be asked: a path without beginnings asks for all keys
        sign = -1 if order == "desc" else 1

        def rank(value: Any, key: str) -> tuple[bool, float, str]:
            # what is not finite is told as null, and NaN would be in no order with any other
            usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            return (not usable, sign * value if usable else 0.0, key)

        candidates: list[tuple[tuple[bool, float, str], Any]] = []
        read = 0
        for live in self._readable(running, local_only):
            state = self._readings.state(live)
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
        answers, missing = await self._gather(running, local_only, path, parameters)
        for body in answers:
            for item in body["items"]:
                reading = reading_of(item)
                candidates.append((rank(reading.value.get(by), reading.key), reading))
        best = heapq.nsmallest(limit, candidates, key=lambda pair: pair[0])
        items = [
            item if isinstance(item, Reading) else self._readings.reading(item[0], item[1], *item[2])
            for _, item in best
        ]
        return Page(items, None, missing, looked_at)

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
            urls = [self._owner(running, partition, local_only)]
        elif key is None and not local_only:
            urls = self._other_owners(running)
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

    def _other_owners(self, running: RunningTable) -> list[str]:
        """The other workers that together have what this one has not."""
        urls = {
            self._owner(running, partition, False)
            for partition in range(running.partitions)
            if partition not in running.live
        }
        return sorted(urls)

    # --- inside --------------------------------------------------------------------------------------------------------

    def _table(self, name: str) -> RunningTable:
        running = self._engine.tables.get(name)
        if running is None:
            known = ", ".join(self._engine.tables)
            raise UnknownTableError(f"there is no table {name!r}; there are: {known}")
        return running

    def _locals(self, running: RunningTable) -> list[LivePartition]:
        return [running.live[partition] for partition in sorted(running.live)]

    def _readable(self, running: RunningTable, local_only: bool) -> list[LivePartition]:
        """What can be read here at once; partitions being restored are left out, unless there is nothing else."""
        here = self._locals(running)
        ready = [live for live in here if live.state is not None]
        if here and not ready and local_only:
            self._readings.state(here[0])  # says why
        return ready

    def _missing(self, running: RunningTable, key: str, at: int | None, with_nearest: bool = True) -> QueryError:
        live = running.live[running.partition_of(key)]
        state = live.state
        if at is not None and state is not None and state.has_key(key):
            return NoSuchWindowError(f"no window of {key!r} in {running.name} holds the instant {at}")
        states = [other.state for other in self._locals(running) if other.state is not None] if with_nearest else []
        if any(other.has_key(key) for other in states):
            return UnknownKeyError(
                f"table {running.name} has no key {key!r} on partition {live.partition}, where Kafka's default partitioner"
                " puts it, but on another one: have its producer choose as that does (librdkafka: partitioner="
                "murmur2_random), or declare the table with key=",
            )
        return UnknownKeyError(f"table {running.name} has no key {key!r}", nearest_keys(key, states))

    def _owner(self, running: RunningTable, partition: int, local_only: bool) -> str:
        """The URL of the worker that has this partition."""
        if local_only:
            raise OwnerUnreachableError(
                f"partition {partition} of {running.name} is not here (any more); ask again", retry_after_s=1
            )
        if not running.partitions:
            raise RestoringError("this worker has just started", retry_after_s=RESTORING_RETRY_S)
        topic = running.input_topics[0]
        for url, topics in self._owners().items():
            if partition in topics.get(topic, ()) and url.rstrip("/") != self._own_url:
                return url
        raise RestoringError(
            f"partition {partition} of {running.name} is being assigned", retry_after_s=RESTORING_RETRY_S
        )

    async def _gather(
        self, running: RunningTable, local_only: bool, path: str, parameters: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """The other workers' answers, and the partitions that nobody answered for."""
        topic = running.input_topics[0]
        restoring = {partition for partition, live in running.live.items() if live.state is None}
        missing = set(range(running.partitions)) - set(running.live)
        if local_only or not missing:
            return [], sorted(restoring)
        others = [
            (url, set(topics.get(topic, ())) & missing)
            for url, topics in self._owners().items()
            if url.rstrip("/") != self._own_url
        ]
        answers: list[dict[str, Any]] = []

        async def ask(url: str, partitions: set[int]) -> None:
            with contextlib.suppress(QueryError):
                body = await self._peers.get(url, path, parameters)
                answers.append(body)
                missing.difference_update(partitions.difference(body.get("missing_partitions", ())))

        await asyncio.gather(*(ask(url, partitions) for url, partitions in others if partitions))
        return answers, sorted(missing | restoring)


def _encode_cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise BadParameterError("cursor", "the cursor is none of this route's") from None


def _tell(observer: asyncio.Task[None]) -> None:
    """An observer that ended by itself would leave old figures behind, which look like new ones."""
    if not observer.cancelled() and (problem := observer.exception()) is not None:
        log.critical("%s is not observed any more: restart the worker", observer.get_name(), exc_info=problem)
