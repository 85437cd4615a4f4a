"""A producer that says exactly what Kafka has acknowledged.

Idempotent, `acks=all`: within one producer's life a record is on its topic exactly once and in the order of sending per
partition, whatever the network does. Acknowledgements are served by a thread of its own, so a busy event loop delays
nobody's callback, or where the caller wants it, by the event loop.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Message, Producer

from streamapp.errors import ProduceError
from streamapp.kafka.config import confluent_config
from streamapp.kafka.reports import Reports, Sent, failure, refusal
from streamapp.kafka.topics import largest_record_bytes
from streamapp.settings import Settings

log = logging.getLogger(__name__)

#: records handed over between two chances for the event loop to do something else (about 5 ms of work)
_RECORDS_PER_TURN = 2_000
#: how long the poll thread sleeps inside librdkafka when nothing arrives; it is woken by events, this bounds `stop`
_POLL_S = 0.1
#: the loop looks for reports this often while records are under way
_SERVE_S = 0.005

Delivered = Callable[[Exception | None, int | None], None]


class OutMessage(NamedTuple):
    """One record to send.

    Attributes:
        topic: where to.
        key: decides the partition (murmur2) unless `partition` is given; None spreads at random.
        value: None is a tombstone.
        partition: 0-based; None lets the key decide.
        headers: in order; names may repeat.
        timestamp_ms: milliseconds since the epoch; None is now. Topics with `LogAppendTime` ignore it.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


#: in the place of an offset that is not known
_UNTOLD = -1


class _Pending:
    """The acknowledgements that one `send_all` waits for.

    Filled in by whichever thread serves librdkafka's reports, so only operations that the interpreter makes atomic are
    used: `next` on a counter, `append`, and item assignment.
    """

    __slots__ = ("_expected", "_loop", "_settled", "done", "errors", "offsets")

    def __init__(self, expected: int, loop: asyncio.AbstractEventLoop) -> None:
        self.offsets = [_UNTOLD] * expected
        self.errors: list[str] = []
        self.done = asyncio.Event()
        self._expected = expected
        self._settled = itertools.count(1)
        self._loop = loop

    def delivered(self, index: int, error: ClientError | None, message: Message) -> None:
        if error is None:
            self.offsets[index] = _UNTOLD if (offset := message.offset()) is None else offset
        else:
            self.errors.append(error.str())
        if next(self._settled) == self._expected:
            self._wake()

    def refused(self, reason: str) -> None:
        self.errors.append(reason)
        if next(self._settled) == self._expected:
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.done.set)
        except RuntimeError:
            # the loop has gone, and with it whoever waited
            log.debug("an acknowledgement came after its event loop had closed")


class DurableProducer:
    """Sends records and reports each one's acknowledgement.

    Order per partition is the order of the calls. A record counts as sent only once it is acknowledged by all in-sync
    replicas; one that is not acknowledged within `kafka_delivery_timeout_ms` has failed.

    Args:
        settings: brokers, security, time-outs and the bounds of the client's queue.
        client_id: shown in the broker's logs and metrics.
        linger_ms: how long a record may wait for company; longer means larger batches.
        in_loop: the event loop looks for acknowledgements itself, every few milliseconds while any are due, instead of
            a thread. For a loop that is busy all the time: the two would only wait for each other, once per record.
    """

    def __init__(self, settings: Settings, *, client_id: str, linger_ms: float = 5.0, in_loop: bool = False) -> None:
        self._delivery_timeout_s = settings.kafka_delivery_timeout_ms / 1000
        self._request_timeout_s = settings.kafka_request_timeout_ms / 1000
        self._config: dict[str, Any] = {
            **confluent_config(settings),
            "client.id": client_id,
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            # the choice of the Java clients; librdkafka's own default (CRC32) would put keys elsewhere
            "partitioner": "murmur2_random",
            "linger.ms": linger_ms,
            "delivery.timeout.ms": settings.kafka_delivery_timeout_ms,
            "request.timeout.ms": settings.kafka_request_timeout_ms,
            "queue.buffering.max.messages": settings.kafka_queue_max_records,
            "queue.buffering.max.kbytes": settings.kafka_queue_max_bytes >> 10,
            "message.max.bytes": largest_record_bytes(settings),
            "batch.size": 1 << 20,
            "batch.num.messages": 10_000,
        }
        self._producer: Producer | None = None
        self._in_loop = in_loop
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    async def start(self) -> None:
        """Create the client, and begin to serve its reports. It connects in the background: a broker may still be down.

        Raises:
            RuntimeError: already started.
        """
        if self._producer is not None:
            raise RuntimeError("this producer is already started")
        self._stopping.clear()
        self._producer = Producer(self._config, logger=log)
        if self._in_loop:
            self._serve()
            return
        self._thread = threading.Thread(
            target=self._poll, args=(self._producer,), name=f"{self._config['client.id']}-poll", daemon=True
        )
        self._thread.start()

    async def stop(self, timeout_s: float | None = None) -> None:
        """Wait until everything is acknowledged, then let go of the client. A second call does nothing.

        Args:
            timeout_s: how long to wait; default: the delivery time-out.

        Raises:
            ProduceError: records were still unacknowledged after that; they were discarded.
        """
        producer, thread = self._producer, self._thread
        if producer is None:
            return
        self._producer = self._thread = None
        if self._timer is not None:
            self._timer.cancel()
        left = 0
        try:
            left = await asyncio.to_thread(producer.flush, self._delivery_timeout_s if timeout_s is None else timeout_s)
            if left:
                producer.purge()
                await asyncio.to_thread(producer.flush, self._request_timeout_s)
        finally:
            self._stopping.set()
            if thread is not None:
                await asyncio.to_thread(thread.join, 10 * _POLL_S)
        if left:
            raise ProduceError(
                "*",
                left,
                f"expected every record to be acknowledged before stopping, {left} were not and are discarded; "
                "check that the brokers are reachable",
            )

    @property
    def pending(self) -> int:
        """Records (and undelivered reports) that the client still holds."""
        return len(self._producer) if self._producer is not None else 0

    async def send_all(self, messages: Collection[OutMessage]) -> list[int]:
        """Send records, iterated over once, and wait until every one is acknowledged.

        A full client queue is waited for, not an error. Cancelling stops the waiting; what was handed over before may
        still reach its topic.

        Returns:
            The offset of each record, in the order of `messages`; -1 where the record is on its topic and nobody tells
            where: it was sent again, as its first answer was lost, and the cluster only said that it has it.

        Raises:
            ProduceError: at least one was not acknowledged; the others may be on their topics all the same.
        """
        if not messages:
            return []
        producer = self._running()
        pending = _Pending(len(messages), asyncio.get_running_loop())
        # librdkafka fails each record by itself when its time has passed; the margin lets those reports arrive first
        limit_s = self._delivery_timeout_s + self._request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._hand_over(producer, messages, pending)
                await pending.done.wait()
        except TimeoutError:
            raise ProduceError(
                next(iter(messages)).topic,
                pending.offsets.count(_UNTOLD),
                f"expected {len(messages)} acknowledgements within {limit_s:.1f} s, "
                f"{pending.offsets.count(_UNTOLD)} are missing; check that the brokers are reachable",
            ) from None
        if pending.errors:
            raise ProduceError(
                next(iter(messages)).topic,
                len(pending.errors),
                f"expected {len(messages)} acknowledgements, {len(pending.errors)} records failed, "
                f"the first with: {pending.errors[0]}; nothing that depends on them may be committed",
            )
        return pending.offsets

    def try_produce(self, message: OutMessage, on_delivery: Delivered) -> bool:
        """Hand one record over without waiting.

        Args:
            message: the record.
            on_delivery: called once, in whichever thread serves the reports, with (None, offset) or (error, None); keep
                it short.

        Returns:
            False when the client's queue is full: nothing was taken, try again later.

        Raises:
            ProduceError: the client can never send it (too large, unknown partition, fatal client state).
        """
        return self._produce(self._running(), message, partial(_report, message.topic, on_delivery))

    def try_send_all(self, records: Sequence[Sent], reports: Reports[Sent]) -> tuple[int, ProduceError | None]:
        """Hand many plain records over without waiting, in order.

        Args:
            records: none of them may be with a client already.
            reports: gets the report of each record that was taken, exactly once.

        Returns:
            How many were taken, and why the next one never can be. None: it can later, if the client's queue was full.
        """
        produce = self._running().produce
        taken = 0
        try:
            for record in records:
                record.reports = reports
                produce(record.topic, record.value, record.key, -1, record)
                taken += 1
        except BufferError:
            pass
        except KafkaException as problem:
            return taken, refusal(records[taken].topic, problem.args[0])
        return taken, None

    async def _hand_over(self, producer: Producer, messages: Collection[OutMessage], pending: _Pending) -> None:
        delivered = pending.delivered
        for index, message in enumerate(messages):
            # once per record, and there until it is acknowledged: a `partial` takes three times the memory
            report = MethodType(delivered, index)
            try:
                # a full queue drains without any announcement that could be awaited
                while not self._produce(producer, message, report):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            except ProduceError as problem:
                pending.refused(str(problem))
            if index % _RECORDS_PER_TURN == _RECORDS_PER_TURN - 1:
                await asyncio.sleep(0)

    @staticmethod
    def _produce(
        producer: Producer, message: OutMessage, report: Callable[[ClientError | None, Message], None]
    ) -> bool:
        topic, key, value, partition, headers, timestamp_ms = message
        try:
            producer.produce(
                topic,
                value,
                key,
                -1 if partition is None else partition,
                report,
                None,
                timestamp_ms or 0,
                list(headers) if headers else None,
            )
        except BufferError:
            return False
        except KafkaException as problem:
            raise refusal(topic, problem.args[0]) from problem
        return True

    def _running(self) -> Producer:
        if self._producer is None:
            raise RuntimeError("this producer is not running; call start() first")
        if self._idle:
            self._idle = False
            self._serve_soon(_SERVE_S)
        return self._producer

    def _poll(self, producer: Producer) -> None:
        while not self._stopping.is_set():
            producer.poll(_POLL_S)

    def _serve(self) -> None:
        """In the loop: take what reports there are, and look again, soon while others are due."""
        producer = self._producer
        if producer is not None:
            try:
                producer.poll(0)
            except Exception:
                log.exception("a delivery callback failed")  # the other reports have to be served all the same
            self._idle = not len(producer)
            # what an idle client says (its log, its errors) can wait
            self._serve_soon(_POLL_S if self._idle else _SERVE_S)

    def _serve_soon(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._serve)


def _report(topic: str, on_delivery: Delivered, error: ClientError | None, message: Message) -> None:
    try:
        if error is None:
            on_delivery(None, message.offset())
        else:
            on_delivery(failure(topic, error), None)
    except Exception:
        # raised further it would end whatever serves the reports, and silence every later acknowledgement
        log.exception("a delivery callback failed")
