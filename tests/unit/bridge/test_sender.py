"""The sender: order through failures, nothing twice that the topic holds, barriers, refused records."""

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from streamapp.bridge.outbox import Bounds, Entry, Outbox
from streamapp.bridge.sender import Sender
from streamapp.clock import ManualClock
from streamapp.errors import BrokerUnavailableError, ProduceError
from streamapp.feeds.backoff import Backoff, BackoffPolicy
from streamapp.kafka.reports import Reports
from streamapp.metrics import Metrics


class FakeProducer:
    """Takes records into `held`; the test acknowledges or fails them."""

    def __init__(self, capacity: int = 1_000) -> None:
        self.capacity = capacity
        self.held: list[tuple[Entry, Reports[Entry]]] = []
        self.taken: list[bytes] = []
        self.stopped = False
        self.broken: ProduceError | None = None
        self.refusing: set[bytes] = set()

    async def start(self) -> None:
        pass

    async def stop(self, timeout_s: float | None = None) -> None:
        self.stopped = True
        while self.held:
            self.fail(ProduceError("t", 1, "purged"))

    def try_send_all(self, records: Sequence[Entry], reports: Reports[Entry]) -> tuple[int, ProduceError | None]:
        taken = 0
        for record in records:
            if record.value in self.refusing:
                return taken, ProduceError("t", 1, "too large", record_at_fault=True)
            if self.broken is not None:
                return taken, self.broken
            if len(self.held) >= self.capacity:
                break
            self.held.append((record, reports))
            self.taken.append(record.value)
            taken += 1
        return taken, None

    def acknowledge(self, count: int) -> None:
        for record, reports in self.held[:count]:
            reports.acknowledged.append(record)
            reports.notice()
        del self.held[:count]

    def fail(self, error: ProduceError) -> None:
        record, reports = self.held.pop(0)
        reports.fail(record, error)


class Setup:
    def __init__(self, **producer: int) -> None:
        self.outbox = Outbox(Bounds(1_000, 500, 1 << 20, 1 << 19))
        self.producers: list[FakeProducer] = []
        self.on_topic: set[bytes] = set()
        self.asked: list[int] = []
        self.failures_left = 0
        self.refused: list[Entry] = []
        self.replaced = asyncio.Event()

        def new_producer() -> FakeProducer:
            self.producers.append(FakeProducer(**producer))
            return self.producers[-1]

        async def already_there(entries: list[Entry]) -> set[Entry]:
            self.asked.append(len(entries))
            if self.failures_left:
                self.failures_left -= 1
                raise BrokerUnavailableError("b", "down")
            return {entry for entry in entries if entry.value in self.on_topic}

        self.sender = Sender(
            self.outbox,
            new_producer=new_producer,
            already_there=already_there,
            refused=lambda entry, error: self.refused.append(entry),
            backoff=Backoff(
                BackoffPolicy(initial_ms=1, max_delay_ms=1, circuit_failures=1_000),
                rng=random.Random(1),
                clock=ManualClock(),
            ),
            metrics=Metrics(),
            in_flight_max=100,
        )

    def put(self, *numbers: int) -> None:
        self.outbox.put([Entry("trades", b"k", str(number).encode(), "v") for number in numbers])
        self.sender.pump()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - whatever the test looks at has no event
                await asyncio.sleep(0)

    def sent(self, generation: int = -1) -> list[int]:
        return [int(value) for value in self.producers[generation].taken]


@pytest.fixture
async def setup() -> Setup:
    made = Setup()
    await made.sender.start()
    return made


async def test_sender_settles_what_is_acknowledged(setup: Setup):
    setup.put(1, 2, 3)
    setup.producers[0].acknowledge(2)
    await setup.until(lambda: setup.outbox.records == 1)
    setup.producers[0].acknowledge(1)

    assert await setup.sender.stop(drain_timeout_s=5) == 0
    assert setup.sent() == [1, 2, 3]


async def test_sender_goes_on_in_order_when_the_clients_queue_was_full():
    setup = Setup(capacity=2)
    await setup.sender.start()
    setup.put(1, 2, 3, 4, 5)
    assert setup.sent() == [1, 2]
    while setup.outbox.records:
        setup.producers[0].acknowledge(1)
        await asyncio.sleep(0)

    assert setup.sent() == [1, 2, 3, 4, 5]


async def test_sender_hands_nothing_over_behind_an_unacknowledged_barrier(setup: Setup):
    barrier = Entry("feed-status", b"v", b"0", "v", barrier=True)
    setup.outbox.put([barrier])
    setup.put(1, 2)
    assert setup.sent() == [0]
    setup.producers[0].acknowledge(1)
    await setup.until(lambda: setup.sent() == [0, 1, 2])


async def test_sender_resends_in_order_through_a_new_producer(setup: Setup):
    setup.put(1, 2, 3, 4)
    setup.producers[0].acknowledge(1)
    setup.producers[0].fail(ProduceError("trades", 1, "fatal"))
    await setup.until(lambda: len(setup.producers) == 2 and setup.outbox.in_flight == 3)

    assert setup.producers[0].stopped
    assert setup.sent() == [2, 3, 4]


async def test_sender_does_not_resend_what_the_topic_holds(setup: Setup):
    setup.put(1, 2, 3)
    setup.on_topic = {b"1", b"2"}  # the broker took them, only the acknowledgements were lost
    setup.producers[0].fail(ProduceError("trades", 1, "fatal"))
    await setup.until(lambda: len(setup.producers) == 2 and setup.outbox.in_flight == 1)

    assert setup.sent() == [3]
    assert setup.outbox.records == 1


async def test_sender_keeps_what_it_accepted_while_kafka_is_away(setup: Setup):
    setup.failures_left = 5
    setup.put(1, 2)
    setup.producers[0].broken = ProduceError("trades", 1, "fatal client state")
    setup.put(3)
    await setup.until(lambda: len(setup.producers) == 2 and setup.outbox.in_flight == 3)

    assert setup.asked == [3] * 6
    assert setup.sent() == [1, 2, 3]


async def test_sender_ignores_late_reports_of_a_broken_producer(setup: Setup):
    setup.put(1)
    record, reports = setup.producers[0].held[0]
    setup.producers[0].fail(ProduceError("trades", 1, "fatal"))
    await setup.until(lambda: len(setup.producers) == 2 and setup.outbox.in_flight == 1)
    reports.fail(record, ProduceError("trades", 1, "late"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not setup.sender.replacing
    assert len(setup.producers) == 2


async def test_sender_gives_a_refused_record_away_and_keeps_its_producer(setup: Setup):
    setup.put(1, 2)
    setup.producers[0].fail(ProduceError("trades", 1, "too large", record_at_fault=True))
    setup.producers[0].acknowledge(1)
    await setup.until(lambda: setup.outbox.records == 0)

    assert len(setup.refused) == 1
    assert len(setup.producers) == 1


async def test_sender_goes_on_behind_a_record_that_the_client_does_not_take(setup: Setup):
    setup.producers[0].refusing = {b"1", b"3"}
    setup.put(1, 2, 3, 4)
    assert setup.sent() == [2, 4]
    setup.producers[0].acknowledge(2)
    await setup.until(lambda: setup.outbox.records == 0)

    assert len(setup.refused) == 2
    assert len(setup.producers) == 1


async def test_sender_says_what_it_leaves_behind(setup: Setup):
    setup.put(1, 2)

    assert await setup.sender.stop(drain_timeout_s=0.01) == 2


async def test_sender_that_stops_does_not_replace_the_producer_that_discards_its_records(setup: Setup):
    setup.put(1, 2)
    await setup.sender.stop(drain_timeout_s=0.01)

    assert setup.producers[0].stopped
    assert not setup.sender.replacing
