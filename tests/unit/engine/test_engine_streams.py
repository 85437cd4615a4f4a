"""The way from a fetched list to an agent's loop: order, acknowledgement, and what becomes of a record that fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from faust.types import TP

from streamapp import StreamApp, Trade
from streamapp.engine import feeder as feeding
from streamapp.engine.acks import AckTracker
from streamapp.engine.feeder import AgentFeeder
from streamapp.engine.streams import DirectStream
from streamapp.settings import Settings
from tests.fakes.kafka_records import Raw

TOPIC = TP("words", 0)
WAIT_S = 20


class Record(Raw):
    timestamp_type = 0
    checksum = None


class Letters:
    """Stands in for the engine's producer."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send_all(self, messages: Any) -> None:
        self.sent += messages


class Consumer:
    """What a feeder asks of the consumer."""

    def __init__(self, app: StreamApp) -> None:
        self.app = app
        self.committed = 0
        self.woken = 0

    def committed_position(self, topic: str, partition: int) -> int:
        return self.committed

    def wake(self) -> None:
        self.woken += 1


class Bench:
    """An app that is not started, one agent at a time, and one partition to feed it from."""

    def __init__(self, app: StreamApp) -> None:
        self.app = app
        self.consumer = Consumer(app)
        self.tracker = AckTracker()
        self.letters = Letters()
        app.engine.producer = self.letters  # type: ignore[assignment]
        app._consumer = self.consumer
        app.flow_control.resume()
        self.feeder = AgentFeeder(self.consumer, TOPIC, self.tracker)  # type: ignore[arg-type]
        self.tasks: list[asyncio.Task[Any]] = []

    def stream(self, **options: Any) -> DirectStream:
        topic = self.app.topic(TOPIC.topic, **{"value_type": bytes, "value_serializer": "raw", **options})
        stream: DirectStream = topic.stream()
        self.app.topics._tp_index[TOPIC].add(stream.channel)
        return stream

    def run(self, function: Callable[[DirectStream], Any], stream: DirectStream | None = None) -> asyncio.Task[Any]:
        from streamapp.engine.agents import guarded

        task = asyncio.create_task(guarded(self.app, function)(stream or self.stream()))
        self.tasks.append(task)
        return task

    def feed(self, *values: bytes, begin: int = 0) -> None:
        self.feeder.offer([Record(begin + index, value=value) for index, value in enumerate(values)])

    async def committable(self, position: int) -> None:
        await until(lambda: self.tracker.position() == position)

    async def close(self) -> None:
        await self.feeder.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - it is about other tasks' turns
            await asyncio.sleep(0)


def collecting(see: Callable[[Any], object]) -> Callable[[Any], Any]:
    """An agent that shows each value."""

    async def collect(stream: Any) -> None:
        async for value in stream:
            see(value)

    return collect


@pytest.fixture
async def bench(tmp_path: Any) -> AsyncIterator[Bench]:
    bench = Bench(StreamApp("words", settings=Settings(data_dir=tmp_path)))
    yield bench
    await bench.close()


async def test_agent_sees_every_record_once_in_order_and_all_become_committable(bench: Bench) -> None:
    seen: list[bytes] = []

    bench.run(collecting(seen.append))
    words = [b"%d" % n for n in range(1_000)]
    bench.feed(*words[:400])
    bench.feed(*words[400:], begin=400)
    await bench.committable(1_000)
    assert seen == words
    assert bench.app.metrics.agent_records.labels("words")._value.get() == 1_000


async def test_record_is_not_committable_while_the_agent_works_on_it(bench: Bench) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow(stream: Any) -> None:
        async for value in stream:
            if value == b"c":
                reached.set()
                await go.wait()

    bench.run(slow)
    bench.feed(b"a", b"b", b"c", b"d")
    await asyncio.wait_for(reached.wait(), WAIT_S)
    assert bench.tracker.position() == 2
    go.set()
    await bench.committable(4)


async def test_two_agents_both_see_a_record_before_it_is_committable(bench: Bench) -> None:
    seen: list[bytes] = []
    go = asyncio.Event()

    async def late(stream: Any) -> None:
        async for _ in stream:
            await go.wait()

    bench.run(collecting(seen.append))
    bench.run(late)
    bench.feed(b"a", b"b")
    await until(lambda: len(seen) == 2)
    assert bench.tracker.position() is None
    go.set()
    await bench.committable(2)


async def test_failed_record_becomes_a_dead_letter_and_then_counts_as_done(bench: Bench) -> None:
    async def fragile(stream: Any) -> None:
        async for value in stream:
            if value == b"b":
                raise ValueError(value)

    task = bench.run(fragile)
    bench.feed(b"a", b"b", b"c")
    with pytest.raises(ValueError, match="b"):
        await asyncio.wait_for(task, WAIT_S)
    assert [letter.topic for letter in bench.letters.sent] == ["dead-letters"]
    assert bench.tracker.position() == 2


async def test_cancelled_record_is_never_committable(bench: Bench) -> None:
    reached = asyncio.Event()

    async def stuck(stream: Any) -> None:
        async for value in stream:
            if value == b"b":
                reached.set()
                await asyncio.Event().wait()

    task = bench.run(stuck)
    bench.feed(b"a", b"b")
    await asyncio.wait_for(reached.wait(), WAIT_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.tracker.position() == 1
    assert bench.letters.sent == []


async def test_take_gives_batches_that_count_when_the_next_is_asked_for(bench: Bench) -> None:
    batches: list[list[bytes]] = []
    reached, go = asyncio.Event(), asyncio.Event()

    async def by_three(stream: Any) -> None:
        async for batch in stream.take(3, within=0.05):
            batches.append(batch)
            if len(batches) == 2:
                reached.set()
                await go.wait()

    bench.run(by_three)
    bench.feed(b"a", b"b", b"c", b"d")
    await asyncio.wait_for(reached.wait(), WAIT_S)
    assert batches == [[b"a", b"b", b"c"], [b"d"]]
    assert bench.tracker.position() == 3
    go.set()
    await bench.committable(4)


async def test_batch_on_which_the_agent_fails_is_kept_whole(bench: Bench) -> None:
    async def fragile(stream: Any) -> None:
        async for _ in stream.take(3, within=5):
            raise ValueError("batch")

    task = bench.run(fragile)
    bench.feed(b"a", b"b", b"c")
    with pytest.raises(ValueError, match="batch"):
        await asyncio.wait_for(task, WAIT_S)
    assert len(bench.letters.sent) == 3
    assert bench.tracker.position() == 3


async def test_events_and_filters_sit_on_top_of_the_iteration(bench: Bench) -> None:
    seen: list[tuple[bytes, int]] = []
    see = seen.append

    async def kept(stream: Any) -> None:
        async for event in stream.filter(lambda value: value != b"b").events():
            see((event.value, event.message.offset))

    bench.run(kept)
    bench.feed(b"a", b"b", b"c")
    await bench.committable(3)
    assert seen == [(b"a", 0), (b"c", 2)]


async def test_undecodable_record_becomes_a_dead_letter_for_those_who_cannot_read_it(bench: Bench) -> None:
    seen: list[Any] = []
    raw: list[bytes] = []

    bench.run(collecting(seen.append), bench.stream(value_type=Trade, value_serializer=None))
    bench.run(collecting(raw.append))
    bench.feed(b"{}")
    await bench.committable(1)
    assert seen == []
    assert raw == [b"{}"]
    assert len(bench.letters.sent) == 1


async def test_event_of_an_earlier_assignment_is_neither_shown_nor_acknowledged(bench: Bench) -> None:
    seen: list[bytes] = []
    stream = bench.stream()
    bench.feed(b"a", b"b")
    await until(lambda: stream.channel.queue.qsize() == 2)
    bench.app.consumer_generation_id += 1

    bench.run(collecting(seen.append), stream)
    bench.feed(b"c", begin=2)
    await until(lambda: seen)
    assert seen == [b"c"]
    assert bench.tracker.position() is None


async def test_group_position_hides_older_records_from_agents(bench: Bench) -> None:
    seen: list[bytes] = []

    bench.run(collecting(seen.append))
    bench.consumer.committed = 2
    bench.feed(b"a", b"b", b"c")
    await bench.committable(3)
    assert seen == [b"c"]


async def test_stalled_agent_fills_the_feeder_and_its_going_on_wakes_the_consumer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "FEEDER_MAX_RECORDS", 300)
    go = asyncio.Event()

    async def stalled(stream: Any) -> None:
        async for _ in stream:
            await go.wait()

    stream = bench.stream()
    stream.channel.queue._maxsize = 100
    bench.run(stalled, stream)
    bench.feed(*[b"x"] * 500)
    await until(lambda: stream.channel.queue.full())
    assert bench.feeder.full
    go.set()
    await bench.committable(500)
    assert not bench.feeder.full
    assert bench.consumer.woken


async def test_agent_that_never_waits_leaves_turns_to_the_others(bench: Bench) -> None:
    turns = 0

    async def busy(stream: Any) -> None:
        async for _ in stream:
            sum(range(20_000))

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    stream = bench.stream()
    bench.feed(*[b"x"] * 120)
    await until(lambda: stream.channel.queue.qsize() == 120)
    bench.run(busy, stream)
    bench.tasks.append(asyncio.create_task(other()))
    await bench.committable(120)
    assert turns > 5
