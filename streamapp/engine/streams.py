"""What agents iterate over: Faust's streams with a direct way from the queue to the agent's loop.

The stock iterator gives the event loop a turn for every record, asks half a dozen sensors, and takes two coroutines to get
one event. Here the loop gets its turn by the clock, and nothing is awaited while the queue has records. Processors,
`filter`, `group_by`, joins and `events()` work as they do in Faust, because they sit on top of the iteration.

What is different besides speed:

- `take` and its relatives collect from the queue; a batch is acknowledged when the agent asks for the next one, and one on
  which the agent fails becomes dead letters (see `agents.guarded`), where the stock code acknowledges it;
- an event of an earlier assignment is dropped unacknowledged;
- Faust's `Monitor` is not told of single events (`streamapp_agent_records_total` counts them); sensors that an app adds are.

This module touches private members of Faust; tests/integration/test_engine_contract.py names them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from faust.events import Event
from faust.exceptions import Skip
from faust.streams import Stream, _current_event
from faust.types import ChannelT, EventT
from mode.utils.futures import maybe_async
from mode.utils.times import want_seconds

if TYPE_CHECKING:
    from streamapp.app import StreamApp

_SKIPPED = object()


class DirectStream(Stream):  # type: ignore[misc]
    """A Faust stream that takes its events from the queue without a detour.

    Attributes:
        in_hand: the events that the agent works on now: one, or the batch that `take` gave it.
    """

    app: "StreamApp"
    in_hand: Sequence[Event] = ()

    def __aiter__(self) -> AsyncIterator[Any]:
        if not isinstance(self.channel, ChannelT):
            return super().__aiter__()  # type: ignore[no-any-return]  # a plain iterable has no queue
        iterator = self._values()
        # `Stream.on_stop` closes what an agent has left behind
        self._active_agens.add(iterator)
        return iterator

    async def _values(self) -> AsyncGenerator[Any, None]:
        started_here = await self._begin()
        app, channel, current_event = self.app, self.channel, _current_event
        consumer, flow_control, turn_of = app.consumer, app.flow_control, app.clock.monotonic_ms
        queue = channel.queue
        # the queue's own deque: `get_nowait` goes through four methods per event
        waiting, errors, putters = queue._queue, queue._errors, queue._putters
        sensors = self._extra_sensors()
        plain = not self.join_strategy
        turn = turn_of()
        try:
            while not self.should_stop:
                if waiting and not errors and not putters:
                    event = waiting.popleft()
                    if turn != (turn := turn_of()):
                        # everybody else gets a turn once per millisecond: an agent that never waits would keep the loop
                        await asyncio.sleep(0)
                else:
                    event = await channel.__anext__()
                if type(event) is not Event and not isinstance(event, EventT):  # the latter alone is slow
                    self._set_current_event(None)
                    hand: tuple[Event, ...] = ()
                    self.in_hand = hand
                    value = event
                # the stock iterator asks the same: is the event one of the present assignment?
                elif flow_control.is_active() and event.message.generation_id == app.consumer_generation_id:
                    current_event.set(ref(event))
                    self.current_event = event
                    self.in_hand = hand = (event,)
                    value = event.value
                else:
                    continue
                state = sensors.into(self, event) if sensors is not None and hand else None
                if self._processors or not plain:
                    value = await self._processed(value)
                acknowledge = self.enable_acks or value is _SKIPPED
                try:
                    if value is not _SKIPPED:
                        self.events_total += 1
                        yield value
                finally:
                    # otherwise `settle` was there first, or another iteration has begun
                    if hand and self.in_hand is hand:
                        self.in_hand = ()
                        self.current_event = None
                        if acknowledge:
                            event.message.ack(consumer)
                        if sensors is not None:
                            sensors.out_of(self, event, state)
        except StopAsyncIteration:
            return
        finally:
            await self._end(started_here)

    async def _batches(self, max_: int, within: Any, *, acknowledge: bool = True) -> AsyncGenerator[Any, None]:
        """Lists of (event, value): `max_` of them, or what came within that time of the first one."""
        started_here = await self._begin()
        seconds = want_seconds(within) if within else None
        loop = asyncio.get_running_loop()
        consumer = self.app.consumer
        try:
            while not self.should_stop:
                self.in_hand = hand = []
                values: list[Any] = []
                deadline: float | None = None
                with contextlib.suppress(TimeoutError):
                    while len(values) < max_:
                        async with asyncio.timeout_at(deadline):
                            event = await self.channel.__anext__()
                        if not isinstance(event, EventT) or not self._is_current(event):
                            continue
                        if deadline is None and seconds is not None:
                            deadline = loop.time() + seconds
                        hand.append(event)
                        self._set_current_event(event)
                        value = await self._processed(event.value)
                        if value is _SKIPPED:
                            hand.pop().message.ack(consumer)
                        else:
                            values.append(value)
                if not values:
                    continue
                self.events_total += len(values)
                try:
                    yield hand, values
                finally:
                    if self.in_hand is hand:
                        self.in_hand = ()
                        self.current_event = None
                        if acknowledge:
                            for event in hand:
                                event.message.ack(consumer)
        finally:
            await self._end(started_here)

    async def take(self, max_: int, within: Any) -> AsyncGenerator[Sequence[Any], None]:
        """Lists of at most `max_` values, waiting no longer than `within` after the first of them."""
        async for _, values in self._batches(max_, within):
            yield values

    async def take_events(self, max_: int, within: Any) -> AsyncGenerator[Sequence[Any], None]:
        """The same with the events."""
        async for events, _ in self._batches(max_, within):
            yield list(events)

    async def take_with_timestamp(
        self, max_: int, within: Any, timestamp_field_name: str
    ) -> AsyncGenerator[Sequence[Any], None]:
        """The same with Kafka's timestamp put into values that are dicts."""
        async for events, values in self._batches(max_, within):
            for event, value in zip(events, values, strict=True):
                if isinstance(value, dict) and timestamp_field_name:
                    value[timestamp_field_name] = event.message.timestamp
            yield values

    async def noack_take(self, max_: int, within: Any) -> AsyncGenerator[Sequence[Any], None]:
        """Lists of events that the agent acknowledges itself, with `stream.ack(event)`."""
        async for events, _ in self._batches(max_, within, acknowledge=False):
            yield list(events)

    def settle(self) -> None:
        """Acknowledge what is in hand: the agent failed on it, and it has become dead letters."""
        hand, self.in_hand = self.in_hand, ()
        self.current_event = None
        for event in hand:
            event.message.ack(self.app.consumer)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _begin(self) -> bool:
        self._finalized = True  # as the stock iterator does: `group_by` and `through` are settled from here on
        return bool(await self.maybe_start())

    async def _end(self, started_here: bool) -> None:
        self._channel_stop_iteration(self.channel)
        if started_here:
            await self.stop()
            self.service_reset()

    def _is_current(self, event: Event) -> bool:
        """Whether the event belongs to the present assignment; the stock iterator asks the same."""
        app = self.app
        return bool(app.flow_control.is_active() and event.message.generation_id == app.consumer_generation_id)

    async def _processed(self, value: Any) -> Any:
        try:
            for processor in self._processors:
                value = await maybe_async(processor(value))
            return await self.on_merge(value)
        except Skip:
            return _SKIPPED

    def _extra_sensors(self) -> "_Sensors | None":
        own = self.app.monitor
        return _Sensors(self) if any(sensor is not own for sensor in self.app.sensors) else None


class _Sensors:
    """The calls that Faust makes to sensors around an event; only where an app has added one."""

    def __init__(self, stream: DirectStream) -> None:
        self._in, self._out = stream._on_stream_event_in, stream._on_stream_event_out
        self._message_in, self._message_out = stream._on_message_in, stream._on_message_out

    def into(self, stream: DirectStream, event: Any) -> Any:
        if not isinstance(event, EventT):
            return None
        message = event.message
        self._message_in(message.tp, message.offset, message)
        return self._in(message.tp, message.offset, stream, event)

    def out_of(self, stream: DirectStream, event: Any, state: Any) -> None:
        if isinstance(event, EventT):
            message = event.message
            self._out(message.tp, message.offset, stream, event, state)
            if message.acked:
                self._message_out(message.tp, message.offset, message)
