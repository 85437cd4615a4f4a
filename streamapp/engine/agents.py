"""What keeps an agent from losing a record: its failure and its cancellation are not acknowledgements.

Faust acknowledges a record in a `finally`, so one whose agent raised, or was cancelled half-way, would be gone. Here the
first becomes a dead letter before it counts as done, and the second stays uncommitted and is delivered again. A batch of
`stream.take` goes the same way as a whole.
"""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from faust.exceptions import KeyDecodeError
from faust.topics import Topic

from streamapp.engine.feeder import AgentMessage
from streamapp.errors import RecordError

if TYPE_CHECKING:
    from streamapp.app import StreamApp

AgentFunction = Callable[..., Any]


def guarded(app: "StreamApp", function: AgentFunction) -> AgentFunction:
    """Wrap an agent's function so that the record it was working on is kept when it fails or is cancelled."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def generating(*args: Any, **kwargs: Any) -> Any:
            stream = args[-1]
            try:
                async for value in function(*args, **kwargs):
                    yield value
            except asyncio.CancelledError:
                _give_back(stream)
                raise
            except Exception as problem:
                await _bury(app, stream, problem)
                raise

        return generating

    @functools.wraps(function)
    async def running(*args: Any, **kwargs: Any) -> None:
        stream = args[-1]
        try:
            await function(*args, **kwargs)
        except asyncio.CancelledError:
            _give_back(stream)
            raise
        except Exception as problem:
            await _bury(app, stream, problem)
            raise

    return running


def _give_back(stream: Any) -> None:
    for event in stream.get_active_stream().in_hand:
        if isinstance(event.message, AgentMessage):  # what a channel in memory carries cannot be delivered again
            event.message.refuse()


async def _bury(app: "StreamApp", stream: Any, problem: Exception) -> None:
    # after `group_by` it is the last stream of the chain that the agent reads
    active = stream.get_active_stream()
    reason = RecordError("agent_failed", repr(problem)[:500])
    try:
        for event in active.in_hand:
            if isinstance(event.message, AgentMessage):
                await bury_message(app, event.message, reason)
    except Exception as unsent:
        # without its dead letter the record must come again
        _give_back(stream)
        app.fail(unsent)
    active.settle()


async def bury_message(app: "StreamApp", message: Any, problem: RecordError) -> None:
    """Make the dead letter of a message durable."""
    engine = app.engine
    letter = engine.dead_letters.make(message.topic, message.partition, message, problem)
    if letter is not None:
        await engine.producer.send_all([letter])


class StreamTopic(Topic):  # type: ignore[misc]
    """A Faust topic whose unreadable records become dead letters."""

    app: "StreamApp"

    async def on_key_decode_error(self, exc: Exception, message: Any) -> None:
        """Set the record aside; the stream goes on."""
        await self._bury(exc, message)

    async def on_value_decode_error(self, exc: Exception, message: Any) -> None:
        """Set the record aside; the stream goes on."""
        await self._bury(exc, message)

    def _bury(self, exc: Exception, message: Any) -> Awaitable[None]:
        reason = "undecodable_key" if isinstance(exc, KeyDecodeError) else "wrong_schema"
        return bury_message(self.app, message, RecordError(reason, str(exc)[:500]))
