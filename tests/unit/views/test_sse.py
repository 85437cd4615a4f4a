import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientResponse, web

from streamapp.metrics import Metrics
from streamapp.queries.model import Change, FeedInfo, WorkerInfo
from streamapp.settings import Settings
from streamapp.views.application import application, runner_options
from streamapp.views.event_stream import event
from streamapp.views.pumping import Pumped
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
