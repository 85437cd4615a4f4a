"""The engine: it owns the partitions that Kafka assigns to this worker, from their restoring to their last checkpoint.

An assignment is taken over in the background (`takeover`): stores are opened, brought up to date and claimed, and only then
records flow (`source_lanes`). A revocation makes everything durable first. In between, one checkpoint follows the other
(`checkpoint_timer`, `checkpoints`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from streamapp.clock import Clock, SystemClock
from streamapp.engine.backlog import Backlog
from streamapp.engine.checkpoint_timer import CheckpointTimer
from streamapp.engine.checkpoints import Checkpointer
from streamapp.engine.deadletters import DeadLetters
from streamapp.engine.freed_memory import FreedMemory
from streamapp.engine.identity import unread_is_gone
from streamapp.engine.idle import close_idle
from streamapp.engine.key_counts import KeyCounts
from streamapp.engine.lane import COLUMN_CHUNK_MAX_RECORDS
from streamapp.engine.lease import Lease
from streamapp.engine.opening import StoreOpener
from streamapp.engine.ownership import Ownership
from streamapp.engine.preparation import prepare_topics
from streamapp.engine.rocks import RocksFactory
from streamapp.engine.source_lanes import SourceConsumer, SourceLanes, TopicPartition
from streamapp.engine.standby import Standbys
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.engine.takeover import TakeOver
from streamapp.errors import ConfigurationError, FencedError
from streamapp.importing import load_columns
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.producer import DurableProducer
from streamapp.kafka.waiting import kafka_answers
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.state.definition import TableDefinition
from streamapp.state.partition import PartitionState

log = logging.getLogger(__name__)

#: how long the broker waits for the members of a group to join again; the app's setting for Faust
REBALANCE_TIMEOUT_MS = 60_000


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
        self._stores: RocksFactory | None = None
        self._ownership = Ownership(
            self.producer,
            settings,
            metrics,
            self.clock,
            end_offsets=self.admin.end_offsets,
            guard=self.lease.until_valid,
        )
        self._sources = SourceLanes(
            app_id,
            self.tables,
            settings,
            metrics,
            self.clock,
            admin=self.admin,
            producer=self.producer,
            dead_letters=self.dead_letters,
            until_room=self._until_room,
            on_failure=on_failure,
        )
        self.lanes = self._sources.lanes
        self._backlog = Backlog(self._states, self.lanes, settings.cache_max_bytes)
        self._checkpointer = Checkpointer(
            self.producer,
            metrics,
            self.clock,
            committed=self._sources.committed,
            timeout_ms=settings.flush_timeout_ms,
            guard=self.lease.until_valid,
            mend=self._ownership.mend,
        )
        self.standbys = Standbys(settings, self.clock)
        self._timer = CheckpointTimer(
            settings.commit_interval_ms,
            self.clock,
            checkpoint=self._checkpoint,
            is_due_early=lambda: self._backlog.urgent,
            is_held=lambda: self._suspended or not self.lease.valid,
            on_failure=on_failure,
        )
        self._key_counts = KeyCounts()
        self._freed_memory = FreedMemory()
        self._loading: asyncio.Future[None] | None = None  # of what chunks are worked on with
        self._takeover: TakeOver | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._generation = 0
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
        return {topic for table in self.tables.values() for topic in table.consumed_topics}

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
        # a cluster that is just starting is waited for
        self.cluster_id = self._checkpointer.cluster_id = await kafka_answers(self.settings, clock=self.clock)
        self._takeover = TakeOver(
            self.tables,
            self.settings,
            self.metrics,
            self.clock,
            admin=self.admin,
            opener=StoreOpener(stores, self.standbys, self.settings, self.cluster_id),
            ownership=self._ownership,
            lanes=self._sources,
            standbys=self.standbys,
            cluster_id=self.cluster_id,
            on_restored=self._restored,
        )
        await prepare_topics(self.admin, self.settings, list(self.tables.values()), partitions or {})
        await self.producer.start()
        self._timer.start()

    def attach(self, consumer: SourceConsumer) -> None:
        """Connect the consumer."""
        self._sources.attach(consumer)

    async def stop(self) -> None:
        """Release everything; call `revoke` first to make it durable."""
        self._generation += 1  # nothing is to be restored any more
        await self._timer.stop()
        await self._key_counts.stop()
        await self._cancel(self._restoring)
        await self.standbys.stop()
        await self._sources.stop()
        for table in self.tables.values():
            for live in list(table.live.values()):
                self._close(live)
        await self.producer.stop(self.settings.kafka_request_timeout_ms / 1000)

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
        self._sources.forget_commits()
        if revocations is not None and revocations != self.revocations:
            log.info("an assignment of before the last revocation: nothing is taken over")
            return
        self._generation += 1
        generation = self._generation
        await self._cancel(self._restoring)
        await self.standbys.pause()
        mine = {(topic, partition) for topic, partition in assigned if topic in self.input_topics}
        await self._sources.keep(mine)
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
        assert self._takeover is not None
        taking_over = self._takeover.run(mine, copies, is_wanted=lambda: generation == self._generation)
        self._restoring = asyncio.create_task(taking_over, name="restore")
        self._restoring.add_done_callback(self._check_task)

    def _restored(self, live: LivePartition) -> None:
        self._key_counts.add(live)
        if self.on_restored is not None:
            self.on_restored(live)

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
        await self._sources.pause()
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
        await self._sources.stop()
        self._sources.forget_commits()
        self.dead_letters.forget()
        await self._checkpointer.reset()
        for table in self.tables.values():
            while table.live:
                self._close(table.live.popitem()[1])

    async def flush(self) -> None:
        """One checkpoint of everything."""
        partitions = [live for table in self.tables.values() for live in table.live.values()]
        try:
            await self._checkpointer.flush(partitions, self.lanes.values())
        finally:
            self._backlog.flushed()

    async def _checkpoint(self) -> None:
        """What the timer asks for: windows of silent sources are closed as well, and lost partitions are given up."""
        close_idle(self.lanes.values(), self.settings.idle_timeout_ms, self._sources.emptied_ms)
        try:
            await self.flush()
            self._sources.tell_origins()
        except FencedError:
            if self.lease.forgotten:  # else a revocation has dropped everything meanwhile
                await self._give_up()
        await self._freed_memory.look(sum(state.changes for state in self._states()))

    def _load(self) -> "asyncio.Future[None]":
        """Begin, once, to import what chunks are worked on with, in a thread; restoring and reads do without it."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(load_columns))
        return self._loading

    async def _until_room(self, place: TopicPartition) -> None:
        """What a lane awaits before each chunk: what it is worked on with, and memory for what it changes."""
        await asyncio.shield(self._load())
        lane = self.lanes.get(place)
        await self._backlog.until_room(place, min(lane.queued, COLUMN_CHUNK_MAX_RECORDS) if lane is not None else 0)

    def _states(self) -> Iterable[PartitionState]:
        return (live.state for table in self.tables.values() for live in table.live.values() if live.state is not None)

    # --- what others ask -----------------------------------------------------------------------------------------------

    def source_gone(self, topic: str, partition: int, position: int | None) -> None:
        """Stop: what comes next of a source partition is not there any more, though it was not read yet."""
        names = sorted(name for name, table in self.tables.items() if topic in table.consumed_topics)
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
        return self._sources.commit_metadata(topic, partition)

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
        elif not task.cancelled():
            self._load()  # the worker is ready now; the first record, whenever it comes, is not to wait for it
