"""A Kafka record as the consumer hands it over, and a producer that can be told to fail."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamapp.engine.tap import Decoded
from streamapp.errors import ProduceError
from streamapp.kafka.producer import OutMessage
from tests.fakes.crashes import Event


@dataclass
class Raw:
    """A record on a source topic."""

    offset: int
    key: bytes | None = b"a"
    value: bytes | None = b"{}"
    timestamp: int = 1_000_000
    headers: tuple[tuple[str, bytes], ...] = ()


def trade(offset: int, time: int = 1_000, key: bytes | None = b"a", **fields: Any) -> Raw:
    value = {"price": 1.0, "size": 2.0, "event_time": time, **fields}
    return Raw(offset, key, json.dumps(value).encode())


def decoded(raws: Sequence[Raw], events: Sequence[Event]) -> Decoded:
    """A chunk as a lane hands it on."""
    return Decoded(
        raws,
        [raw.offset for raw in raws],
        [event.key for event in events],
        list(events),
        [event.event_time for event in events],
        [-1] * len(events),
        raws[-1].offset,
    )


@dataclass
class FakeProducer:
    """Acknowledges everything, except from the call (empty ones do not count) that `fail_at` names on."""

    fail_at: int | None = None
    calls: list[list[OutMessage]] = field(default_factory=list)

    async def send_all(self, messages: Collection[OutMessage]) -> list[int]:
        if not messages:
            return []
        if self.fail_at is not None and len(self.calls) >= self.fail_at:
            raise ProduceError("topic", 1, "not acknowledged")
        first = sum(map(len, self.calls))
        self.calls.append(list(messages))
        return [first + index for index in range(len(messages))]
