"""What a worker knows about the feeds behind its data: read from `feed-status`, judged by its own clock.

The bridge repeats each venue's state every few seconds. A venue whose repeats stay away counts as disconnected, whether
the feed, the bridge or the way to Kafka died. Arrival is taken from the local monotonic clock. The times in the records
are shown, and tell of what was said before this worker came how long ago that was.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as ClientError

from streamapp.clock import Clock, SystemClock
from streamapp.kafka.config import confluent_config
from streamapp.metrics import Metrics
from streamapp.queries.model import FeedFreshness, FeedInfo
from streamapp.settings import Settings

log = logging.getLogger(__name__)

STATUS_TOPIC = "feed-status"
MAX_VENUES = 1_000
MAX_SYMBOLS = 20_000  # over all venues
_RETRY_S = 1.0
_CHUNK_RECORDS = 5_000
_LIVE = frozenset({"connected", "recovered"})


class _Status(msgspec.Struct, gc=False):
    """What is needed of a `FeedStatus`."""

    venue: str
    state: str
    symbol: str | None = None
    detail: str = ""
    event_time: int = 0


_decode = msgspec.json.Decoder(_Status).decode


@dataclass(slots=True)
class _Venue:
    state: str = "disconnected"
    detail: str = ""
    live: bool = False
    heartbeat_ms: int | None = None  # event time of the last word, for display
    heard_ms: int | None = None  # local arrival of the last word; None: only history was read
    good_ms: int | None = None  # when it was last said to be connected, or first heard of; local monotonic time
    gaps: int = 0
    symbols: dict[str, int] = field(default_factory=dict)


class FeedHealth:
    """Follows `feed-status` in a thread, without a consumer group.

    Everything retained is read for the gaps; whether a feed is live is told only by what arrives after that, so an old
    "connected" of a dead bridge convinces nobody. Until the history is read every feed counts as disconnected.

    Memory: at most 1,000 venues and 20,000 symbols; gaps of further symbols still count for their venue.

    Args:
        settings: Kafka, and `feed_timeout_ms`.
        metrics: `feed_connected` and `feed_gaps` follow what is known here.
        clock: local time.
        on_change: called in the event loop with a venue's name when its liveness, state or gaps changed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        on_change: Callable[[str], None] = lambda venue: None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._on_change = on_change
        self._venues: dict[str, _Venue] = {}
        self._symbols = 0
        self._shown: dict[str, bool] = {}
        self._caught_up = asyncio.Event()
        self._stopping = threading.Event()
        self._position: int | None = None
        self._thread: threading.Thread | None = None
        self._watch: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- questions -----------------------------------------------------------------------------------------------------

    def for_key(self, key: str) -> FeedFreshness | None:
        """Whether the feed behind `venue:symbol` is live, and its gaps; None where the venue has no feed at all."""
        name, _, symbol = key.partition(":")
        venue = self._venues.get(name)
        if venue is None:
            return None
        return FeedFreshness(connected=self._connected(venue), gaps=venue.symbols.get(symbol, 0))

    def feeds(self) -> Sequence[FeedInfo]:
        """Every venue that `feed-status` told of, in order of their names."""
        return [self._info(name, venue) for name, venue in sorted(self._venues.items())]

    def known_good_ms(self, key: str) -> int | None:
        """Milliseconds since the feed behind a key was last known to be live; None where the venue has no feed at all.

        Of a feed that has never been live, as far as is known, since it was first heard of.
        """
        venue = self._venues.get(key.partition(":")[0])
        if venue is None or venue.good_ms is None:
            return None
        return max(0, self._clock.monotonic_ms() - venue.good_ms)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was retained at the start has been read."""
        return self._caught_up.is_set()

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to read; returns at once. Kafka may be unreachable: that is retried until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._follow, name="feed-health", daemon=True)
        self._thread.start()
        self._watch = asyncio.create_task(self._watch_silence(), name="feed-health-silence")

    async def wait_caught_up(self) -> None:
        """Wait until the history is read."""
        await self._caught_up.wait()

    async def stop(self, timeout: float = 5.0) -> None:
        """Stop reading, within `timeout` seconds."""
        self._stopping.set()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout)
            self._thread = None

    # --- applying ------------------------------------------------------------------------------------------------------

    def apply(self, values: Sequence[bytes], *, history: bool) -> None:
        """Take in records of `feed-status`, in the order of offsets; those that cannot be read are left out.

        Args:
            values: the records.
            history: True for what was on the topic before we came: it says nothing about now.
        """
        now_ms = self._clock.monotonic_ms()
        changed: set[str] = set()
        for value in values:
            try:
                status = _decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                log.warning("feed health: a record of %s cannot be read", STATUS_TOPIC)
                continue
            venue = self._venue(status.venue)
            if venue is None:
                continue
            said_ms = now_ms - max(0, self._clock.now_ms() - status.event_time) if history else now_ms
            if venue.good_ms is None:
                venue.good_ms = said_ms
            if self._take(venue, status, None if history else now_ms, said_ms):
                changed.add(status.venue)
        self._announce(changed)

    def _take(self, venue: _Venue, status: _Status, now_ms: int | None, said_ms: int) -> bool:
        if status.state == "gap":
            venue.gaps += 1
            symbol = status.symbol or ""
            if symbol in venue.symbols:
                venue.symbols[symbol] += 1
            elif self._symbols < MAX_SYMBOLS:
                self._symbols += 1
                venue.symbols[symbol] = 1
            if self._metrics is not None:
                self._metrics.feed_gaps.labels(status.venue).inc()
            return True
        if status.symbol is not None and status.state != "error":
            return False  # about one symbol; the venue's own state is what counts
        before = (venue.state, venue.detail)
        venue.state, venue.detail = status.state, status.detail
        if status.state != "error":  # a complaint of the venue does not say that the connection is gone
            venue.live = status.state in _LIVE
            venue.heartbeat_ms = status.event_time
            venue.heard_ms = now_ms
            if venue.live:
                venue.good_ms = said_ms
        return before != (venue.state, venue.detail)

    def _venue(self, name: str) -> _Venue | None:
        venue = self._venues.get(name)
        if venue is None and len(self._venues) < MAX_VENUES:
            venue = self._venues[name] = _Venue()
        return venue

    def _connected(self, venue: _Venue) -> bool:
        return (
            venue.live
            and venue.heard_ms is not None
            and self._clock.monotonic_ms() - venue.heard_ms <= self._settings.feed_timeout_ms
        )

    def _info(self, name: str, venue: _Venue) -> FeedInfo:
        connected = self._connected(venue)
        state, detail = venue.state, venue.detail
        if venue.live and not connected:
            state, detail = "disconnected", "no heartbeat from the bridge"
        elif connected and state == "recovered":
            state = "connected"
        return FeedInfo(
            venue=name,
            connected=connected,
            state=state,
            detail=detail,
            last_heartbeat=venue.heartbeat_ms,
            gaps=venue.gaps,
            symbols=dict(venue.symbols),
        )

    def _announce(self, changed: set[str]) -> None:
        """Bring the metric up to date, and tell the listener what changed, silence included."""
        for name, venue in self._venues.items():
            connected = self._connected(venue)
            if self._shown.get(name) is not connected:
                self._shown[name] = connected
                changed.add(name)
                if self._metrics is not None:
                    self._metrics.feed_connected.labels(name).set(connected)
        for name in changed:
            self._on_change(name)

    def check_silence(self) -> None:
        """Notice feeds whose heartbeat has stayed away; called regularly, answers are right without it."""
        self._announce(set())

    async def _watch_silence(self) -> None:
        period_s = min(1.0, self._settings.feed_timeout_ms / 4000)
        while True:
            await asyncio.sleep(period_s)
            self.check_silence()

    # --- reading, in the thread ----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._stopping.is_set():
            consumer = Consumer(
                {
                    **confluent_config(self._settings),
                    "client.id": "streamapp-feed-health",
                    "group.id": "streamapp-feed-health",  # the client insists on a name; nothing is committed to it
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 100,
                },
                logger=log,
            )
            try:
                self._read(consumer)
            except KafkaException as problem:
                log.warning("feed health: cannot read %s yet: %s", STATUS_TOPIC, problem.args[0].str())
            finally:
                consumer.close()
            self._stopping.wait(_RETRY_S)

    def _read(self, consumer: Consumer) -> None:
        """Read until stopped; raises KafkaException while the topic cannot be read."""
        timeout_s = self._settings.kafka_request_timeout_ms / 1000
        low, end = consumer.get_watermark_offsets(TopicPartition(STATUS_TOPIC, 0), timeout=timeout_s)
        # after a failure it goes on where it stood, or gaps would be counted twice
        position: int = low if self._position is None else max(low, min(self._position, end))
        consumer.assign([TopicPartition(STATUS_TOPIC, 0, position)])
        if position >= end:
            self._hand_over([], history=False)
        while not self._stopping.is_set():
            values: list[bytes] = []
            recent: list[bytes] = []
            for message in consumer.consume(_CHUNK_RECORDS, 0.2):
                value = self._value(message)
                if value is None:
                    continue
                position = self._position = message.offset() + 1
                (values if position <= end and not self._caught_up.is_set() else recent).append(value)
            if values:
                self._hand_over(values, history=True)
            if recent or (values and position >= end):
                self._hand_over(recent, history=False)

    @staticmethod
    def _value(message: Message) -> bytes | None:
        error = message.error()
        if error is None:
            value: bytes | None = message.value()
            return value
        if error.code() == ClientError.UNKNOWN_TOPIC_OR_PART or error.fatal():
            raise KafkaException(error)
        return None

    def _hand_over(self, values: list[bytes], *, history: bool) -> None:
        """From the thread to the loop."""
        loop = self._loop
        if loop is None:
            return

        def in_loop() -> None:
            self.apply(values, history=history)
            if not history:
                self._caught_up.set()

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(in_loop)
