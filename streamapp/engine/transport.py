"""Faust's transport, replaced where its path costs exactness or speed.

What is different from the stock consumer of faust-streaming 0.15.3, and why:

- whole batches, undecoded, go to the engine's lanes (`fetching`); the stock path costs four tasks per record;
- agents get their records from a feeder per partition, so that one stalled agent holds back its partition and no other;
- positions to commit come from the lanes' durable offsets and from `AckTracker`: the stock arithmetic can commit past a
  record that is not acknowledged;
- a revocation makes state durable and commits *before* the stock code drops its bookkeeping: otherwise every rebalance
  replays up to a commit interval.

This module touches private members of Faust and aiokafka. Each use says why; tests/integration/test_engine_contract.py
fails with the name of what changed when the pinned version does.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from aiokafka.errors import ConsumerStoppedError
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streamapp.engine.acks import AckTracker
from streamapp.engine.batching import Batching
from streamapp.engine.consumer_thread import LaneConsumerThread
from streamapp.engine.feeder import AgentFeeder
from streamapp.errors import ConfigurationError
from streamapp.kafka.record_batch import RecordBatch

if TYPE_CHECKING:
    from streamapp.app import StreamApp

#: how long the loop waits for records while some partitions are held, so that these are looked at again
_HELD_POLL_S = 0.05
_POLL_S = 0.5

log = logging.getLogger(__name__)


class LaneConsumer(driver.Consumer):  # type: ignore[misc]
    """Hands lists of records to lanes and agents, and commits what they are done with."""

    app: "StreamApp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acks: dict[TP, AckTracker] = {}
        self._feeders: dict[TP, AgentFeeder] = {}
        self._group_positions: dict[TP, int | None] = {}
        self._told: dict[TP, str] = {}  # what the last commit of this assignment told beside its position
        self._revocations = 0  # the engine's count when the present assignment came
        self._wake = asyncio.Event()
        self._emptied_ms: dict[TP, int] = {}
        self._watches_idle = self.app.settings.idle_timeout_ms > 0
        settings = self.app.settings
        self._batching = Batching(
            self.app.clock,
            settings.fetch_pace_ms / 1000,
            max(settings.fetch_pace_ms, settings.fetch_pace_max_ms) / 1000,
        )
        self._set_pace()
        self.app.engine.attach(self)

    def _new_consumer_thread(self) -> LaneConsumerThread:
        return LaneConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        # the stock method reads fields that only a ConsumerRecord has
        key, value = record.key, record.value
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp / 1000 if record.timestamp is not None else None,
            record.timestamp_type,
            record.headers,
            key,
            value,
            record.checksum,
            len(key) if key is not None else -1,
            len(value) if value is not None else -1,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    # --- subscribing and positions ---------------------------------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Subscribe to the agents' topics and to those of the tables."""
        await super().subscribe(frozenset(topics) | self.app.engine.input_topics)

    async def perform_seek(self) -> None:
        """Called when a rebalance is over: agents go on where the group is, tables where they themselves are."""
        # Faust calls this some time after an assignment; the next rebalance may have revoked it by then, or does so during
        # the seeking. The count is that of the assignment which this call is about: a newer one cancels the call
        revocations = self._revocations
        await self._end_flow()
        await super().perform_seek()
        self._group_positions, self._told = dict(self._committed_offset), {}
        standbys = self.app.assignor.assigned_standbys()
        await self.app.engine.assign(
            ((tp.topic, tp.partition) for tp in self.assignment()),
            ((tp.topic, tp.partition) for tp in standbys),
            revocations=revocations,
        )

    async def seek_lane(self, topic: str, partition: int, offset: int) -> None:
        """Go on reading a table's source at this offset."""
        tp = TP(topic, partition)
        # nothing of it is on its way: no fetch asks for it before the lane is open, or between two answers
        await self.seek(tp, offset)
        self._emptied_ms.pop(tp, None)
        state = self._partition_state(topic, partition)
        if state is not None:
            # where an offset is gone aiokafka would go on at the beginning: past what retention has deleted unread
            state.await_reset = functools.partial(self._source_gone, tp, state)

    async def _seek(self, partition: TP, offset: int) -> None:
        await self._thread.set_position(partition, offset)

    def _source_gone(self, tp: TP, state: Any, _strategy: Any) -> None:
        # called in the consumer's thread, in the place of a reset, again and again until the worker has stopped
        position = state.position if state.has_valid_position else None
        self.app.loop.call_soon_threadsafe(self.app.engine.source_gone, tp.topic, tp.partition, position)

    def committed_position(self, topic: str, partition: int) -> int | None:
        """The position that was last committed, or found, for a partition."""
        return self._group_positions.get(TP(topic, partition))

    def has_agents(self, topic: str, partition: int) -> bool:
        """Whether agents read it: the conductor's own index, as its message handler uses it."""
        return bool(self.app.topics._tp_index.get(TP(topic, partition)))

    async def commit_lane(self, topic: str, partition: int, offset: int) -> bool:
        """Commit a position now, before anything of the partition is handed out."""
        return await self._commit({TP(topic, partition): offset})

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        # beside the stock ones: positions that have not moved, where the engine has more to tell with them than it had
        places = list(tps)
        found: dict[TP, int] = super()._filter_committable_offsets(places)
        for tp in places:
            told, position = self._told_by(tp), self._group_positions.get(tp)
            if told is None:
                found.pop(tp, None)
            elif tp not in found and position is not None and told and told != self._told.get(tp):
                found[tp] = position
        return found

    def _told_by(self, tp: TP) -> str | None:
        return self.app.engine.commit_metadata(tp.topic, tp.partition)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # the stock method commits without metadata, and what the last commit told would be lost
        told = {tp: text for tp in offsets if (text := self._told_by(tp)) is not None}
        known = {tp: (offset, told[tp]) for tp, offset in offsets.items() if tp in told}
        try:
            done: bool = await self._thread.commit_told(known)
        except ConsumerStoppedError:
            log.warning("the consumer ended before it committed: what is not committed is read again")
            return False
        # Faust notes a commit as done even where a rebalance refused it; a checkpoint must not tell of such a position
        if done:
            self._group_positions.update({tp: offsets[tp] for tp in known})
            self._told.update(told)
        return done

    def fetch_state(self, topic: str, partition: int) -> tuple[int, int] | None:
        """End offset and time (ms since the epoch) of the latest answered fetch of a partition; None before the first."""
        state = self._partition_state(topic, partition)
        if state is None or state.highwater is None or state.timestamp is None:
            return None
        return state.highwater, state.timestamp

    def emptied_ms(self, topic: str, partition: int) -> int | None:
        """When a fetch last found nothing behind what was handed over, monotonic; None where none has yet.

        Only kept where idle partitions close their windows.
        """
        return self._emptied_ms.get(TP(topic, partition))

    def _note_emptied(self, fetched: Iterable[TP]) -> None:
        # what these fetches brought has been handed over; the other thread may have asked again meanwhile, so the time of
        # an answer is read before what it said: an older time for newer words does no harm
        clock = self.app.clock
        now_ms, now = clock.now_ms(), clock.monotonic_ms()
        for tp in fetched:
            state = self._partition_state(tp.topic, tp.partition)
            answered_ms = state.timestamp if state is not None else None
            if answered_ms is None or not state.has_valid_position or state.highwater is None:
                continue
            if state.highwater <= state.position:
                self._emptied_ms[tp] = now - max(0, now_ms - answered_ms)

    def _partition_state(self, topic: str, partition: int) -> Any:
        # aiokafka keeps position, end and time of the last answer per partition; Faust passes on only the end
        consumer = self._thread._consumer
        if consumer is None:
            return None
        assignment = consumer._subscription.subscription
        assignment = assignment.assignment if assignment is not None else None
        tp = self._new_topicpartition(topic, partition)
        if assignment is None or tp not in assignment.tps:
            return None
        return assignment.state_value(tp)

    def wake(self) -> None:
        """Look again at which partitions may be fetched."""
        self._wake.set()

    # --- fetching --------------------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        # replaces the stock loop: see the module's text
        stopped = (self._stopped, fetcher._stopped)
        try:
            while not any(event.is_set() for event in stopped):
                if not self.flow_active:
                    await self.wait_for_stopped(self.can_resume_flow)
                    continue
                active, held = self._fetchable()
                if not active:
                    await self._wait_for_wake()
                    continue
                records = await self._getmany(active_partitions=active, timeout=_HELD_POLL_S if held else _POLL_S)
                if self.flow_active:
                    for tp, batches in (records or {}).items():
                        await self._hand_over(TP(tp.topic, tp.partition), batches)
                    if self._watches_idle:
                        self._note_emptied(active)
                    if self._batching.look(self.app.engine.lanes.values()):
                        self._set_pace()
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    def _set_pace(self) -> None:
        pace = self._batching.pace
        self._thread.pace(pace)
        self.app.metrics.fetch_pace.set(pace.pause_s)

    async def _wait_for_wake(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), _POLL_S)
        self._wake.clear()

    def _fetchable(self) -> tuple[set[TP], bool]:
        """Partitions to fetch now, and whether any other is held back."""
        assigned = self._get_active_partitions()
        engine, table_topics = self.app.engine, self.app.engine.input_topics
        active = set()
        for tp in assigned:
            if tp.topic in table_topics and engine.held(tp.topic, tp.partition):
                continue
            feeder = self._feeders.get(tp)
            if feeder is not None and feeder.full:
                continue
            active.add(tp)
        return active, len(active) < len(assigned)

    async def _hand_over(self, tp: TP, batches: Sequence[RecordBatch]) -> None:
        # the stock code measures lag and liveness by this
        self._read_offset[tp] = batches[-1].next_offset - 1
        lane = self.app.engine.lanes.get((tp.topic, tp.partition))
        if lane is not None and lane.ready and not lane.offer(batches):
            # whatever has moved the position: nothing is left out, neither by tables nor by agents
            log.warning(
                "%s-%s: a fetch did not begin at %s; reading on there", tp.topic, tp.partition, lane.next_offset
            )
            await self.seek_lane(tp.topic, tp.partition, lane.next_offset)
            return
        records = [record for batch in batches for record in batch.records()] if self.has_agents(*tp) else []
        if records:
            feeder = self._feeders.get(tp)
            if feeder is None:
                tracker = self._acks[tp] = AckTracker()
                feeder = self._feeders[tp] = AgentFeeder(self, tp, tracker)
            feeder.offer(records)

    # --- acknowledging ---------------------------------------------------------------------------------------------

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[TP]:
        places = {TP(*place) for place in self.app.engine.lanes} | set(self._acks)
        return [tp for tp in places if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        # replaces the stock arithmetic, which can step over a record that is not acknowledged
        positions: list[int | None] = []
        lane = self.app.engine.lanes.get((tp.topic, tp.partition))
        if lane is not None:
            positions.append(lane.durable + 1)
        tracker = self._acks.get(tp)
        if tracker is not None:
            positions.append(tracker.position())
        if not positions or any(position is None for position in positions):
            return None
        position = min(position for position in positions if position is not None)
        return position or None

    # --- rebalancing and stopping ----------------------------------------------------------------------------------

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Note what has been revoked by now: a revocation after this makes the assignment void, also while Faust handles it.

        aiokafka awaits the one callback before it calls the next, so each assignment follows the revocation before it.
        """
        self._revocations = self.app.engine.revocations
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Make durable and commit first; the stock code forgets what was acknowledged before it commits."""
        await self._end_flow()
        await self._settle()
        await super().on_partitions_revoked(revoked)

    async def _end_flow(self) -> None:
        # a fetch that waits would take what comes first of the next assignment, to be dropped while nothing flows, with the
        # position behind it; where the group has none, aiokafka sets none either
        self.stop_flow()
        await self._thread.end_fetches()

    async def on_stop(self) -> None:
        """The same on a planned stop."""
        await self._settle()
        await super().on_stop()

    def close(self) -> None:
        """Do nothing: Faust calls this for a rebalance that falls into a stop, and the stop closes the consumer in its turn.

        The stock method closes what belongs to the consumer's thread from the loop of the main thread, in the middle of the
        rebalance: the last commit then finds no coordinator, and no goodbye is said to the group, so that the others wait
        for the session's end; or the process ends in the middle.
        """

    async def _settle(self) -> None:
        for feeder in self._feeders.values():
            await feeder.stop()
        self._feeders.clear()
        try:
            still_ours = await self.app.engine.revoke()
        except Exception as problem:
            self.app.fail(problem)
            return
        if still_ours:
            await self.commit()
        self._acks.clear()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """The stock watchdog knows only streams; lag and queue metrics tell what is slow here."""


class LaneTransport(driver.Transport):  # type: ignore[misc]
    """The aiokafka transport with this module's consumer."""

    Consumer: ClassVar[Any] = LaneConsumer


class StateTableManager(TableManager):  # type: ignore[misc]
    """Tells Faust of the engine's changelogs.

    Their presence makes Faust use its own co-partitioning assignor, which also spreads every worker's URL; without them
    it would assign topic by topic, round robin. The engine writes and restores them itself, so no Faust table exists.
    """

    def add(self, table: Any) -> NoReturn:
        """Refuse a table of Faust's own: nothing would assign or restore its changelog.

        Raises:
            ConfigurationError: always; it says what to declare in its place.
        """
        raise ConfigurationError(
            f"{type(table).__name__} {table.name!r}: expected app.latest_table(...) or app.window_table(...), got one of "
            "Faust's own tables, which are not kept here. Declare what an agent would write into it as an aggregate; "
            "Fold(initial, step) takes any function"
        )

    @property
    def changelog_topics(self) -> set[str]:
        """The changelogs of Faust's tables and of the engine's."""
        app = cast("StreamApp", self.app)
        return set(super().changelog_topics) | app.engine.changelog_topics

    async def on_start(self) -> None:
        """The stock start, less its pause of a second (there is nothing to wait for: tables are declared up front)."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()
