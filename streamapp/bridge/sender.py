"""From the outbox to Kafka, through outages.

Guarantee: every entry of the outbox reaches its topic, per key in the order of acceptance. Within one producer's life it
does so exactly once. Where a producer has to be replaced (the client is in a fatal state, or Kafka refused a record for
reasons that are not the record's), what was not acknowledged is looked for at the ends of the topics and resent unless it
is there; so a record is repeated only if it has no id, or if the broker took it from the old client's last request after
that look.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Protocol

from streamapp.bridge.outbox import Entry, Outbox
from streamapp.errors import ProduceError, StreamAppError
from streamapp.feeds.backoff import Backoff
from streamapp.kafka.reports import Reports
from streamapp.metrics import Metrics

log = logging.getLogger(__name__)

#: records handed over before the event loop gets a turn (a few milliseconds)
_RECORDS_PER_TURN = 2_000
_VENUE_AND_TOPIC = attrgetter("venue", "topic")


class Producer(Protocol):
    """What is needed of `DurableProducer`."""

    async def start(self) -> None:
        """Make the client."""
        ...

    async def stop(self, timeout_s: float | None = None) -> None:
        """Flush for so long and let go of the client."""
        ...

    def try_send_all(self, records: Sequence[Entry], reports: Reports[Entry], /) -> tuple[int, ProduceError | None]:
        """Hand records over in order: how many were taken, and why the next one never can be, if that is so."""
        ...


class Sender:
    """Hands entries to a producer and settles them as their acknowledgements come in.

    Args:
        outbox: where entries wait.
        new_producer: makes a producer that is not started.
        already_there: of the given entries, those that their topics hold; called before anything is resent.
        refused: an entry that Kafka will never take.
        backoff: pauses between attempts to replace a producer.
        metrics: bridge_records and bridge_buffered are updated.
        in_flight_max: entries with the producer at a time.
        stop_timeout_s: bound on letting go of a broken producer.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        new_producer: Callable[[], Producer],
        already_there: Callable[[list[Entry]], Awaitable[set[Entry]]],
        refused: Callable[[Entry, Exception], None],
        backoff: Backoff,
        metrics: Metrics,
        in_flight_max: int,
        stop_timeout_s: float = 1.0,
    ) -> None:
        self._outbox = outbox
        self._new_producer = new_producer
        self._already_there = already_there
        self._refused = refused
        self._backoff = backoff
        self._metrics = metrics
        self._in_flight_max = in_flight_max
        self._stop_timeout_s = stop_timeout_s
        self._producer: Producer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reports: Reports[Entry]
        self._pump_scheduled = False
        self._barrier: Entry | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def replacing(self) -> bool:
        """Whether a broken producer is being replaced right now."""
        return self._replacing is not None

    async def start(self) -> None:
        """Make the first producer."""
        self._loop = asyncio.get_running_loop()
        self._reports = Reports(self._on_reports)
        self._producer = await self._started()

    async def stop(self, drain_timeout_s: float) -> int:
        """Wait for acknowledgements for so long, then let go; returns how many records were left behind."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_timeout_s):
                await self._outbox.drained()
        self._stopping = True
        if self._replacing is not None:
            self._replacing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._replacing
        if self._producer is not None:
            producer, self._producer = self._producer, None
            with contextlib.suppress(ProduceError):
                await producer.stop(0.0 if self._outbox.records else self._stop_timeout_s)
            self._settle_reports()  # of the last flush
        return self._outbox.records

    def pump(self) -> None:
        """Hand over what waits, as far as barrier, bound and the client's queue let it."""
        outbox, producer = self._outbox, self._producer
        if producer is None or self._replacing is not None:
            return
        turn = _RECORDS_PER_TURN
        while self._barrier is None and self._replacing is None and turn:
            entries = outbox.take(min(turn, self._in_flight_max - outbox.in_flight))
            if not entries:
                break
            turn -= len(entries)
            if entries[-1].barrier:
                self._barrier = entries[-1]
            handed = self._hand_over(producer, entries)
            if handed < len(entries):
                if self._barrier is entries[-1]:
                    self._barrier = None
                outbox.untake(len(entries) - handed)
                if not outbox.in_flight:
                    self._pump_soon(0.01)  # nothing of ours will come back to wake this up
                break
        if not turn:
            self._pump_soon()
        self._metrics.bridge_buffered.set(outbox.records)

    def _hand_over(self, producer: Producer, entries: Sequence[Entry]) -> int:
        """Hand entries over in order until the client's queue is full; how many it took, or failed for good."""
        done = 0
        while done < len(entries) and self._replacing is None:
            taken, problem = producer.try_send_all(entries[done:] if done else entries, self._reports)
            done += taken
            if problem is None:
                break
            self._failed(entries[done], problem)
            done += 1
        return done

    # --- acknowledgements ----------------------------------------------------------------------------------------------

    def _on_reports(self) -> None:
        self._settle_reports()
        self.pump()

    def _settle_reports(self) -> None:
        reports, outbox = self._reports, self._outbox
        # a record may be acknowledged by two producers, the broken one and its successor; it counts once
        acknowledged = [entry for entry in reports.take_acknowledged() if not entry.done]
        while reports.failed:
            entry, error = reports.failed.popleft()
            if not entry.done:
                self._failed(entry, error)
        counts = Counter(map(_VENUE_AND_TOPIC, acknowledged))
        outbox.settle(acknowledged)
        if self._barrier is not None and self._barrier.done:
            self._barrier = None
        for (venue, topic), count in counts.items():
            self._metrics.bridge_records.labels(venue, topic).inc(count)
        self._metrics.bridge_buffered.set(outbox.records)

    def _failed(self, entry: Entry, error: Exception) -> None:
        if isinstance(error, ProduceError) and error.record_at_fault:
            if entry is self._barrier:
                self._barrier = None
            self._refused(entry, error)
            self._outbox.settle([entry])
        elif self._replacing is None and not self._stopping:
            log.warning("bridge: a record was not acknowledged (%s); the producer is replaced", error)
            self._replacing = asyncio.get_running_loop().create_task(self._replace(), name="bridge-replace-producer")

    # --- replacing a producer ------------------------------------------------------------------------------------------

    async def _replace(self) -> None:
        """Resend what is not acknowledged through a new producer, in order, without what is on the topics already."""
        old, self._producer = self._producer, None
        if old is not None:
            # discards what the client still holds; each record's report has come when this returns
            with contextlib.suppress(ProduceError):
                await old.stop(self._stop_timeout_s)
        self._settle_reports()
        # whatever might still be said by the old client says nothing about a record that is resent
        self._reports = Reports(self._on_reports)
        back = self._outbox.take_back()
        self._barrier = None
        while True:
            pause_ms = self._backoff.failed() or 0
            await asyncio.sleep(pause_ms / 1000)
            try:
                there = await self._already_there(back)
                producer = await self._started()
            except StreamAppError as problem:
                log.warning("bridge: Kafka is not usable yet: %s", problem)
                continue
            break
        self._outbox.give_up_first(len(back), there)
        self._producer = producer
        self._backoff.connected()
        log.info(
            "bridge: a new producer resends %d records; %d were on their topics", len(back) - len(there), len(there)
        )
        self._replacing = None
        self.pump()

    async def _started(self) -> Producer:
        producer = self._new_producer()
        await producer.start()
        return producer

    def _pump_soon(self, delay_s: float = 0.0) -> None:
        if not self._pump_scheduled and self._loop is not None:
            self._pump_scheduled = True
            self._loop.call_later(delay_s, self._pump_again)

    def _pump_again(self) -> None:
        self._pump_scheduled = False
        self.pump()
