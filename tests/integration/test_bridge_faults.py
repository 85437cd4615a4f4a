"""What a venue, or Kafka, may do to the bridge; the feed goes on and nothing accepted is lost."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import BaseModel

from streamapp.bridge.service import Bridge
from streamapp.errors import BrokerUnavailableError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.topics import TopicSpec
from streamapp.local.broker import EmbeddedKafka
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.model import FeedFreshness
from streamapp.records.models import DeadLetter
from streamapp.settings import FeedSettings, Settings
from streamapp.simulator.server import Simulator, SimulatorSettings
from tests.fakes.bridge_runs import clean_topics, command, read_topic, read_topics

pytestmark = pytest.mark.integration

QUICK = {"feed_backoff_initial_ms": 10, "feed_backoff_max_ms": 50, "feed_heartbeat_ms": 100}


def match(number: int, **changed: object) -> str:
    frame = {
        "type": "match",
        "trade_id": number,
        "product_id": "BTC-USD",
        "price": "64000.5",
        "size": "0.1",
        "side": "buy",
        "sequence": number * 3,
        "time": "2026-01-02T03:04:05.678901Z",
    }
    return json.dumps(frame | changed)


@asynccontextmanager
async def venue(*connections: list[str | bytes]) -> AsyncIterator[str]:
    """A server that sends the n-th list of frames to the n-th connection, then stays silent."""
    scripts = list(connections)

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive_str()
        for frame in scripts.pop(0) if scripts else []:
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            else:
                await socket.send_str(frame)
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bridging(settings: Settings, url: str, **options: object) -> AsyncIterator[Bridge]:
    feed = FeedSettings(venue="coinbase", url=url, symbols=("BTC-USD",), options=options)
    bridge = Bridge(settings, {"main": feed})
    await bridge.start()
    try:
        yield bridge
    finally:
        await bridge.stop()


async def until(condition, limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - figures without an event
            await asyncio.sleep(0.01)


def acknowledged(bridge: Bridge, topic: str) -> float:
    return bridge.metrics.bridge_records.labels("coinbase", topic)._value.get()


async def settled(bridge: Bridge) -> float:
    """The number of frames once it has stopped growing."""
    counter = bridge.metrics.bridge_frames.labels("coinbase")._value
    before = -1.0
    while before != counter.get():
        before = counter.get()
        await asyncio.sleep(0.5)
    return before


def java_of(broker: EmbeddedKafka) -> int:
    """The broker's own process, below the one that watches over it."""
    children = Path(f"/proc/{broker.pid}/task/{broker.pid}/children")
    if not children.exists():
        pytest.skip("needs Linux's list of child processes to stop the broker's own one")
    return int(children.read_text().split()[0])


async def test_bridge_bad_frames_become_dead_letters_and_the_feed_goes_on(kafka):
    settings = Settings(kafka_brokers=kafka, **QUICK)
    await clean_topics(settings)
    frames: list[str | bytes] = [
        match(1),
        '{"type":"match","trade_id":2',
        match(2, price="NaN"),
        match(2, price="-1"),
        match(2, trade_id="two"),
        b"\xff\xfe not text",
        match(2, padding="x" * 3_000),
        match(2),
    ]
    async with venue(frames) as url, bridging(settings, url, max_frame_bytes=2_000) as bridge:
        await until(lambda: acknowledged(bridge, "trades") == 2 and acknowledged(bridge, "dead-letters") == 6)

    topics = await read_topics(kafka)
    assert [record.value["trade_id"] for record in topics["trades"]] == ["1", "2"]
    letters = [DeadLetter.model_validate_json(json.dumps(record.value)) for record in topics["dead-letters"]]
    assert [letter.reason for letter in letters] == [
        "malformed_json",
        "bad_number",
        "bad_number",
        "wrong_type",
        "malformed_json",
        "oversized",
    ]
    assert base64.b64decode(letters[0].value_base64) == b'{"type":"match","trade_id":2'
    assert {letter.topic for letter in letters} == {"feed:main"}
    states = [record.value["state"] for record in topics["feed-status"]]
    assert "recovered" not in states, "none of this needs a new connection"


class Reading(BaseModel):
    """What a generic feed of these tests brings."""

    device: str
    celsius: float


def reading_feed(topic: str, url: str, **more: object) -> FeedSettings:
    options = {
        "name": topic,
        "model": f"{__name__}.Reading",
        "topic": topic,
        "key": "{feed}:{device}",
        "open": ["hello"],
        "fields": {"device": "$.id", "celsius": {"path": "$.t", "kind": "number"}},
    }
    return FeedSettings(venue="generic", url=url, options={**options, **more})


async def test_bridge_creates_the_topic_of_a_generic_feed_and_takes_one_that_is_there_as_it_is(kafka):
    settings = Settings(kafka_brokers=kafka, partitions=4, **QUICK)
    await clean_topics(settings)
    admin = KafkaAdmin(settings)
    new, there = f"readings-{os.urandom(4).hex()}", f"readings-{os.urandom(4).hex()}"
    await admin.ensure_topics([TopicSpec(there, 1)])
    frame = json.dumps({"id": "a", "t": 21.5})

    async with venue([frame], [frame]) as url:
        bridge = Bridge(settings, {topic: reading_feed(topic, url) for topic in (new, there)})
        await bridge.start()
        try:
            sent = bridge.metrics.bridge_records
            await until(lambda: all(sent.labels(topic, topic)._value.get() == 1 for topic in (new, there)))
        finally:
            await bridge.stop()

    described = await admin.describe_topics([new, there], with_config=False)
    assert {name: topic and topic.partitions for name, topic in described.items()} == {new: 4, there: 1}
    for topic in (new, there):
        (record,) = await asyncio.to_thread(read_topic, kafka, topic)
        assert (record.key, record.value) == (f"{topic}:a", {"device": "a", "celsius": 21.5})


async def test_bridge_knows_repeats_of_a_generic_feed_after_a_restart(kafka):
    settings = Settings(kafka_brokers=kafka, partitions=2, **QUICK)
    await clean_topics(settings)
    topic = f"readings-{os.urandom(4).hex()}"
    frames = [json.dumps({"id": f"d{number % 3}", "t": number / 2}) for number in range(10)]
    # the second life is told the last frames again, as venues do after a subscription
    async with venue(frames[:7], frames[4:]) as url:
        for sent in (7, 3):
            bridge = Bridge(settings, {"plant": reading_feed(topic, url, dedup=["device", "celsius"])})
            await bridge.start()
            try:
                counter = bridge.metrics.bridge_records.labels(topic, topic)._value
                await until(lambda counter=counter, sent=sent: counter.get() == sent)
            finally:
                await bridge.stop()
    stored = await asyncio.to_thread(read_topic, kafka, topic)
    assert sorted(record.value["celsius"] for record in stored) == [number / 2 for number in range(10)]


async def test_bridge_frame_that_closes_the_socket_is_a_dead_letter_and_the_loss_a_gap(kafka):
    settings = Settings(kafka_brokers=kafka, **QUICK)
    await clean_topics(settings)
    first: list[str | bytes] = [match(1), match(2, padding="x" * 100_000)]
    async with venue(first, [match(5)]) as url, bridging(settings, url, max_frame_bytes=2_000) as bridge:
        await until(lambda: acknowledged(bridge, "trades") == 2)

    topics = await read_topics(kafka)
    assert [record.value["trade_id"] for record in topics["trades"]] == ["1", "5"]
    assert [record.value["reason"] for record in topics["dead-letters"]] == ["oversized"]
    gaps = [record.value for record in topics["feed-status"] if record.value["state"] == "gap"]
    assert [(gap["sequence_expected"], gap["sequence_got"]) for gap in gaps] == [(2, 5)]


async def test_bridge_silence_is_published_and_ends_with_a_new_connection(kafka):
    settings = Settings(kafka_brokers=kafka, **QUICK)
    await clean_topics(settings)
    async with venue([match(1)], [match(1), match(2)]) as url:
        async with bridging(settings, url, heartbeat_timeout_ms=200) as bridge:
            await until(lambda: acknowledged(bridge, "trades") == 2)
        assert bridge.metrics.bridge_duplicates.labels("coinbase")._value.get() == 1

    topics = await read_topics(kafka)
    assert [record.value["trade_id"] for record in topics["trades"]] == ["1", "2"]
    states = [(record.value["state"], record.value["detail"]) for record in topics["feed-status"]]
    kinds = [state for state, _ in states]
    assert kinds.index("connected") < kinds.index("disconnected", 1) < kinds.index("recovered")
    assert any("silent for" in detail for _, detail in states)


async def test_bridge_heartbeats_reach_feed_health_and_their_absence_too(kafka):
    settings = Settings(kafka_brokers=kafka, feed_timeout_ms=1_000, **QUICK)
    await clean_topics(settings)
    changes: asyncio.Queue[str] = asyncio.Queue()
    health = FeedHealth(settings, on_change=changes.put_nowait)
    await health.start()
    async with venue([match(1), match(4)]) as url, bridging(settings, url):
        await until(lambda: health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=True, gaps=1))
        assert (health.known_good_ms("coinbase:BTC-USD") or 0) < 1_000
    await until(lambda: health.for_key("coinbase:BTC-USD") == FeedFreshness(connected=False, gaps=1))
    assert not changes.empty()
    await health.stop(5)


async def test_bridge_keeps_everything_within_its_bound_while_kafka_stands_still():
    high = 2_000
    with EmbeddedKafka() as broker:
        settings = Settings(
            kafka_brokers=broker.bootstrap,
            bridge_high_water_records=high,
            bridge_low_water_records=500,
            **QUICK,
        )
        simulator = Simulator(SimulatorSettings(symbols=1, rate=0, events=80_000, seed=9, ticker_every=0))
        await simulator.start()
        java = java_of(broker)
        async with bridging(settings, simulator.url) as bridge:
            await until(lambda: acknowledged(bridge, "trades") > 100)
            os.kill(java, signal.SIGSTOP)
            try:
                await until(lambda: bridge.outbox.full)
                frames = await settled(bridge)
                assert frames < 80_000, "the socket is not read any further"
                # one batch of frames may exceed the mark, and heartbeats do not wait behind it
                assert bridge.outbox.full
                assert bridge.outbox.records <= high + 1_100
                assert bridge.metrics.bridge_bound_hits._value.get() >= 1
            finally:
                os.kill(java, signal.SIGCONT)
            await until(lambda: acknowledged(bridge, "trades") >= 80_000, limit_s=60)
        await simulator.stop()
        topics = await read_topics(broker.bootstrap)
    ids = [int(record.value["trade_id"]) for record in topics["trades"]]
    assert ids == sorted(ids)
    assert len(ids) == len(set(ids)) == 80_000
    assert not [record for record in topics["feed-status"] if record.value["state"] == "gap"]


async def test_bridge_without_kafka_says_so_in_one_line(free_port):
    env = {**os.environ, "STREAMAPP_KAFKA_BROKERS": f"127.0.0.1:{free_port}", "STREAMAPP_KAFKA_START_TIMEOUT_MS": "500"}
    async with command("bridge", "--feed", "coinbase", env=env) as process:
        async with asyncio.timeout(30):
            assert await process.process.wait() == 1

    settings = Settings(kafka_brokers=env["STREAMAPP_KAFKA_BROKERS"], kafka_request_timeout_ms=1_000)
    bridge = Bridge(settings, {"main": FeedSettings(venue="coinbase")})
    with pytest.raises(BrokerUnavailableError):
        await bridge.start()
