"""Reading the ends of topics, without a group and without leaving a trace: what the bridge remembers after a restart."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as ClientError

from streamapp.clock import Clock, SystemClock
from streamapp.errors import BrokerUnavailableError, KafkaError
from streamapp.feeds.market import QUOTES_TOPIC, TRADES_TOPIC
from streamapp.kafka.config import confluent_config
from streamapp.kafka.partitioner import partition_for
from streamapp.settings import Settings

log = logging.getLogger(__name__)

#: called with topic, key and value of each record; per partition and call of `read` in the order of offsets
Visit = Callable[[str, bytes, bytes], None]

_CHUNK_RECORDS = 5_000
#: a chunk that is not full is handed out after this
_CHUNK_WAIT_S = 0.05
#: each look further back is this many times as long as the one before
_STRETCH = 4
_RETRY_S = 0.1
_PASSING = frozenset(
    {ClientError.NOT_LEADER_FOR_PARTITION, ClientError.LEADER_NOT_AVAILABLE, ClientError.UNKNOWN_TOPIC_OR_PART}
)


class _Ids(msgspec.Struct, gc=False):
    trade_id: str | None = None
    sequence: int | None = None


_decode_ids = msgspec.json.Decoder(_Ids).decode


def record_id(topic: str, value: bytes) -> str | None:
    """The `DedupKey.record_id` that a venue's record on `trades` or `quotes` had; None where it cannot be told."""
    try:
        ids = _decode_ids(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if topic == TRADES_TOPIC:
        return ids.trade_id
    if topic == QUOTES_TOPIC and ids.sequence is not None:
        return str(ids.sequence)
    return None


class TailReader:
    """Reads the last records of each partition, and further back for keys that have not been met.

    Args:
        settings: brokers, bounds and time-outs (`bridge_seed_*`).
        clock: bounds the whole reading.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._pause = threading.Event()  # never set: a pause of the reading thread

    async def read(
        self,
        topics: Mapping[str, int],
        visit: Visit,
        *,
        at_least: int | None = None,
        wanted: Iterable[tuple[str, bytes]] = (),
    ) -> int:
        """Visit the tails, in a thread.

        Args:
            topics: topic -> number of partitions.
            visit: gets every record of the last `at_least` of each partition; of older ones only those whose key is
                wanted and was not met nearer to the end.
            at_least: records per partition; default: `bridge_seed_records`.
            wanted: (topic, key) to look for further back, up to `bridge_seed_max_records` per partition.

        Returns:
            How many records were read.

        Raises:
            BrokerUnavailableError: no answer.
            KafkaError: not done within `bridge_seed_timeout_ms`, or refused.
        """
        count = self._settings.bridge_seed_records if at_least is None else at_least
        return await asyncio.to_thread(self._read, dict(topics), visit, count, set(wanted))

    def _read(self, topics: dict[str, int], visit: Visit, at_least: int, wanted: set[tuple[str, bytes]]) -> int:
        settings = self._settings
        deadline_ms = self._clock.monotonic_ms() + settings.bridge_seed_timeout_ms
        consumer = Consumer(
            {
                **confluent_config(settings),
                "client.id": "streamapp-bridge-tail",
                "group.id": "streamapp-bridge-tail",  # the client insists on a name; nothing is ever committed to it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 65_536,
            },
            logger=log,
        )
        total = 0
        try:
            bounds = self._bounds(consumer, topics, deadline_ms)
            upper = {tp: high for tp, (_, high) in bounds.items()}
            length = at_least
            first = True
            while True:
                spans = {tp: (max(bounds[tp][0], bounds[tp][1] - length), upper[tp]) for tp in upper}
                spans = {tp: span for tp, span in spans.items() if span[0] < span[1]}
                if not first:
                    seeking = {(topic, partition_for(key, topics[topic])) for topic, key in wanted}
                    spans = {tp: span for tp, span in spans.items() if tp in seeking}
                if not spans:
                    break
                total += self._span(consumer, spans, visit, wanted, everything=first, deadline_ms=deadline_ms)
                upper = {tp: low for tp, (low, _) in spans.items()}
                first = False
                if length >= settings.bridge_seed_max_records or not wanted:
                    break
                length = min(length * _STRETCH, settings.bridge_seed_max_records)
        except KafkaException as problem:
            raise KafkaError(f"cannot read the ends of {', '.join(topics)}: {problem.args[0].str()}") from problem
        finally:
            consumer.close()
        if wanted:
            log.info("bridge: nothing within reach for %d keys, e.g. %s", len(wanted), sorted(wanted)[0])
        return total

    def _bounds(
        self, consumer: Consumer, topics: dict[str, int], deadline_ms: int
    ) -> dict[tuple[str, int], tuple[int, int]]:
        """(first, end) offsets of every partition."""
        timeout_s = self._settings.kafka_request_timeout_ms / 1000
        bounds: dict[tuple[str, int], tuple[int, int]] = {}
        missing = [(topic, partition) for topic, count in topics.items() for partition in range(count)]
        while missing:
            topic, partition = missing[-1]
            try:
                bounds[topic, partition] = consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=timeout_s
                )
                missing.pop()
            except KafkaException as problem:
                error: ClientError = problem.args[0]
                # a topic that was created a moment ago has brokers that do not know its leader yet
                if error.code() not in _PASSING or self._clock.monotonic_ms() > deadline_ms:
                    raise BrokerUnavailableError(
                        self._settings.kafka_brokers,
                        f"expected the offsets of {topic}-{partition} from {self._settings.kafka_brokers}, "
                        f"got: {error.str()}",
                    ) from problem
                self._pause.wait(_RETRY_S)
        return bounds

    def _span(
        self,
        consumer: Consumer,
        spans: dict[tuple[str, int], tuple[int, int]],
        visit: Visit,
        wanted: set[tuple[str, bytes]],
        *,
        everything: bool,
        deadline_ms: int,
    ) -> int:
        """Read the given offset ranges; a key found here is wanted no longer once the ranges are through."""
        consumer.assign([TopicPartition(topic, partition, span[0]) for (topic, partition), span in spans.items()])
        left = dict(spans)
        met: set[tuple[str, bytes]] = set()
        count = 0
        while left:
            if self._clock.monotonic_ms() > deadline_ms:
                raise KafkaError(
                    f"expected to read the ends of the topics within {self._settings.bridge_seed_timeout_ms} ms, "
                    f"{len(left)} partitions are left; is the broker overloaded? (bridge_seed_timeout_ms)"
                )
            for message in consumer.consume(_CHUNK_RECORDS, _CHUNK_WAIT_S):
                tp = (message.topic(), message.partition())
                error = message.error()
                if error is not None:
                    if error.code() == ClientError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name for it
                        left.pop(tp, None)
                    elif error.fatal():
                        raise KafkaException(error)
                    continue
                end = left.get(tp)
                if end is None:
                    continue
                if message.offset() >= end[1] - 1:
                    del left[tp]
                    if message.offset() >= end[1]:
                        continue
                count += 1
                key, value = message.key(), message.value()
                if key is None or value is None:
                    continue
                name = (tp[0], key)
                if everything or name in wanted:
                    visit(tp[0], key, value)
                    met.add(name)
        wanted -= met
        return count
