"""What becomes of records that are handed to the client in numbers."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import Message

from streamapp.errors import ProduceError

#: errors that stay however often the same record is sent
_RECORD_AT_FAULT = frozenset(
    {ClientError.MSG_SIZE_TOO_LARGE, ClientError.INVALID_RECORD, ClientError.INVALID_MSG, ClientError.INVALID_MSG_SIZE}
)


class _Reported(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """Apart from `Outgoing`, so that subclasses of that may have further fields without defaults."""

    reports: "Reports[Any] | None" = None


class Outgoing(_Reported, eq=False, gc=False):
    """A record that takes its own report: nothing else is made for it when it is handed over.

    Attributes:
        topic: where it goes.
        key: the Kafka key; decides the partition.
        value: the bytes.
        reports: where its report goes; set when it is handed over.
    """

    topic: str
    key: bytes
    value: bytes

    def __call__(self, error: ClientError | None, message: Message) -> None:
        """Be told by the client, once, in whichever thread serves its reports."""
        reports = self.reports
        assert reports is not None
        if error is not None:
            reports.fail(self, failure(self.topic, error))
            return
        reports.acknowledged.append(self)
        if not reports.noticed:
            reports.notice()


Sent = TypeVar("Sent", bound=Outgoing)


class Reports(Generic[Sent]):
    """The reports of records that were handed over, until the event loop looks at them.

    Filled in by whichever thread serves the client's reports, so only operations that the interpreter makes atomic are
    used. The loop is woken once for many.

    Args:
        on_reports: called in the running loop, some time after the first report since `take_acknowledged`.

    Attributes:
        acknowledged: records that all in-sync replicas have.
        failed: records that may be on their topic or not, each with the reason.
        noticed: whether the loop is about to look.
    """

    __slots__ = ("_loop", "_on_reports", "acknowledged", "failed", "noticed")

    def __init__(self, on_reports: Callable[[], None]) -> None:
        self.acknowledged: deque[Sent] = deque()
        self.failed: deque[tuple[Sent, ProduceError]] = deque()
        self.noticed = False
        self._on_reports = on_reports
        self._loop = asyncio.get_running_loop()

    def notice(self) -> None:
        """Wake the loop."""
        self.noticed = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            self._loop.call_soon_threadsafe(self._on_reports)

    def fail(self, record: Sent, problem: ProduceError) -> None:
        """Report a failure."""
        self.failed.append((record, problem))
        if not self.noticed:
            self.notice()

    def take_acknowledged(self) -> list[Sent]:
        """The records that were acknowledged since the last call, in the order of their reports."""
        self.noticed = False  # before looking, so that nothing that comes later is missed
        next_one = self.acknowledged.popleft
        return [next_one() for _ in range(len(self.acknowledged))]


def failure(topic: str, error: ClientError) -> ProduceError:
    """What the client's report of a failure says."""
    return ProduceError(topic, 1, f"not acknowledged: {error.str()}", record_at_fault=error.code() in _RECORD_AT_FAULT)


def refusal(topic: str, error: ClientError) -> ProduceError:
    """What the client says where it does not even take a record."""
    return ProduceError(
        topic, 1, f"cannot send to {topic}: {error.str()}", record_at_fault=error.code() in _RECORD_AT_FAULT
    )
