"""From the consumer's lists to the agents' queues, without Faust's path of several tasks and callbacks per record.

A feeder takes the lists of one partition, decodes each record once per schema, and puts the event straight onto the queues
of the streams that follow the topic. It waits where a queue is full, so a stalled agent holds back its partition alone.

This module touches private members of Faust; tests/integration/test_engine_contract.py names them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.serializers.schemas import Schema
from faust.types import TP
from faust.types.tuples import ConsumerMessage, ack_lock

from streamapp.engine.acks import AckTracker

if TYPE_CHECKING:
    from streamapp.engine.transport import LaneConsumer

#: records per partition that wait for agents before fetching stops
FEEDER_MAX_RECORDS = 16_384
#: records between two looks at flow control, and between two turns of the event loop
_CHUNK_RECORDS = 128

Decode = Callable[[Any], Any]


class AgentMessage(ConsumerMessage):  # type: ignore[misc]
    """A record on its way to agents; it reports to the tracker of the assignment that it was read under.

    Faust's own bookkeeping goes by partition alone, and a record of an earlier assignment that is finished late would
    acknowledge its repeat.
    """

    def __init__(self, tp: TP, record: Any, readers: int, generation_id: int, tracker: AckTracker) -> None:
        # the stock constructor's slots, set without its 16 arguments: one is made per record
        key, value = record.key, record.value
        self.topic, self.partition = tp
        self.offset = record.offset
        self.timestamp = record.timestamp / 1000 if record.timestamp is not None else None
        self.timestamp_type = record.timestamp_type
        self.headers = record.headers
        self.key = key
        self.value = value
        self.checksum = record.checksum
        self.serialized_key_size = len(key) if key is not None else -1
        self.serialized_value_size = len(value) if value is not None else -1
        self.acked = False
        self.refcount = readers
        self.tp = tp
        # Faust's set of unacknowledged messages is not kept: the tracker knows
        self.tracked = True
        self.time_in = self.time_out = self.time_total = None
        self.generation_id = generation_id
        self.tracker = tracker

    def ack(self, consumer: Any, n: int = 1) -> bool:
        """Note that `n` agents have finished with this record; whether they were the last."""
        # the stock method takes this lock three times; an agent may acknowledge from a thread of its own
        with ack_lock:
            if self.acked:
                return False
            self.refcount -= n
            if self.refcount > 0:
                return False
            self.acked = True
            self.tracker.done(self.offset)
            return True

    def refuse(self) -> None:
        """Have this record delivered again, whatever acknowledges it."""
        self.tracker.refuse(self.offset)


class AgentFeeder:
    """Hands the records of one partition to the agents, in order, and waits where they are slow.

    Args:
        consumer: knows the app, the group's position and what to do when this breaks.
        tp: the partition.
        tracker: learns what is handed out.
    """

    def __init__(self, consumer: "LaneConsumer", tp: TP, tracker: AckTracker) -> None:
        self._consumer = consumer
        self._app = consumer.app
        self._tp = tp
        self._tracker = tracker
        self._lists: deque[Sequence[Any]] = deque()
        self._waiting = 0  # records in the lists
        self._held = False  # was full when it was last looked at
        self._arrived = asyncio.Event()
        self._decoders: dict[Any, Decode] = {}
        self._pending = self._app.metrics.agent_pending.labels(tp.topic)
        self._handed_out = self._app.metrics.agent_records.labels(tp.topic)
        self._task = asyncio.create_task(self._run(), name=f"feed-{tp.topic}-{tp.partition}")

    @property
    def full(self) -> bool:
        """Whether fetching this partition has to stop; the consumer is woken when it may go on."""
        self._held = self._waiting + self._tracker.pending >= FEEDER_MAX_RECORDS
        return self._held

    def offer(self, records: Sequence[Any]) -> None:
        """Queue a fetched list."""
        self._lists.append(records)
        self._waiting += len(records)
        self._arrived.set()

    async def stop(self) -> None:
        """Stop; what waits was not acknowledged and will be fetched again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                if not self._lists:
                    self._arrived.clear()
                    self._pending.set(self._tracker.pending)
                    await self._arrived.wait()
                    continue
                records = self._lists.popleft()
                for begin in range(0, len(records), _CHUNK_RECORDS):
                    chunk = records[begin : begin + _CHUNK_RECORDS]
                    await self._deliver(chunk)
                    self._waiting -= len(chunk)
                    self._handed_out.inc(len(chunk))
                    self._pending.set(self._waiting + self._tracker.pending)
                    if self._held and not self.full:
                        self._consumer.wake()
                    await asyncio.sleep(0)
        except Exception as problem:
            self._app.fail(problem)

    async def _deliver(self, records: Sequence[Any]) -> None:
        app, tp, tracker = self._app, self._tp, self._tracker
        await app.flow_control.acquire()
        # as in the stock path: agents that send faster than Kafka takes it are slowed down here
        await app.producer.buffer.wait_until_ebb()
        # the conductor's own index, as its message handler uses it
        channels = tuple(app.topics._tp_index.get(tp) or ())
        # tables may have wanted older records than the group: agents do not see those again
        begin = self._consumer.committed_position(*tp) or 0
        generation = app.consumer_generation_id
        groups = self._by_schema(channels)
        readers = len(channels)
        for record in records:
            if record.offset < begin or not readers:
                continue
            tracker.handed_out(record.offset)
            message = AgentMessage(tp, record, readers, generation, tracker)
            for decode, group in groups:
                try:
                    event = decode(message)
                except (KeyDecodeError, ValueDecodeError) as problem:
                    await self._set_aside(problem, message, group)
                    continue
                for channel in group:
                    queue = channel.queue
                    if queue.full():
                        await queue.put(event)
                    else:
                        queue.put_nowait(event)

    def _by_schema(self, channels: Iterable[Any]) -> list[tuple[Decode, list[Any]]]:
        """The channels, with those that read the same types sharing one event, as in the stock path."""
        groups: dict[Any, tuple[Decode, list[Any]]] = {}
        for channel in channels:
            kind = (channel.key_type, channel.value_type, type(channel.schema))
            if kind not in groups:
                decode = self._decoders.get(channel)
                if decode is None:
                    decode = self._decoders[channel] = decoder(self._app, channel.schema)
                groups[kind] = (decode, [])
            groups[kind][1].append(channel)
        return list(groups.values())

    async def _set_aside(self, problem: Exception, message: AgentMessage, group: Sequence[Any]) -> None:
        for channel in group:
            if isinstance(problem, KeyDecodeError):
                await channel.on_key_decode_error(problem, message)
            else:
                await channel.on_value_decode_error(problem, message)
        # only now: the dead letter is durable
        message.ack(self._consumer, len(group))


def decoder(app: Any, schema: Schema) -> Decode:
    """What makes an event of a message: `Schema.compile` without a coroutine per record."""
    loads_key, loads_value = app.serializers.loads_key, app.serializers.loads_value
    event_type = app.conf.Event  # `App.create_event` looks this up for every event

    def decode(message: Any) -> Any:
        key = schema.loads_key(app, message, loads=loads_key)
        if message.value is None and schema.allow_empty:
            value = None
        else:
            value = schema.loads_value(app, message, loads=loads_value)
        return event_type(app, key, value, message.headers, message)

    return decode
