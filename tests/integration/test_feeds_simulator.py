"""The simulator over a real socket, read through the project's own connection."""

import asyncio
import json

import aiohttp
import pytest

from streamapp.errors import ConfigurationError
from streamapp.feeds.backoff import Backoff, BackoffPolicy
from streamapp.feeds.catalog import protocol_for
from streamapp.feeds.connection import Connected, FeedConnection
from streamapp.feeds.protocol import GapDetected, Rejected, TopicRecord
from streamapp.settings import FeedSettings
from streamapp.simulator.faults import FaultSettings
from streamapp.simulator.server import Simulator, SimulatorSettings, walk_for

START_MS = 1_700_000_000_000


class Collector:
    """A sink that knows which trades have come or are reported missing."""

    def __init__(self, expected):
        self.expected = expected
        self.received = []
        self.covered = set()
        self.rejected = 0
        self.connections = 0
        self.complete = asyncio.Event()

    async def __call__(self, events):
        for event in events:
            if isinstance(event, TopicRecord) and event.topic == "trades":
                value = json.loads(event.value)
                self.received.append(value)
                self.covered.add((event.symbol, int(value["trade_id"])))
            elif isinstance(event, GapDetected):
                self.covered.update((event.symbol, number) for number in range(event.expected, event.got))
            elif isinstance(event, Rejected):
                self.rejected += 1
            elif isinstance(event, Connected):
                self.connections += 1
        if self.expected <= self.covered:
            self.complete.set()


def trades_of(settings):
    return walk_for(settings, START_MS).take(settings.events)


async def collect(settings, **options):
    """Run simulator and connection until every trade is there or reported missing."""
    collector = Collector({(trade.symbol, trade.trade_id) for trade in trades_of(settings)})
    simulator = Simulator(settings)
    await simulator.start()
    feed = FeedSettings(venue="coinbase", url=simulator.url, options=options)
    policy = BackoffPolicy(initial_ms=20, max_delay_ms=50, circuit_failures=10_000)
    connection = FeedConnection(protocol_for(feed), backoff=Backoff(policy))
    running = asyncio.create_task(connection.run(collector))
    try:
        async with asyncio.timeout(60):
            await collector.complete.wait()
    finally:
        await connection.stop()
        await running
        await simulator.stop()
    return collector


async def test_simulator_tells_every_trade_of_its_walk_in_order():
    settings = SimulatorSettings(symbols=4, rate=0, seed=11, events=20_000, start_time_ms=START_MS)

    collector = await collect(settings)

    assert [
        (one["symbol"], one["trade_id"], one["price"], one["size"], one["side"], one["event_time"])
        for one in collector.received
    ] == [
        (one.symbol, str(one.trade_id), one.price, one.size, one.taker, one.event_time) for one in trades_of(settings)
    ]


async def test_simulator_at_a_fixed_rate_keeps_event_times_independent_of_the_machine():
    settings = SimulatorSettings(symbols=2, rate=5_000, seed=11, events=3_000, start_time_ms=START_MS, time_scale=60)

    collector = await collect(settings)

    assert collector.received[0]["event_time"] == START_MS
    assert collector.received[-1]["event_time"] == trades_of(settings)[-1].event_time == START_MS + 35_988


async def test_simulator_that_breaks_connections_leaves_no_trade_unaccounted_for():
    settings = SimulatorSettings(
        symbols=3,
        rate=4_000,
        seed=5,
        events=8_000,
        start_time_ms=START_MS,
        faults=FaultSettings(disconnect_every_s=0.4),
    )

    collector = await collect(settings)

    assert collector.connections > 2
    assert collector.expected == collector.covered


async def test_simulator_that_falls_silent_is_noticed_and_its_trades_accounted_for():
    faults = FaultSettings(silence_every_s=0.4, silence_s=3600)
    settings = SimulatorSettings(symbols=2, rate=2_000, seed=5, events=3_000, start_time_ms=START_MS, faults=faults)

    collector = await collect(settings, heartbeat_timeout_ms=400)

    assert collector.connections > 1
    assert collector.expected == collector.covered


async def test_simulator_with_every_fault_at_once_is_accounted_for_and_never_stops_the_feed():
    faults = FaultSettings(gaps=0.01, duplicates=0.02, reorder=0.02, malformed=0.02, disconnect_every_s=0.7)
    settings = SimulatorSettings(symbols=3, rate=5_000, seed=8, events=10_000, start_time_ms=START_MS, faults=faults)

    collector = await collect(settings)

    assert collector.rejected > 50
    assert collector.expected == collector.covered


async def test_simulator_starts_with_the_first_subscription_and_answers_bad_ones():
    simulator = Simulator(SimulatorSettings(symbols=1, rate=1000, events=50))
    await simulator.start()
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(simulator.url) as socket:
            await socket.send_str('{"type":"subscribe","product_ids":["X-Y"],"channels":["matches"]}')
            assert (await socket.receive_json(timeout=5))["type"] == "error"
            assert simulator.walk is None
            await socket.send_str('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}')
            assert (await socket.receive_json(timeout=5))["type"] == "subscriptions"
            assert (await socket.receive_json(timeout=5))["trade_id"] == 1
            async with asyncio.timeout(10):
                await simulator.finished.wait()
        async with aiohttp.ClientSession() as session, session.ws_connect(simulator.url) as socket:
            await socket.send_str('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}')
            assert (await socket.receive_json(timeout=5))["type"] == "subscriptions"
            last = await socket.receive_json(timeout=5)
            assert (last["type"], last["trade_id"]) == ("last_match", 50)
    finally:
        await simulator.stop()


async def test_simulator_on_a_taken_port_says_so():
    first = Simulator(SimulatorSettings())
    await first.start()
    try:
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{first.port}"):
            await Simulator(SimulatorSettings(port=first.port)).start()
    finally:
        await first.stop()
