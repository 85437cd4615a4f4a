import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientResponse, web

from streamapp.clock import ManualClock
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.metrics import Metrics
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.model import Change, FeedInfo, Reading, WorkerInfo
from streamapp.queries.positions import Position, decode
from streamapp.queries.service import QueryService
from streamapp.settings import Settings
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.views.application import application, runner_options
from streamapp.views.event_stream import EventStream, Written, event
from streamapp.views.pumping import Pumped
from streamapp.windows.fold import Fold
from tests.fakes.crashes import Event as RawEvent
from tests.fakes.crashes import batch, definition
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest
from tests.unit.views.conftest import BTC, START, CheckedClient, MakeClient


@dataclass
class Event:
    kind: str
    data: Any
    identity: str | None


class Events:
    """Reads events off a response, as the HTML standard has it."""

    def __init__(self, client: CheckedClient, response: ClientResponse) -> None:
        self.client = client
        self.response = response
        self.comments: list[str] = []

    async def next(self) -> Event:
        kind, data, identity = "message", [], None
        while True:
            line = (await asyncio.wait_for(self.response.content.readline(), 10)).decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if not line.strip():
                if data:
                    return Event(kind, self.checked(kind, json.loads("\n".join(data))), identity)
            elif not name:
                self.comments.append(value)
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                identity = value

    def checked(self, kind: str, data: Any) -> Any:
        """Events carry what reads answer, so they have the same schemas."""
        from jsonschema import Draft202012Validator

        if kind == "refused":
            self.checked("problem", data["problem"])
            return data
        name = {"status": "Status", "problem": "Problem"}.get(kind, "Reading")
        schema = {"$ref": f"#/components/schemas/{name}", "components": self.client.document["components"]}
        Draft202012Validator(schema).validate(data)
        return data

    async def take(self, count: int) -> list[Event]:
        return [await self.next() for _ in range(count)]


@asynccontextmanager
async def listen(client: CheckedClient, path: str, **headers: str) -> AsyncIterator[Events]:
    async with client.client.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield Events(client, response)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is awaited lies inside the server
            await asyncio.sleep(0.005)


async def test_snapshots_come_first_then_each_change(client: CheckedClient, queries: FakeQueries) -> None:
    async with listen(client, "/v1/tables/candles_1m/changes") as events:
        first = await events.take(3)
        assert [one.kind for one in first] == ["snapshot"] * 3
        assert {one.data["key"] for one in first} == {BTC, "coinbase:ETH-USD", "kraken:A/B-USD"}
        queries.put("candles_1m", BTC, candle(321.0), start=START)
        change = await events.next()
        assert (change.kind, change.data["value"]["open"]) == ("change", 321.0)
        assert change.identity
        _, read, _ = await client.get(f"/v1/tables/candles_1m/keys/{BTC}")
        assert change.data == read
        assert events.response.headers["Cache-Control"] == "no-store"


async def test_key_narrows_the_stream(client: CheckedClient, queries: FakeQueries) -> None:
    async with listen(client, f"/v1/tables/latest/changes?key={BTC}") as events:
        assert (await events.next()).data["key"] == BTC
        queries.put("latest", "coinbase:ETH-USD", latest(1.0))
        queries.put("latest", BTC, latest(2.0))
        assert (await events.next()).data["value"]["price"] == 2.0


async def test_reconnect_with_last_event_id_starts_with_what_is_there_now(
    client: CheckedClient, queries: FakeQueries
) -> None:
    async with listen(client, f"/v1/tables/latest/changes?key={BTC}") as events:
        seen = await events.next()
    await until(lambda: queries.subscribers == 0)
    queries.put("latest", BTC, latest(777.0))
    async with listen(
        client, f"/v1/tables/latest/changes?key={BTC}", **{"Last-Event-ID": seen.identity or ""}
    ) as events:
        again = await events.next()
        assert (again.kind, again.data["value"]["price"]) == ("snapshot", 777.0)
    status, body, _ = await client.get("/v1/tables/latest/changes", headers={"Last-Event-ID": "x" * 5_000})
    assert (status, body["code"]) == (400, "bad_parameter")


async def test_quiet_stream_has_heartbeats(make_client: MakeClient) -> None:
    client = await make_client(sse_heartbeat_ms=30)
    async with listen(client, "/v1/tables/signals/changes") as events:
        reading = asyncio.create_task(events.next())
        await until(lambda: len(events.comments) >= 3)
        reading.cancel()
        assert set(events.comments) == {"heartbeat"}


async def test_stream_with_long_intervals_has_heartbeats_and_status_in_between(
    make_client: MakeClient, queries: FakeQueries
) -> None:
    client = await make_client(sse_heartbeat_ms=30)
    async with listen(client, "/v1/tables/latest/changes?interval_ms=60000") as events:
        await events.take(2)
        queries.put("latest", BTC, latest(1.0))
        reading = asyncio.create_task(events.next())
        await until(lambda: len(events.comments) >= 3)
        assert not reading.done(), "changes wait for the interval"
        reading.cancel()
    async with listen(client, "/v1/changes?of=latest&status=true&interval_ms=60000") as events:
        found = await events.take(4)
        assert sorted(one.kind for one in found) == ["snapshot", "snapshot", "status", "status"]


class Endless:
    """A subscription for which more waits than a write takes, however often it is asked."""

    behind, waiting, told = False, True, None

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def take(self, most: int) -> list[Change]:
        return [Change("", "change", self._reading)] * most


class Once(Endless):
    """One that has one thing to tell."""

    def take(self, most: int) -> list[Change]:
        most, self.waiting = min(most, self.waiting), False
        return super().take(most)


def test_busy_subscription_does_not_keep_the_others_of_its_stream_waiting(queries: FakeQueries) -> None:
    busy = [Endless(queries.put("latest", f"busy:{number}", latest(1.0))) for number in range(2)]
    quiet = Once(queries.put("latest", "quiet:1", latest(2.0)))
    stream: Any = SimpleNamespace(_sources=[*busy, quiet], _next=0, _written=Written())
    found = b"".join(EventStream._take(stream) for _ in range(3))
    assert {key: found.count(key) for key in (b'"busy:0"', b'"busy:1"', b'"quiet:1"')} == {
        b'"busy:0"': 32 + 31,
        b'"busy:1"': 32,
        b'"quiet:1"': 1,
    }


async def test_unknown_table_is_a_problem_and_no_stream(client: CheckedClient) -> None:
    for path in ("/v1/tables/none/changes", "/v1/changes?of=latest&of=none"):
        status, body, _ = await client.get(path)
        assert (status, body["code"]) == (404, "unknown_table")


async def test_subscribers_are_capped_and_the_place_is_free_again(
    make_client: MakeClient, queries: FakeQueries, metrics: Metrics
) -> None:
    client = await make_client(sse_subscribers_max=1)
    async with listen(client, "/v1/tables/latest/changes") as events:
        await events.next()
        status, body, headers = await client.get("/v1/tables/latest/changes")
        assert (status, body["code"], headers["Retry-After"]) == (429, "rate_limited", "5")
        assert metrics.registry.get_sample_value("streamapp_subscribers") == 1
    await until(lambda: metrics.registry.get_sample_value("streamapp_subscribers") == 0)
    assert queries.subscribers == 0
    async with listen(client, "/v1/tables/latest/changes") as events:
        await events.next()


async def test_several_tables_and_status_share_one_connection(client: CheckedClient, queries: FakeQueries) -> None:
    queries.feed_infos = [FeedInfo("coinbase", True, "connected", "", 5, 2, {"BTC-USD": 2})]
    queries.worker_info = WorkerInfo(False, ["latest-1"], {"trades": [0]}, {"trades": 7}, 99)
    async with listen(client, f"/v1/changes?of=candles_1m/{BTC}&of=latest&status=true") as events:
        first = await events.take(4)
        assert {(one.kind, one.data.get("table")) for one in first} == {
            ("snapshot", "candles_1m"), ("snapshot", "latest"), ("status", None)
        }  # fmt: skip
        status = next(one.data for one in first if one.kind == "status")
        assert status["worker"]["lag"] == {"trades": 7}
        assert status["feeds"][0]["symbols"] == {"BTC-USD": 2}


async def test_what_lives_elsewhere_is_refused_and_the_rest_goes_on(
    client: CheckedClient, queries: FakeQueries
) -> None:
    queries.unreachable = {queries.partition(BTC)}
    assert (await client.get(f"/v1/tables/latest/changes?key={BTC}"))[0] == 503
    async with listen(client, f"/v1/changes?of=candles_1m/{BTC}&of=signals&status=true") as events:
        refused = await events.next()
        assert (refused.kind, refused.data["of"]) == ("refused", f"candles_1m/{BTC}")
        assert refused.data["problem"]["code"] == "owner_unreachable"
        assert (await events.next()).kind == "status"
    async with listen(client, f"/v1/changes?of=candles_1m/{BTC}&status=true") as events:
        assert [one.kind for one in await events.take(3)] == ["refused", "status", "status"]


async def test_interval_conflates_to_the_newest_value_per_key(
    client: CheckedClient, queries: FakeQueries, metrics: Metrics
) -> None:
    async with listen(client, "/v1/tables/latest/changes?interval_ms=150") as events:
        await events.take(2)
        for number in range(50):
            queries.put("latest", BTC, latest(1000.0 + number))
            await asyncio.sleep(0)
        queries.put("latest", "coinbase:ETH-USD", latest(9.0))
        prices, conflated = [], 0
        while not prices or prices[-1] != 9.0:
            data = (await events.next()).data
            prices.append(data["value"]["price"])
            conflated += data.get("conflated", 0)
    assert prices[-2] == 1049.0
    assert len(prices) < 10
    assert len(prices) + conflated == 51, "what a change stands for is told with it"
    assert metrics.registry.get_sample_value("streamapp_conflated_changes_total") > 0


async def test_late_event_of_an_older_window_replaces_no_change_of_the_newest(
    queries: FakeQueries,
) -> None:
    async def changes() -> AsyncIterator[Change]:
        for number, (start, price) in enumerate([(START, 1.0), (START - MINUTE, 2.0), (START, 3.0), (START, 4.0)]):
            yield Change(str(number), "change", queries.put("candles_1m", BTC, candle(price), start=start))

    pumped = Pumped(changes(), 10, Metrics())
    await until(lambda: pumped._ended)
    waiting = [(change.reading.window, change.reading.value["open"], change.conflated) for change in pumped.take(10)]
    assert [(window.start, price, count) for window, price, count in waiting if window is not None] == [
        (START, 4.0, 2),
        (START - MINUTE, 2.0, 0),
    ]
    assert pumped.last_id == "3"


def test_id_of_several_subscriptions_says_what_all_of_them_have_told() -> None:
    earlier, later = (Position(1, (applied,), applied, (3,), 3) for applied in (5, 9))
    place = (b"mark", 0)

    def identity(*told: dict[tuple[bytes, int], Position]) -> str:
        stream: Any = SimpleNamespace(_sources=[SimpleNamespace(told=one) for one in told])
        return EventStream._position(stream)

    assert decode(identity({place: later}, {place: earlier})) == {place: earlier}
    assert decode(identity({place: earlier}, {place: later})) == {place: earlier}
    assert decode(identity({place: earlier}, {(b"mark", 1): later})) == {place: earlier, (b"mark", 1): later}
    assert identity({place: later}, {}) == "", "one that has told nothing yet has everything to tell"
    assert decode(identity({place: later})) == {place: later}


async def test_failing_subscription_ends_with_its_problem(client: CheckedClient, queries: FakeQueries) -> None:
    async with listen(client, f"/v1/tables/latest/changes?key={BTC}") as events:
        await events.next()
        queries.fail_subscribers()
        problem = await events.next()
        assert (problem.kind, problem.data["code"]) == ("problem", "restoring")
        with pytest.raises(EOFError):
            await events.next()


async def test_reader_that_takes_nothing_is_dropped(queries: FakeQueries) -> None:
    settings = Settings(sse_write_timeout_ms=100)
    metrics = Metrics()
    runner = web.AppRunner(application(queries, settings, metrics=metrics), **runner_options(settings))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1], limit=1)
    try:
        writer.write(b"GET /v1/tables/latest/changes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: queries.subscribers == 1)
        wide = {**latest(1.0), "side": "x" * 100_000}
        async with asyncio.timeout(20):
            while queries.subscribers:
                queries.put("latest", BTC, wide)
                await asyncio.sleep(0.001)
        assert metrics.registry.get_sample_value("streamapp_subscribers") == 0
    finally:
        writer.close()
        await runner.cleanup()
    assert reader is not None


async def test_stopping_the_server_ends_its_streams_at_once(queries: FakeQueries) -> None:
    settings = Settings()
    runner = web.AppRunner(application(queries, settings), **{**runner_options(settings), "shutdown_timeout": 30})
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(b"GET /v1/tables/latest/changes HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: queries.subscribers == 1)
    async with asyncio.timeout(5):
        await runner.cleanup()
    assert queries.subscribers == 0
    writer.close()


def test_event_id_cannot_break_the_framing() -> None:
    assert event("change", b"{}", "a\nevent: x\r\n\0b") == b"event: change\nid: aevent: xb\ndata: {}\n\n"


async def test_prefix_and_condition_narrow_snapshots_and_changes(client: CheckedClient, queries: FakeQueries) -> None:
    async with listen(client, "/v1/tables/latest/changes?prefix=coinbase:B&condition=price%20%3E%20100") as events:
        assert (await events.next()).data["key"] == BTC
        queries.put("latest", "coinbase:ETH-USD", latest(500.0))
        queries.put("latest", BTC, latest(5.0))
        await asyncio.sleep(0.05)
        queries.put("latest", BTC, latest(500.0))
        change = await events.next()
        assert (change.data["key"], change.data["value"]["price"]) == (BTC, 500.0)
    (asked,) = [given for name, given in queries.calls if name == "changes"]
    assert (asked["prefix"], asked["condition"].text) == ("coinbase:B", "price > 100")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("condition=price", "condition"),
        ("condition=nothing%20%3E%205", "condition"),
        ("condition=", "condition"),
        ("condition=price%20%3E%20" + "1" * 300, "condition"),
        ("prefix=a%0Ab", "prefix"),
        ("prefix=" + "x" * 1_100, "prefix"),
        ("prefix=a&key=ab", "prefix"),
        ("suffix=a", "suffix"),
    ],
)
async def test_filter_that_cannot_be_used_is_refused_by_name(client: CheckedClient, query: str, parameter: str) -> None:
    status, body, _ = await client.get(f"/v1/tables/latest/changes?{query}")
    assert (status, body["code"], body["parameter"]) == (400, "bad_parameter", parameter)


async def test_id_that_comes_back_is_handed_on(client: CheckedClient, queries: FakeQueries) -> None:
    async with listen(client, f"/v1/tables/latest/changes?key={BTC}", **{"Last-Event-ID": "whatever"}) as events:
        await events.next()
    assert queries.calls[-1][1]["since"] == "whatever"


class Readings:
    """What a stalled socket does not hinder: a stream that reads, beside."""

    def __init__(self, port: int, path: str, **options: int) -> None:
        self.port, self.path, self.options = port, path, options

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        for name, value in self.options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, self.writer = await asyncio.open_connection(sock=sock, limit=64)
        self.writer.write(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return reader, self.writer

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()


class Cluster:
    """A worker's reads over real state, without Kafka, behind a real socket."""

    def __init__(self, **given: Any) -> None:
        self.settings = Settings(**given)
        self.metrics = Metrics()
        table = definition(None, Fold("", lambda state, record: record.side))
        self.table = RunningTable(table, "app", 1)
        self.state = PartitionState(table, 0, MemoryStore())
        self.table.live[0] = LivePartition(self.table, 0, self.state.store, self.state)
        self.offset = 0
        clock = ManualClock(START)
        engine: Any = SimpleNamespace(
            tables={table.name: self.table},
            cluster_id="cluster",
            standbys={},
            lanes={},
            settings=self.settings,
            metrics=self.metrics,
            clock=clock,
            lease=SimpleNamespace(check=lambda: None),
            on_restored=None,
        )
        health = FeedHealth(self.settings, clock=clock)
        self.service = QueryService(engine, health, dict, lambda topic, partition: None)

    async def __aenter__(self) -> "Cluster":
        app = application(self.service, self.settings, metrics=self.metrics)
        self.runner = web.AppRunner(app, **runner_options(self.settings))
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.path = f"/v1/tables/{self.table.name}/changes"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    def put(self, *pairs: tuple[str, str]) -> None:
        events = [RawEvent(key, 5, side=text) for key, text in pairs]
        self.state.apply(batch(events, first=self.offset))
        self.offset += len(events)

    @property
    def subscribers(self) -> float:
        return self.metrics.registry.get_sample_value("streamapp_subscribers") or 0.0


async def told(reader: asyncio.StreamReader, text: str) -> bytes:
    """All that comes up to a text."""
    found = b""
    async with asyncio.timeout(20):
        while text.encode() not in found:
            part = await reader.read(65_536)
            assert part, found[-300:]
            found += part
    return found


async def test_stalled_reader_holds_up_nobody_and_waits_in_bounded_memory() -> None:
    async with Cluster(sse_write_timeout_ms=60_000, sse_send_buffer_bytes=8 << 10) as cluster:
        cluster.put(("a", "begin"))
        async with (
            Readings(cluster.port, cluster.path, SO_RCVBUF=4_096) as (stalled, _),
            Readings(cluster.port, cluster.path) as (reading, _),
        ):
            await told(reading, "begin")
            await until(lambda: cluster.subscribers == 2)
            stalled._transport.pause_reading()  # type: ignore[attr-defined]
            streams = [task for task in asyncio.all_tasks() if "handle" in repr(task.get_coro())]
            assert len(streams) >= 2
            for number in range(400):
                cluster.put(("a", f"{number}-" + "x" * 2_000))
                await told(reading, f'"{number}-')
            await asyncio.sleep(0.2)
            buffered = [
                connection.transport.get_write_buffer_size()
                for connection in cluster.runner.server.connections  # type: ignore[union-attr]
                if connection.transport is not None
            ]
            assert max(buffered) > 0, "it did stall"
            assert max(buffered) < 100_000, "of 800 kB nearly all was replaced by something newer"
            stalled._transport.resume_reading()  # type: ignore[attr-defined]
            late = await told(stalled, '"399-')
            counts = [int(count) for count in re.findall(rb'"conflated":(\d+)', late)]
            assert late.count(b"event: change") + sum(counts) >= 398, "what was left out is counted"
            assert max(counts) > 100


async def test_heartbeat_tells_how_far_a_quiet_stream_is_and_resuming_there_tells_nothing_again() -> None:
    async with Cluster(sse_heartbeat_ms=50) as cluster:
        cluster.put(("a", "one"), ("b", "two"))
        async with Readings(cluster.port, f"{cluster.path}?key=a") as (quiet, _):
            await told(quiet, "one")
            cluster.put(("b", "three"))
            beats = await told(quiet, ": heartbeat\nid: ")
            beats += await told(quiet, ": heartbeat\nid: ")
        identity = re.findall(rb"id: (\S+)", beats)[-1].decode()
        async with listen_raw(cluster, identity) as reader:
            nothing = await told(reader, ": heartbeat")
            assert b"event:" not in nothing
            cluster.put(("b", "four"))
            change = await told(reader, "four")
            assert b"event: change" in change
            assert b"event: snapshot" not in change


async def test_full_queue_leaves_no_change_out() -> None:
    async with Cluster(sse_queue_max=2, sse_heartbeat_ms=50) as cluster:
        keys = [f"k{number}" for number in range(20)]
        cluster.put(*((key, "old") for key in keys))
        async with Readings(cluster.port, cluster.path) as (reading, _):
            await told(reading, "k19")
            for text in ("first", "second"):
                cluster.put(*((key, text) for key in keys))
                found = b""
                async with asyncio.timeout(20):
                    while len(set(re.findall(rb'"key":"(k\d+)"[^\n]*' + text.encode(), found))) < len(keys):
                        found += await reading.read(65_536)


@asynccontextmanager
async def listen_raw(cluster: Cluster, identity: str) -> AsyncIterator[asyncio.StreamReader]:
    async with Readings(cluster.port, cluster.path + " HTTP/1.1\r\nLast-Event-ID: " + identity + "\r\nX:") as (
        reader,
        _,
    ):
        yield reader
