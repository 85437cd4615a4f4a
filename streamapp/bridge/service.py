"""The bridge: feeds -> bounded outbox -> Kafka, as one service in a process of its own.

What it accepts from a socket is dropped only where the feed says that a newer record replaces it (and the policy is
`conflate`); everything else is on its topic once, per key in the order of arrival, or the process was killed, and then
the numbers missing after the restart are published as a gap. A gap is acknowledged by Kafka before the first record
behind it is sent, so a kill between the two cannot hide it.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from mode import Service

from streamapp.bridge.board import FeedBoard
from streamapp.bridge.dedup import DedupMemory
from streamapp.bridge.letters import DEAD_LETTER_TOPIC, dead_letter_entry, status_entry
from streamapp.bridge.memory import Resumption
from streamapp.bridge.monitor import MonitorServer
from streamapp.bridge.outbox import Bounds, Entry, Outbox
from streamapp.bridge.sender import Sender
from streamapp.clock import Clock, SystemClock
from streamapp.errors import ConfigurationError, FeedError
from streamapp.feeds.backoff import Backoff, BackoffPolicy
from streamapp.feeds.catalog import protocol_for
from streamapp.feeds.connection import Connected, ConnectionEvent, Disconnected, FeedConnection, connection_for
from streamapp.feeds.protocol import GapDetected, Rejected, TopicRecord, VenueError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.producer import DurableProducer
from streamapp.kafka.topics import BUILTIN_TOPICS, TopicSpec
from streamapp.metrics import Metrics
from streamapp.records.models import FeedStatus
from streamapp.settings import FeedSettings, Settings

log = logging.getLogger(__name__)

#: an outage of Kafka shorter than this never fails a record inside the client; it retries in order meanwhile
_DELIVERY_TIMEOUT_MS = 24 * 3_600_000


class Bridge(Service):  # type: ignore[misc]  # mode is untyped here
    """Forwards feeds into Kafka.

    Args:
        settings: where Kafka is, and every bound.
        feeds: name -> feed.
        metrics: created if not given.
        clock: processing time.
    """

    def __init__(
        self,
        settings: Settings,
        feeds: Mapping[str, FeedSettings],
        *,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        if not feeds:
            raise ConfigurationError("bridge: expected at least one feed, got none; name one with --feed")
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.clock = clock or SystemClock()
        self.connections: dict[str, FeedConnection] = {
            name: connection_for(feed, protocol_for(feed), settings) for name, feed in feeds.items()
        }
        self.board = FeedBoard(self.clock)
        self.memory = DedupMemory(ids_per_stream=settings.bridge_dedup_ids, max_ids=settings.bridge_dedup_max_ids)
        self.outbox = Outbox(
            Bounds(
                settings.bridge_high_water_records,
                settings.bridge_low_water_records,
                settings.bridge_high_water_bytes,
                settings.bridge_low_water_bytes,
            ),
            conflate=settings.bridge_overflow == "conflate",
        )
        self._resumption = Resumption(settings, self.memory, self.clock)
        self._admin = KafkaAdmin(settings, self.clock)
        self.sender = Sender(
            self.outbox,
            new_producer=self._new_producer,
            already_there=self._already_there,
            refused=self._refused,
            backoff=Backoff(BackoffPolicy(circuit_pause_ms=30_000), rng=random.Random(), clock=self.clock),
            metrics=self.metrics,
            in_flight_max=settings.bridge_in_flight_records,
        )
        self.monitor = MonitorServer(settings.bridge_metrics_port, self.metrics, self.health)
        self._feed_tasks: dict[str, asyncio.Task[None]] = {}
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._heartbeats: dict[str, Entry] = {}
        self._bound_hits = 0
        self._closing = False
        #: set when every feed has ended; `problem` says why, if that was not asked for
        self.ended = asyncio.Event()
        self.problem: Exception | None = None

    # --- life ----------------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Make sure of Kafka and the topics, remember what is on them, then connect.

        Raises:
            KafkaError: it does not answer, or a topic is not as it must be.
            UnsafeBindError, ConfigurationError: as their names say.
        """
        partitions = await self._ensure_topics()
        await self._resumption.resume([connection.protocol for connection in self.connections.values()], partitions)
        await self.sender.start()
        await self.monitor.start()
        for name, connection in self.connections.items():
            venue = connection.protocol.venue
            self.board.add(name, venue)
            self.metrics.feed_gaps.labels(venue)
            self.metrics.feed_connected.labels(venue).set(0)
            connection.on_frames = self.metrics.bridge_frames.labels(venue).inc
        self._beat()
        for name in self.connections:
            self._feed_tasks[name] = asyncio.create_task(self._run_feed(name), name=f"feed-{name}")
        self._heartbeat_task = asyncio.create_task(self._repeat_state(), name="bridge-heartbeat")

    async def on_stop(self) -> None:
        """Close the sockets, publish that, and wait until Kafka has everything, within `bridge_drain_timeout_ms`."""
        self._closing = True
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
        self.outbox.release()
        close_s = self.settings.feed_close_timeout_ms / 1000
        if self._feed_tasks:
            await asyncio.gather(*(connection.stop() for connection in self.connections.values()))
            _, late = await asyncio.wait(self._feed_tasks.values(), timeout=2 * close_s + 1)
            for task in late:
                task.cancel()
        left = await self.sender.stop(self.settings.bridge_drain_timeout_ms / 1000)
        await self.monitor.stop()
        if left:
            log.error("bridge: %d accepted records were not acknowledged in time and are lost", left)
            self.problem = self.problem or FeedError(
                f"expected Kafka to acknowledge everything within {self.settings.bridge_drain_timeout_ms} ms of the "
                f"stop, {left} records were not; they will show up as a gap after the next start"
            )

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether all is well, and the figures behind it."""
        venues = {venue: self.board.is_connected(venue) for venue in self.board.venues()}
        healthy = all(venues.values()) and not self.outbox.full and not self.sender.replacing
        return healthy, {
            "venues": venues,
            "buffered_records": self.outbox.records,
            "buffered_bytes": self.outbox.size_bytes,
            "full": self.outbox.full,
            "replacing_producer": self.sender.replacing,
        }

    async def _run_feed(self, name: str) -> None:
        connection = self.connections[name]

        async def sink(events: Sequence[ConnectionEvent]) -> None:
            self._accept(name, events)
            self.sender.pump()
            if self.outbox.full and not self._closing:
                await self.outbox.room()

        try:
            await connection.run(sink)
            if not self._closing:
                self.problem = FeedError(f"feed {name} gave up after {self.settings.feed_tries_max} tries in a row")
                log.error("bridge: %s", self.problem)
        except Exception as problem:
            log.exception("bridge: feed %s ended", name)
            self.problem = problem
        finally:
            del self._feed_tasks[name]
            if not self._feed_tasks:
                self.ended.set()

    # --- events --------------------------------------------------------------------------------------------------------

    def _accept(self, name: str, events: Sequence[ConnectionEvent]) -> None:
        """Put the events of one batch into the outbox: statuses first, then the records that they speak of."""
        add, too_large = self.memory.add, self.settings.max_record_bytes
        repeats = 0
        statuses: list[Entry] = []
        records: list[Entry] = []
        for event in events:
            kind = type(event)
            if kind is TopicRecord:
                dedup = event.dedup  # type: ignore[union-attr]
                if dedup is not None and not add(dedup.stream, dedup.record_id):
                    repeats += 1
                    continue
                value = event.value  # type: ignore[union-attr]
                entry = Entry(event.topic, event.key, value, event.venue, event.replaceable, dedup)  # type: ignore[union-attr]
                if len(value) > too_large:
                    text = (
                        f"record of {len(value)} bytes for {entry.topic}; the limit is {too_large} (max_record_bytes)"
                    )
                    entry = self._letter(f"feed:{name}", entry, "oversized", text)
                records.append(entry)
            elif kind is Rejected:
                records.append(self._rejected(name, event))  # type: ignore[arg-type]
            elif kind in _STATUS_KINDS:
                status = self._status(name, event)
                if status is not None:
                    statuses.append(status_entry(status))
        if repeats:
            self.metrics.bridge_duplicates.labels(self.connections[name].protocol.venue).inc(repeats)
        if statuses:
            statuses[-1].barrier = True
        dropped = Counter((entry.venue, entry.topic) for entry in self.outbox.put([*statuses, *records]))
        for (venue, topic), count in dropped.items():
            self.metrics.bridge_dropped.labels(venue, topic).inc(count)
        self._count_bound_hits()

    def _status(self, name: str, event: ConnectionEvent) -> FeedStatus | None:
        metrics = self.metrics
        match event:
            case GapDetected():
                metrics.feed_gaps.labels(event.venue).inc()
                return self.board.gap(event)
            case Connected():
                status = self.board.connected(name)
                if event.attempt > 1:
                    metrics.bridge_reconnects.labels(status.venue).inc()
            case Disconnected():
                status = self.board.disconnected(name, event)
            case VenueError():
                log.warning("feed %s: the venue reports: %s", name, event.detail)
                return self.board.error(name, event)
            case _:
                return None
        metrics.feed_connected.labels(status.venue).set(self.board.is_connected(status.venue))
        metrics.bridge_circuit_open.labels(status.venue).set(self.board.circuit_open(status.venue))
        return status

    def _rejected(self, name: str, event: Rejected) -> Entry:
        venue = self.connections[name].protocol.venue
        self.metrics.dead_letters.labels(f"feed:{name}", event.reason).inc()
        return dead_letter_entry(
            key=venue.encode(),
            venue=venue,
            source=f"feed:{name}",
            raw=event.raw,
            reason=event.reason,
            error=event.error,
            now_ms=self.clock.now_ms(),
            kept_bytes=self.settings.dead_letter_max_bytes,
        )

    def _letter(self, source: str, entry: Entry, reason: str, error: str) -> Entry:
        self.metrics.dead_letters.labels(source, reason).inc()
        return dead_letter_entry(
            key=entry.key,
            venue=entry.venue,
            source=source,
            raw=entry.value,
            reason=reason,
            error=error,
            now_ms=self.clock.now_ms(),
            kept_bytes=self.settings.dead_letter_max_bytes,
        )

    def _refused(self, entry: Entry, error: Exception) -> None:
        if entry.topic == DEAD_LETTER_TOPIC:
            log.error("bridge: Kafka refused a dead letter: %s", error)
            return
        self.outbox.put([self._letter(entry.topic, entry, "refused_by_kafka", str(error))])

    def _count_bound_hits(self) -> None:
        if self.outbox.bound_hits != self._bound_hits:
            self.metrics.bridge_bound_hits.inc(self.outbox.bound_hits - self._bound_hits)
            self._bound_hits = self.outbox.bound_hits
            log.warning("bridge: %d records wait for Kafka; reading the feeds stops", self.outbox.records)

    # --- heartbeats ----------------------------------------------------------------------------------------------------

    async def _repeat_state(self) -> None:
        while True:
            await asyncio.sleep(self.settings.feed_heartbeat_ms / 1000)
            self._beat()

    def _beat(self) -> None:
        """Repeat every venue's state; not while the last repeat still waits, or an outage would pile them up."""
        for status in self.board.heartbeats():
            last = self._heartbeats.get(status.venue)
            if last is None or last.done:
                entry = self._heartbeats[status.venue] = status_entry(status)
                self.outbox.put([entry])
        self.sender.pump()

    # --- Kafka ---------------------------------------------------------------------------------------------------------

    async def _ensure_topics(self) -> dict[str, int]:
        """Create what is missing; how many partitions each has. A feed's own topic stays as whoever made it wanted it."""
        settings = self.settings
        builtin = BUILTIN_TOPICS(settings)
        topics = {topic for connection in self.connections.values() for topic in connection.protocol.topics}
        own = [
            TopicSpec(
                topic,
                settings.partitions,
                replication=settings.replication_factor,
                retention_ms=settings.topic_retention_ms,
            )
            for topic in sorted(topics - {spec.name for spec in builtin})
        ]
        found = await self._admin.ensure_topics(own, as_found=True) | await self._admin.ensure_topics(builtin)
        return {name: topic.partitions for name, topic in found.items()}

    def _new_producer(self) -> DurableProducer:
        patient = self.settings.model_copy(update={"kafka_delivery_timeout_ms": _DELIVERY_TIMEOUT_MS})
        return DurableProducer(patient, client_id="streamapp-bridge", in_loop=True)

    async def _already_there(self, entries: list[Entry]) -> set[Entry]:
        await self._ensure_topics()
        return await self._resumption.already_there(entries)


_STATUS_KINDS = frozenset({GapDetected, Connected, Disconnected, VenueError})
