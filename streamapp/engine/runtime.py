"""The engine: it owns the partitions that Kafka assigns to this worker, from their restoring to their last checkpoint.

An assignment opens the stores, checks that their offsets still mean what they meant, restores from the changelog, and
only then lets records flow, from the position that the tables themselves remember. A revocation makes everything durable
first. In between, one checkpoint follows the other.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from streamapp.clock import Clock, SystemClock
from streamapp.engine.backlog import Backlog
from streamapp.engine.checkpoints import Checkpointer
from streamapp.engine.deadletters import DeadLetters
from streamapp.engine.forwarding import Forwarded, decode, encode, merged
from streamapp.engine.identity import SourceBounds, check_checkpoint, check_unread, unread_is_gone
from streamapp.engine.idle import close_idle
from streamapp.engine.key_counts import KeyCounts
from streamapp.engine.lane import SourceLane
from streamapp.engine.lease import Lease
from streamapp.engine.opening import StoreOpener
from streamapp.engine.ownership import Ownership
from streamapp.engine.preparation import prepare_topics
from streamapp.engine.restore import RestoreRequest, restore
from streamapp.engine.rocks import RocksFactory
from streamapp.engine.standby import Standbys
from streamapp.engine.tables import ForwardTap, LivePartition, RekeyedTap, RunningTable, TableTap
from streamapp.engine.tap import Tap
from streamapp.errors import ConfigurationError, FencedError, KafkaError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.producer import DurableProducer
from streamapp.kafka.waiting import kafka_answers
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.state.cache import CacheBudget
from streamapp.state.definition import TableDefinition
from streamapp.state.partition import PartitionState

log = logging.getLogger(__name__)

#: how long the broker waits for the members of a group to join again; the app's setting for Faust
REBALANCE_TIMEOUT_MS = 60_000
_LEASE_POLL_S = 0.02
TopicPartition = tuple[str, int]


class Positions(Protocol):
    """What the engine needs of the consumer."""

    async def seek_lane(self, topic: str, partition: int, offset: int) -> None:
        """Go on reading there."""
        ...

    def committed_position(self, topic: str, partition: int) -> int | None:
        """The group's position; None where unknown."""
        ...

    def has_agents(self, topic: str, partition: int) -> bool:
        """Whether agents read it, too: they go on where the group is."""
        ...

    async def commit_lane(self, topic: str, partition: int, offset: int) -> bool:
        """Commit this position, with what the engine has to tell beside it; False where the group refused."""
        ...

    def emptied_ms(self, topic: str, partition: int) -> int | None:
        """When a fetch last found nothing behind what was handed over, monotonic; None where that is not known."""
        ...

    def wake(self) -> None:
        """Look again at which partitions may be fetched."""
        ...


class Engine:
    """Runs an app's tables on the partitions that it is given.

    Args:
        app_id: the consumer group, and the prefix of internal topics.
        settings: everything that can be set.
        metrics: where figures go.
        on_failure: called once with what broke; the worker has to stop then.
    """

    def __init__(
        self,
        app_id: str,
        settings: Settings,
        metrics: Metrics,
        *,
        on_failure: Callable[[BaseException], None],
        clock: Clock | None = None,
    ) -> None:
        self.app_id = app_id
        self.settings = settings
        self.metrics = metrics
        self.clock = clock or SystemClock()
        self.tables: dict[str, RunningTable] = {}
        self.lanes: dict[TopicPartition, SourceLane] = {}
        self.cluster_id = ""
        # as patient as the producer is: both wait for the same leaders
        self.admin = KafkaAdmin(settings, self.clock, patience_ms=settings.kafka_delivery_timeout_ms)
        self.lease = Lease(
            self.clock,
            session_ms=settings.kafka_session_timeout_ms,
            rebalance_ms=REBALANCE_TIMEOUT_MS,
            margin_ms=settings.lease_margin_ms,
        )
        self.producer = DurableProducer(settings, client_id=f"{app_id}-engine", linger_ms=1.0)
        self.dead_letters = DeadLetters(metrics, self.clock, value_max_bytes=settings.max_record_bytes)
        self.on_restored: Callable[[LivePartition], None] | None = None
        self._on_failure = on_failure
        self._positions: Positions | None = None
        self._stores: RocksFactory | None = None
        self._opener: StoreOpener | None = None
        self._ownership = Ownership(
            self.producer,
            settings,
            metrics,
            self.clock,
            end_offsets=self.admin.end_offsets,
            guard=self._until_leased,
        )
        self._checkpointer = Checkpointer(
            self.producer,
            metrics,
            self.clock,
            committed=self._committed,
            timeout_ms=settings.flush_timeout_ms,
            guard=self._until_leased,
            mend=self._ownership.mend,
        )
        self.standbys = Standbys(settings, self.clock)
        self._flusher: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._cache_budget = CacheBudget(settings.cache_max_entries)
        self._backlog = Backlog(self._states, settings.cache_max_bytes)
        self._key_counts = KeyCounts()
        self._generation = 0
        self._forwarded: dict[TopicPartition, Mapping[str, Forwarded]] = {}  # what the group's commits said, once read
        self._suspended = False  # between a revocation and the next assignment: nothing here may be written
        self.revocations = 0  # how often partitions were given back; an assignment from before the last one is void

    # --- declaring ---------------------------------------------------------------------------------------------------

    def add(self, definition: TableDefinition) -> RunningTable:
        """Register a table, before `start`."""
        if definition.name in self.tables:
            raise ConfigurationError(f"table {definition.name}: there is one of that name already")
        table = RunningTable(definition, self.app_id)
        self.tables[definition.name] = table
        return table

    @property
    def input_topics(self) -> set[str]:
        """All topics that have to be consumed for tables."""
        topics = {topic for table in self.tables.values() for topic in table.input_topics}
        return topics | {table.definition.sources[0].topic for table in self.tables.values() if table.definition.rekey}

    @property
    def changelog_topics(self) -> set[str]:
        """All changelogs."""
        return {table.changelog_topic for table in self.tables.values()}

    # --- starting and stopping -----------------------------------------------------------------------------------------

    async def start(
        self, stores: RocksFactory, *, partitions: Mapping[str, int] | None = None, owner: str = ""
    ) -> None:
        """Make sure that all topics are there, learn their identities, and be ready for an assignment.

        Args:
            stores: opens local state.
            partitions: the agents' topics, and how many partitions they get if they have to be created.
            owner: what this worker is called in the changelogs that it claims.

        Raises:
            BrokerUnavailableError, TopicMismatchError, KafkaError: see the message.
        """
        self._stores = stores
        self._ownership.owner = owner
        self.cluster_id = self._checkpointer.cluster_id = await self._reach_cluster()
        self._opener = StoreOpener(stores, self.standbys, self.settings, self.cluster_id)
        await prepare_topics(self.admin, self.settings, list(self.tables.values()), partitions or {})
        await self.producer.start()
        self._flusher = asyncio.create_task(self._flush_forever(), name="checkpoints")

    def attach(self, positions: Positions) -> None:
        """Connect the consumer."""
        self._positions = positions

    async def stop(self) -> None:
        """Release everything; call `revoke` first to make it durable."""
        self._generation += 1  # nothing is to be restored any more
        await self._cancel(self._flusher)
        await self._key_counts.stop()
        await self._cancel(self._restoring)
        await self.standbys.stop()
        for lane in list(self.lanes.values()):
            await lane.stop()
        self.lanes.clear()
        for table in self.tables.values():
            for live in list(table.live.values()):
                self._close(live)
        await self.producer.stop(self.settings.kafka_request_timeout_ms / 1000)

    async def _reach_cluster(self) -> str:
        """The cluster's id; a cluster that is just starting is waited for."""
        await kafka_answers(self.settings, clock=self.clock)
        return await self.admin.cluster_id()

    # --- assignment ----------------------------------------------------------------------------------------------------

    async def assign(
        self,
        assigned: Iterable[TopicPartition],
        standbys: Iterable[TopicPartition] = (),
        *,
        revocations: int | None = None,
    ) -> None:
        """Take over these partitions; returns at once, restoring goes on in the background.

        Args:
            assigned: source partitions whose tables this worker owns from now on.
            standbys: source partitions of whose tables it keeps copies.
            revocations: what `revocations` was when the group made this assignment. Where it has moved on, nothing is taken
                over: the partitions were given back since, and their next owner may answer.
        """
        self._forwarded = {}
        if revocations is not None and revocations != self.revocations:
            log.info("an assignment of before the last revocation: nothing is taken over")
            return
        self._generation += 1
        generation = self._generation
        await self._cancel(self._restoring)
        await self.standbys.pause()
        mine = {(topic, partition) for topic, partition in assigned if topic in self.input_topics}
        for place in [place for place in self.lanes if place not in mine]:
            await self.lanes.pop(place).stop()
        if generation != self._generation:
            return  # given back while this waited; what comes next decides
        for table in self.tables.values():
            inputs = set(table.input_topics)
            owned = {partition for topic, partition in mine if topic in inputs}
            for partition in [p for p in table.live if p not in owned]:
                self._close(table.live.pop(partition))
        self._suspended = False
        self.lease.take()
        copies = {(topic, partition) for topic, partition in standbys if topic in self.input_topics} - mine
        self._restoring = asyncio.create_task(self._take_over(mine, copies), name="restore")
        self._restoring.add_done_callback(self._check_task)

    async def _follow(self, copies: set[TopicPartition]) -> None:
        """Keep copies of these partitions, and of no others."""
        wanted = {
            (table.name, partition): table
            for table in self.tables.values()
            for topic, partition in copies
            if topic in table.input_topics
        }
        self.standbys.drop(set(wanted))
        missing = [place for place in sorted(wanted) if self.standbys.find(*place) is None]
        begins = await self.admin.begin_offsets([(wanted[place].changelog_topic, place[1]) for place in missing])
        for place in missing:
            table = wanted[place]
            assert self._opener is not None
            begin = begins[table.changelog_topic, place[1]]
            self.standbys.add(table, place[1], await self._opener.to_copy(table, place[1]), begin)
        self.standbys.resume()

    async def _take_over(self, mine: set[TopicPartition], copies: set[TopicPartition]) -> None:
        requests: list[RestoreRequest] = []
        by_request: dict[int, LivePartition] = {}
        places = [
            (table, partition)
            for table in self.tables.values()
            for partition in sorted({p for topic, p in mine if topic in table.input_topics})
        ]
        changelogs = [(table.changelog_topic, partition) for table, partition in places]
        begins, ends = await asyncio.gather(self.admin.begin_offsets(changelogs), self.admin.end_offsets(changelogs))
        bounds = await self._source_bounds(mine)
        self._forwarded = {place: here.forwarded for place, here in bounds.items()}
        for table, partition in places:
            live = table.live.get(partition)
            place = (table.changelog_topic, partition)
            if live is None:
                assert self._opener is not None
                live = table.live[partition] = await self._opener.to_own(table, partition, begins[place], ends[place])
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
            by_request[id(request)] = live
        await self._look_again(requests)
        generation = self._generation
        pending: dict[TopicPartition, int] = {}
        for table, partition in places:
            for topic in table.input_topics:
                pending[topic, partition] = pending.get((topic, partition), 0) + 1
        arrived: asyncio.Queue[RestoreRequest] = asyncio.Queue()
        reading = asyncio.create_task(
            restore(
                requests,
                self.settings,
                self.clock,
                on_restored=arrived.put_nowait,
                is_wanted=lambda request: generation == self._generation,
            )
        )
        try:
            for place in mine - set(pending):
                await self._open_lane(place, bounds)  # only forwarded from, nothing to restore
            left = len(requests)
            while left:
                restored = await _next_of(arrived, reading)
                left -= len(restored)
                lives = [by_request[id(request)] for request in restored]
                await self._ownership.claim([live for live in lives if live.state is None or live.ledger is None])
                for live, request in zip(lives, restored, strict=True):
                    self._activate(live, request, bounds)
                    for topic in live.table.input_topics:
                        place = (topic, live.partition)
                        pending[place] -= 1
                        if pending[place] == 0 and place in mine:
                            await self._open_lane(place, bounds)
            await reading
        finally:
            await self._cancel(reading)
        await self._follow(copies)

    def _activate(
        self, live: LivePartition, request: RestoreRequest, bounds: Mapping[TopicPartition, SourceBounds]
    ) -> None:
        """Build the state over a restored store, or keep the one in memory where nothing was missing."""
        table = live.table
        if request.records:
            live.restored_records += request.records
            self.metrics.restore_records.labels(table.name).inc(request.records)
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
                check_checkpoint(table, live.partition, checkpoint, self.cluster_id, here)
            elif table.definition.start == "latest" and table.definition.rekey is None:
                for index, topic in enumerate(table.input_topics):
                    state.applied[index] = here[topic].end - 1
            state.epoch = live.epoch
            live.state = state
        log.info(
            "table %s, partition %d: ready, %d records from the changelog", table.name, live.partition, request.records
        )
        self._key_counts.add(live)
        if self.on_restored is not None:
            self.on_restored(live)

    async def _open_lane(self, place: TopicPartition, bounds: Mapping[TopicPartition, SourceBounds]) -> None:
        """Let the records of a source partition flow, from where the tables want them."""
        assert self._positions is not None
        topic, partition = place
        before = self.lanes.get(place)
        if before is not None:
            await before.stop()
        taps = self._taps(topic, partition, bounds[place])
        lane = SourceLane(
            topic,
            partition,
            taps,
            dead_letters=self.dead_letters,
            metrics=self.metrics,
            clock=self.clock,
            max_future_ms=self.settings.max_future_ms,
            max_record_bytes=self.settings.max_record_bytes,
            queue_max_records=self.settings.batch_queue_max_records,
            native=self.settings.native,
            until_room=self._backlog.until_room,
        )
        here = bounds[place]
        fallback = here.committed if here.committed is not None else here.begin
        wanted = [position if position is not None else fallback for position in (tap.position() for tap in taps)]
        if self._positions.has_agents(topic, partition):
            wanted.append(fallback)  # what is read goes to them as well; tables pass over what they have counted
        check_unread(taps, place, fallback, here)
        position = max(min(wanted), here.begin)
        lane.applied = lane.durable = position - 1
        if before is not None:
            lane.rejected = before.rejected  # a state that stays in memory has passed over their records
        self.lanes[place] = lane
        if self._begins_at_the_latest(topic, here):
            await self._commit_begin(place, here.committed if here.committed is not None else position)
        await self._positions.seek_lane(topic, partition, position)
        lane.start(self._positions.wake, self._on_failure)
        lane.ready = True
        self._positions.wake()

    def _taps(self, topic: str, partition: int, here: SourceBounds) -> list[Tap]:
        taps: list[Tap] = []
        for table in self.tables.values():
            definition = table.definition
            if definition.rekey is not None:
                if topic == table.rekey_topic:
                    taps.append(RekeyedTap(table.live[partition], 0, self.metrics))
                elif topic == definition.sources[0].topic:
                    taps.append(ForwardTap(table, partition, self.producer, _first_to_forward(table, here)))
                continue
            for index, source in enumerate(definition.sources):
                if source.topic == topic:
                    taps.append(TableTap(table.live[partition], index, self.metrics))
        return taps

    def _begins_at_the_latest(self, topic: str, here: SourceBounds) -> bool:
        """Whether a re-keyed table begins here that takes only what comes from now on; others note it in a checkpoint."""
        return any(
            table.definition.rekey is not None
            and table.definition.start == "latest"
            and table.definition.sources[0].topic == topic
            and table.next_to_forward(here.forwarded) is None
            for table in self.tables.values()
        )

    async def _commit_begin(self, place: TopicPartition, offset: int) -> None:
        """Note where a table begins before it does: after a crash, `latest` would be later, and what lies between missing.

        Raises:
            KafkaError: the group did not take it in time.
        """
        assert self._positions is not None
        timeout_ms = self.settings.kafka_delivery_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    if await self._positions.commit_lane(*place, offset):
                        return
                    # refused in a rebalance, whose revocation ends this
                    await asyncio.sleep(_LEASE_POLL_S * random.uniform(0.5, 1.5))
        except TimeoutError:
            raise KafkaError(
                f"the group {self.app_id} did not take a commit on {place[0]}-{place[1]} within {timeout_ms} ms, which "
                "tells where a table begins; check the brokers, or raise STREAMAPP_KAFKA_DELIVERY_TIMEOUT_MS"
            ) from None

    async def _look_again(self, requests: Sequence[RestoreRequest]) -> None:
        """Where a store is ahead of the end that was found: a checkpoint of before may have been written since."""
        ahead = [request for request in requests if request.position > request.end]
        ends = await self.admin.end_offsets([(request.topic, request.partition) for request in ahead])
        for request in ahead:
            request.end = ends[request.topic, request.partition]

    async def _source_bounds(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, SourceBounds]:
        wanted = list(places)
        begins, ends, committed = await asyncio.gather(
            self.admin.begin_offsets(wanted), self.admin.end_offsets(wanted), self.admin.commits(self.app_id, wanted)
        )
        found: dict[TopicPartition, SourceBounds] = {}
        for place in wanted:
            commit = committed[place]
            position, told = (None, "") if commit is None else (commit.offset, commit.metadata)
            found[place] = SourceBounds(begins[place], ends[place], position, decode(told))
        return found

    def _close(self, live: LivePartition) -> None:
        live.state = None
        live.store.close()

    # --- revocation and checkpoints ------------------------------------------------------------------------------------

    async def revoke(self) -> bool:
        """Stop all lanes and make what they merged durable; the partitions stay open until the next assignment.

        Returns:
            False where they belong to somebody else already: what was merged is dropped then, and nothing may be committed.
        """
        self.revocations += 1
        self._generation += 1
        self._suspended = True
        await self._cancel(self._restoring)
        for lane in list(self.lanes.values()):
            await lane.stop()
        if self.lease.released and not self.lease.forgotten:
            return True  # a stop in the middle of a rebalance: all is durable since the revocation
        try:
            if not self.lease.forgotten:
                await self.flush()
                # tells that the final records of the first are out, so that the next owner need not repeat them
                await self.flush()
                self.lease.release()
                return True
        except FencedError:
            pass
        await self._give_up()
        return False

    async def _give_up(self) -> None:
        """Drop all that is not durable: the partitions were assigned to others while this worker was not heard of."""
        self._suspended = True
        self._generation += 1
        if self.lanes:
            log.warning("the group went on without this worker: what it merged since its last checkpoint is dropped")
        await self._cancel(self._restoring)
        self._restoring = None
        for lane in list(self.lanes.values()):
            await lane.stop()
        self.lanes.clear()
        self._forwarded = {}
        self.dead_letters.forget()
        await self._checkpointer.reset()
        for table in self.tables.values():
            while table.live:
                self._close(table.live.popitem()[1])

    async def _until_leased(self) -> None:
        """Return once nobody else can own the partitions here.

        A lease that ran out may be renewed (the brokers were away); until it is, nothing is written.

        Raises:
            FencedError: the group has forgotten this member.
        """
        while not self.lease.valid:
            if self.lease.forgotten:
                raise FencedError("the group has assigned this worker's partitions anew; nothing more is written here")
            # the answer comes in the consumer's thread; what waits here is bounded by the checkpoint's time-out
            await asyncio.sleep(_LEASE_POLL_S)

    async def flush(self) -> None:
        """One checkpoint of everything."""
        partitions = [live for table in self.tables.values() for live in table.live.values()]
        try:
            await self._checkpointer.flush(partitions, self.lanes.values())
        finally:
            self._backlog.flushed()

    async def _flush_forever(self) -> None:
        """Checkpoint after every interval, or earlier when much has piled up."""
        interval_ms = self.settings.commit_interval_ms
        step_s = min(interval_ms, 50) / 1000
        due_ms = self.clock.monotonic_ms() + interval_ms
        try:
            while True:
                await asyncio.sleep(step_s)
                now_ms = self.clock.monotonic_ms()
                if self._suspended or not self.lease.valid or (now_ms < due_ms and not self._backlog.urgent):
                    continue
                if self._positions is not None:
                    close_idle(self.lanes.values(), self.settings.idle_timeout_ms, self._positions.emptied_ms)
                try:
                    await self.flush()
                except FencedError:
                    if self.lease.forgotten:  # else a revocation has dropped everything meanwhile
                        await self._give_up()
                due_ms = self.clock.monotonic_ms() + interval_ms
        except asyncio.CancelledError:
            raise
        except Exception as problem:
            self._on_failure(problem)

    def _states(self) -> Iterable[PartitionState]:
        return (live.state for table in self.tables.values() for live in table.live.values() if live.state is not None)

    def _committed(self, topic: str, partition: int) -> int:
        position = self._positions.committed_position(topic, partition) if self._positions is not None else None
        return -1 if position is None else position

    # --- what others ask -----------------------------------------------------------------------------------------------

    def source_gone(self, topic: str, partition: int, position: int | None) -> None:
        """Stop: what comes next of a source partition is not there any more, though it was not read yet."""
        names = sorted(
            name
            for name, table in self.tables.items()
            if topic in table.input_topics or topic == table.definition.sources[0].topic
        )
        self._on_failure(unread_is_gone(topic, partition, position, names))

    def held(self, topic: str, partition: int) -> bool:
        """Whether this source partition must not be fetched now.

        It is being restored, its queue is full, the lease is over, or more is waiting for a checkpoint than memory is for.
        """
        lane = self.lanes.get((topic, partition))
        if lane is None or not lane.ready or lane.full or not self.lease.valid:
            return True
        return self._backlog.overfull

    def commit_metadata(self, topic: str, partition: int) -> str | None:
        """What a commit on this source partition has to tell; None where that is not known yet, and none may be made.

        A commit replaces what the last one told, so one that is made before that was read would make it forgotten.
        """
        place = (topic, partition)
        found = self._forwarded.get(place)
        if found is None:
            return None if topic in self.input_topics else ""
        lane = self.lanes.get(place)
        taps = lane.taps if lane is not None else ()
        own = {tap.name: tap.forwarded(lane.durable + 1) for tap in taps if lane and isinstance(tap, ForwardTap)}
        return encode(merged(found, own))

    @property
    def settled(self) -> bool:
        """Whether an assignment has come and every lane that it brought is open."""
        return self._generation > 0 and self._restoring is not None and self._restoring.done()

    def held_on_disk(self) -> dict[str, list[list[int]]]:
        """Topic -> [partition, ms of the last write] of all state on this disk; called from the consumer's thread."""
        held: dict[str, dict[int, int]] = {}
        for table in self.tables.values():
            written = self._stores.written(table.name) if self._stores is not None else {}
            for partition, written_ms in written.items():
                if partition in table.live or self.standbys.find(table.name, partition) is not None:
                    written_ms = self.clock.now_ms()  # a folder only tells of files that come and go
                for topic in table.input_topics:
                    known = held.setdefault(topic, {})
                    known[partition] = max(written_ms, known.get(partition, 0))
        return {topic: [list(pair) for pair in sorted(known.items())] for topic, known in held.items()}

    def unrestored(self) -> Sequence[str]:
        """`table-partition` of everything that is assigned and not restored."""
        return [
            f"{table.name}-{live.partition}"
            for table in self.tables.values()
            for live in table.live.values()
            if live.state is None
        ]

    @staticmethod
    async def _cancel(task: "asyncio.Task[None] | None") -> None:
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _check_task(self, task: "asyncio.Task[None]") -> None:
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, FencedError) and self.lease.forgotten:
            # the member joins again, which revokes what it was about to take over, and brings what it gets instead
            log.warning("the group went on without this worker while it took partitions over: it joins again")
        elif problem is not None:
            self._on_failure(problem)


def _first_to_forward(table: RunningTable, here: SourceBounds) -> int:
    """Where a re-keyed table goes on, or begins."""
    known = table.next_to_forward(here.forwarded)
    if known is not None:
        return known
    if table.definition.start == "latest":
        return here.committed if here.committed is not None else here.end
    return 0


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
