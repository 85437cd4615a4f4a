"""Taking over what an assignment brought: its stores are opened and brought up to date, claimed, and then fed.

Every partition goes through this on its own: reads are answered as soon as it is restored and claimed, and the records of a
source flow as soon as all tables that they feed are so far.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from streamapp.clock import Clock
from streamapp.engine.identity import SourceBounds, check_checkpoint
from streamapp.engine.opening import StoreOpener
from streamapp.engine.ownership import Ownership
from streamapp.engine.restore import RestoreRequest, restore
from streamapp.engine.source_lanes import SourceLanes, TopicPartition
from streamapp.engine.standby import Standbys
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.kafka.admin import KafkaAdmin
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.state.cache import CacheBudget
from streamapp.state.partition import PartitionState

log = logging.getLogger(__name__)


class TakeOver:
    """Takes partitions over, one assignment at a time.

    Args:
        tables: the app's, by name; the partitions that are taken over become `live` in them.
        settings, metrics, clock: see there.
        admin: asked where changelogs begin and end.
        opener: opens the stores.
        ownership: claims what was restored.
        lanes: opened over what is ready.
        standbys: the copies of what others own.
        cluster_id: what checkpoints have to be of.
        on_restored: called with each partition that is ready.
    """

    def __init__(
        self,
        tables: Mapping[str, RunningTable],
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        *,
        admin: KafkaAdmin,
        opener: StoreOpener,
        ownership: Ownership,
        lanes: SourceLanes,
        standbys: Standbys,
        cluster_id: str,
        on_restored: Callable[[LivePartition], None],
    ) -> None:
        self._tables = tables
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._admin = admin
        self._opener = opener
        self._ownership = ownership
        self._lanes = lanes
        self._standbys = standbys
        self._cluster_id = cluster_id
        self._on_restored = on_restored
        self._cache_budget = CacheBudget(settings.cache_max_entries)

    async def run(
        self, mine: set[TopicPartition], copies: set[TopicPartition], *, is_wanted: Callable[[], bool]
    ) -> None:
        """Take over; returns when everything is ready, and copies are being kept.

        Args:
            mine: the source partitions whose tables this worker owns.
            copies: the source partitions of whose tables it keeps copies.
            is_wanted: False from when on they are somebody else's, and nothing more has to be restored.

        Raises:
            SourceChangedError: what a store or a checkpoint tells of is not what is there.
            StateError: a store cannot be opened, restored or written.
            KafkaError, ProduceError: the brokers do not answer in time.
            FencedError: the group has assigned the partitions anew.
        """
        places = [
            (table, partition)
            for table in self._tables.values()
            for partition in sorted({p for topic, p in mine if topic in table.input_topics})
        ]
        requests, bounds = await self._opened(places, mine)
        await self._look_again(requests)
        pending: dict[TopicPartition, int] = {}  # tables that a lane waits for
        for table, partition in places:
            for topic in table.input_topics:
                pending[topic, partition] = pending.get((topic, partition), 0) + 1
        arrived: asyncio.Queue[RestoreRequest] = asyncio.Queue()
        reading = asyncio.create_task(
            restore(
                requests,
                self._settings,
                self._clock,
                on_restored=arrived.put_nowait,
                is_wanted=lambda request: is_wanted(),
            )
        )
        try:
            for place in mine - set(pending):
                await self._lanes.open(place, bounds[place])  # only forwarded from, nothing to restore
            left = len(requests)
            while left:
                restored = await _next_of(arrived, reading)
                left -= len(restored)
                lives = [self._tables[request.table].live[request.partition] for request in restored]
                await self._ownership.claim([live for live in lives if live.state is None or live.ledger is None])
                for live, request in zip(lives, restored, strict=True):
                    self._activate(live, request, bounds)
                    for topic in live.table.input_topics:
                        place = (topic, live.partition)
                        pending[place] -= 1
                        if pending[place] == 0 and place in mine:
                            await self._lanes.open(place, bounds[place])
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await self._follow(copies)

    async def _opened(
        self, places: Sequence[tuple[RunningTable, int]], mine: set[TopicPartition]
    ) -> tuple[list[RestoreRequest], dict[TopicPartition, SourceBounds]]:
        """Open the stores: what is to be restored into each, and what the broker says of the sources."""
        # what the group has committed takes longest to learn: the stores are opened meanwhile
        asking = asyncio.create_task(self._lanes.ask(mine))
        try:
            requests = await self._requests(places)
            return requests, await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _requests(self, places: Sequence[tuple[RunningTable, int]]) -> list[RestoreRequest]:
        """Open the stores, and tell what is to be restored into each."""
        changelogs = [(table.changelog_topic, partition) for table, partition in places]
        begins, ends = await asyncio.gather(self._admin.begin_offsets(changelogs), self._admin.end_offsets(changelogs))
        requests: list[RestoreRequest] = []
        for table, partition in places:
            live = table.live.get(partition)
            place = (table.changelog_topic, partition)
            if live is None:
                live = await self._opener.to_own(table, partition, begins[place], ends[place])
                table.live[partition] = live
            request = RestoreRequest(
                table.name,
                partition,
                table.changelog_topic,
                live.store,
                begins[place],
                ends[place],
                table.definition.window is not None,
            )
            if request.position < request.end:
                live.state = None  # somebody else has owned it meanwhile
            requests.append(request)
        return requests

    async def _look_again(self, requests: Sequence[RestoreRequest]) -> None:
        """Where a store is ahead of the end that was found: a checkpoint of before may have been written since."""
        ahead = [request for request in requests if request.position > request.end]
        ends = await self._admin.end_offsets([(request.topic, request.partition) for request in ahead])
        for request in ahead:
            request.end = ends[request.topic, request.partition]

    def _activate(
        self, live: LivePartition, request: RestoreRequest, bounds: Mapping[TopicPartition, SourceBounds]
    ) -> None:
        """Build the state over a restored store, or keep the one in memory where nothing was missing."""
        table = live.table
        if request.records:
            live.restored_records += request.records
            self._metrics.restore_records.labels(table.name).inc(request.records)
        if live.state is None:
            state = PartitionState(
                table.definition,
                live.partition,
                live.store,
                origins=table.origins,
                cache_budget=self._cache_budget,
            )
            checkpoint = state.checkpoint
            here = {topic: bounds[topic, live.partition] for topic in table.input_topics}
            if checkpoint is not None:
                check_checkpoint(table, live.partition, checkpoint, self._cluster_id, here)
            elif table.definition.start == "latest" and table.definition.rekey is None:
                for index, topic in enumerate(table.input_topics):
                    state.applied[index] = here[topic].end - 1
            state.epoch = live.epoch
            live.state = state
        log.info(
            "table %s, partition %d: ready, %d records from the changelog", table.name, live.partition, request.records
        )
        self._on_restored(live)

    async def _follow(self, copies: set[TopicPartition]) -> None:
        """Keep copies of these partitions, and of no others."""
        wanted = {
            (table.name, partition): table
            for table in self._tables.values()
            for topic, partition in copies
            if topic in table.input_topics
        }
        self._standbys.drop(set(wanted))
        missing = [place for place in sorted(wanted) if self._standbys.find(*place) is None]
        begins = await self._admin.begin_offsets([(wanted[place].changelog_topic, place[1]) for place in missing])
        for place in missing:
            table = wanted[place]
            begin = begins[table.changelog_topic, place[1]]
            self._standbys.add(table, place[1], await self._opener.to_copy(table, place[1]), begin)
        self._standbys.resume()


async def _next_of(arrived: "asyncio.Queue[RestoreRequest]", reading: "asyncio.Task[None]") -> list[RestoreRequest]:
    """What has been restored since, at least one; raises what ended the restoring."""
    if arrived.empty():
        getter = asyncio.ensure_future(arrived.get())
        try:
            await asyncio.wait({getter, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not getter.done():
                await reading  # raises what went wrong; else the last report is on its way from the other thread
            found = [await getter]
        finally:
            getter.cancel()
    else:
        found = [arrived.get_nowait()]
    while not arrived.empty():
        found.append(arrived.get_nowait())
    return found
