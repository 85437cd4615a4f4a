"""The source partitions that this worker reads for its tables: where each begins, what it feeds, and what a commit tells.

A lane begins where the tables that it feeds want it, not where the group is. What re-keyed tables have forwarded is told
beside the group's position (`forwarding`), so nothing may be committed on a source before that was read.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from streamapp.clock import Clock
from streamapp.engine.deadletters import DeadLetters
from streamapp.engine.forwarding import Forwarded, encode, merged
from streamapp.engine.identity import SourceBounds, check_unread, source_bounds
from streamapp.engine.lane import SourceLane
from streamapp.engine.rekeying import ForwardTap, RekeyedTap
from streamapp.engine.tables import RunningTable, TableTap
from streamapp.engine.tap import Tap
from streamapp.engine.turns import Turns
from streamapp.errors import KafkaError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.producer import DurableProducer
from streamapp.metrics import Metrics
from streamapp.settings import Settings

_COMMIT_RETRY_S = 0.02
TopicPartition = tuple[str, int]


class SourceConsumer(Protocol):
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


class SourceLanes:
    """Opens the lanes of source partitions, and knows what a commit on them has to tell.

    Args:
        app_id: the consumer group.
        tables: the app's, by name.
        settings, metrics, clock: of the lanes.
        admin: asked what the broker holds of a source partition.
        producer: forwards the records of re-keyed tables.
        dead_letters: makes the messages for what cannot be used.
        until_room: awaited by a lane, which it is told, before each chunk.
        on_failure: called with what broke a lane.

    Attributes:
        lanes: by (topic, partition); the same dictionary for good.
    """

    def __init__(
        self,
        app_id: str,
        tables: Mapping[str, RunningTable],
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        *,
        admin: KafkaAdmin,
        producer: DurableProducer,
        dead_letters: DeadLetters,
        until_room: Callable[[TopicPartition], Awaitable[None]],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.lanes: dict[TopicPartition, SourceLane] = {}
        self._app_id = app_id
        self._tables = tables
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._admin = admin
        self._producer = producer
        self._dead_letters = dead_letters
        self._until_room = until_room
        self._on_failure = on_failure
        self._turns = Turns()
        self._consumer: SourceConsumer | None = None
        self._next_told_ms = 0
        self._telling: asyncio.Task[None] | None = None
        self._forwarded: dict[TopicPartition, Mapping[str, Forwarded]] = {}  # what the group's commits said, once read

    def attach(self, consumer: SourceConsumer) -> None:
        """Connect the consumer."""
        self._consumer = consumer

    # --- opening and closing -------------------------------------------------------------------------------------------

    async def ask(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, SourceBounds]:
        """What the broker says of these source partitions; from now on commits on them, and on no others, can be made."""
        found = await source_bounds(self._admin, self._app_id, places)
        self._forwarded = {place: here.forwarded for place, here in found.items()}
        return found

    async def open(self, place: TopicPartition, here: SourceBounds) -> None:
        """Let the records of a source partition flow, from where the tables want them.

        Args:
            place: its topic and partition; everything that it feeds is restored.
            here: what `ask` said of it.

        Raises:
            SourceChangedError: retention has deleted what a table had still to read.
            KafkaError: the group did not take in time where a table begins.
        """
        assert self._consumer is not None
        topic, partition = place
        before = self.lanes.get(place)
        if before is not None:
            await before.stop()
        taps = self._taps(topic, partition, here)
        lane = self._lane(topic, partition, taps)
        fallback = here.committed if here.committed is not None else here.begin
        wanted = [position if position is not None else fallback for position in (tap.position() for tap in taps)]
        if self._consumer.has_agents(topic, partition):
            wanted.append(fallback)  # what is read goes to them as well; tables pass over what they have counted
        check_unread(taps, place, fallback, here)
        position = max(min(wanted), here.begin)
        lane.applied = lane.durable = position - 1
        if before is not None:
            lane.rejected = before.rejected  # a state that stays in memory has passed over their records
        self.lanes[place] = lane
        if self._begins_at_the_latest(topic, here):
            await self._commit_begin(place, here.committed if here.committed is not None else position)
        await self._consumer.seek_lane(topic, partition, position)
        lane.start(self._consumer.wake, self._on_failure)
        lane.ready = True
        self._consumer.wake()

    async def keep(self, places: set[TopicPartition]) -> None:
        """Stop and forget the lanes of all others."""
        for place in [place for place in self.lanes if place not in places]:
            await self.lanes.pop(place).stop()

    async def pause(self) -> None:
        """Stop all lanes; they stay, as a checkpoint tells of them, until they are opened again or left out."""
        await self._stop_telling()
        for lane in list(self.lanes.values()):
            await lane.stop()

    async def stop(self) -> None:
        """Stop and forget all lanes."""
        await self.pause()
        self.lanes.clear()

    def tell_origins(self) -> None:
        """Tell the partitions of re-keyed tables how far their sources have come, where they do not know it from records.

        In the background, so that partitions without a leader hold no checkpoint up; one that fails ends the worker, as
        forwarding to them does.
        """
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._next_told_ms or (self._telling is not None and not self._telling.done()):
            return
        self._next_told_ms = now_ms + self._settings.rekey_marker_interval_ms
        taps = [tap for lane in self.lanes.values() if lane.ready for tap in lane.taps if isinstance(tap, ForwardTap)]
        if taps:
            self._telling = asyncio.create_task(self._tell(taps), name="tell-origins")

    async def _stop_telling(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()  # what was not told is told by whoever goes on
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, taps: Iterable[ForwardTap]) -> None:
        try:
            for tap in taps:
                self._metrics.rekey_markers.labels(tap.name).inc(await tap.tell())
        except Exception as problem:
            self._on_failure(problem)

    def _lane(self, topic: str, partition: int, taps: list[Tap]) -> SourceLane:
        return SourceLane(
            topic,
            partition,
            taps,
            dead_letters=self._dead_letters,
            metrics=self._metrics,
            clock=self._clock,
            max_future_ms=self._settings.max_future_ms,
            max_record_bytes=self._settings.max_record_bytes,
            queue_max_records=self._settings.batch_queue_max_records,
            native=self._settings.native,
            until_room=functools.partial(self._until_room, (topic, partition)),
            turns=self._turns,
        )

    def _taps(self, topic: str, partition: int, here: SourceBounds) -> list[Tap]:
        taps: list[Tap] = []
        for table in self._tables.values():
            definition = table.definition
            if definition.rekey is not None:
                if topic == table.rekey_topic:
                    taps.append(RekeyedTap(table.live[partition], self._metrics))
                elif topic == definition.sources[0].topic:
                    taps.append(ForwardTap(table, partition, self._producer, _first_to_forward(table, here)))
                continue
            for index, source in enumerate(definition.sources):
                if source.topic == topic:
                    taps.append(TableTap(table.live[partition], index, self._metrics))
        return taps

    def _begins_at_the_latest(self, topic: str, here: SourceBounds) -> bool:
        """Whether a re-keyed table begins here that takes only what comes from now on; others note it in a checkpoint."""
        return any(
            table.definition.rekey is not None
            and table.definition.start == "latest"
            and table.definition.sources[0].topic == topic
            and table.forwarded_as_told(here.forwarded) is None
            for table in self._tables.values()
        )

    async def _commit_begin(self, place: TopicPartition, offset: int) -> None:
        """Note where a table begins before it does: after a crash, `latest` would be later, and what lies between missing.

        Raises:
            KafkaError: the group did not take it in time.
        """
        assert self._consumer is not None
        timeout_ms = self._settings.kafka_delivery_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    if await self._consumer.commit_lane(*place, offset):
                        return
                    # refused in a rebalance, whose revocation ends this
                    await asyncio.sleep(_COMMIT_RETRY_S * random.uniform(0.5, 1.5))
        except TimeoutError:
            raise KafkaError(
                f"the group {self._app_id} did not take a commit on {place[0]}-{place[1]} within {timeout_ms} ms, which "
                "tells where a table begins; check the brokers, or raise STREAMAPP_KAFKA_DELIVERY_TIMEOUT_MS"
            ) from None

    # --- what commits tell ---------------------------------------------------------------------------------------------

    def commit_metadata(self, topic: str, partition: int) -> str | None:
        """What a commit on this source partition has to tell; None where that is not known yet, and none may be made.

        A commit replaces what the last one told, so one that is made before that was read would make it forgotten.
        """
        place = (topic, partition)
        found = self._forwarded.get(place)
        if found is None:
            return None if any(topic in table.consumed_topics for table in self._tables.values()) else ""
        lane = self.lanes.get(place)
        taps = lane.taps if lane is not None else ()
        own = {tap.name: tap.forwarded(lane.durable + 1) for tap in taps if lane and isinstance(tap, ForwardTap)}
        return encode(merged(found, own))

    def forget_commits(self) -> None:
        """Forget what commits said: others may make them from now on."""
        self._forwarded = {}

    def committed(self, topic: str, partition: int) -> int:
        """The group's position, -1 where unknown."""
        position = self._consumer.committed_position(topic, partition) if self._consumer is not None else None
        return -1 if position is None else position

    def emptied_ms(self, topic: str, partition: int) -> int | None:
        """When a fetch last found nothing behind what was handed over, monotonic; None where that is not known."""
        return None if self._consumer is None else self._consumer.emptied_ms(topic, partition)


def _first_to_forward(table: RunningTable, here: SourceBounds) -> Forwarded:
    """Where a re-keyed table goes on, or begins."""
    known = table.forwarded_as_told(here.forwarded)
    if known is not None:
        return known
    begin = 0
    if table.definition.start == "latest":
        begin = here.committed if here.committed is not None else here.end
    return Forwarded(table.topic_ids[0], begin)
