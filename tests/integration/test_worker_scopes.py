"""Two workers share a table, and a token opens the keys of one prefix: either worker gives these and nothing of others.

What a worker does not own it reads at the other one by a proof that opens everything, so what the holder of a narrow token
sees is decided by the worker that was asked.
"""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.queries.trace import ON_BEHALF_HEADER
from streamapp.settings import Settings
from streamapp.views.auth import new_token
from tests.fakes.agent_app import MODULE
from tests.fakes.asking import Event, Told, ask, following
from tests.fakes.ports import HOST
from tests.fakes.processes import Topics, Worker, started
from tests.fakes.user_apps import MINUTE, START, UserApp, trade

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

COUNT = 10
#: by turns, so that pages and rankings of all keys have both kinds in them
MINE = [f"x:A{number:02}" for number in range(COUNT)]
OTHERS = [f"x:B{number:02}" for number in range(COUNT)]
MINUTES = 3
FORWARDED = "streamapp_forwarded_reads_total"
SERVED = "streamapp_forwarded_served_total"
RUN_S = 120.0


@dataclass(frozen=True)
class Pair:
    """Both workers, a token that opens everything, and one that opens the keys of `MINE` in the candles."""

    app: UserApp
    first: Worker
    second: Worker
    full: str
    narrow: str

    @property
    def workers(self) -> tuple[Worker, Worker]:
        return self.first, self.second

    def ask(self, worker: Worker, path: str, **options: Any) -> Told:
        """With the narrow token, unless another one is given."""
        return ask(worker.port, path, **{"token": self.narrow, **options})

    def owner(self, key: str) -> Worker:
        """Whose the key is."""
        partition = self.first.get(point(key))["freshness"]["partition"]
        (owner,) = [worker for worker in self.workers if partition in worker.assigned(self.app.trades)]
        return owner

    def hops(self) -> float:
        """Reads that one of them has made at the other."""
        return sum(worker.metric(FORWARDED) for worker in self.workers)


def point(key: str, table: str = "candles") -> str:
    return f"/v1/tables/{table}/keys/{key}"


def close_of(key: str, minute: int = MINUTES - 1) -> float:
    """What a key closes at; the others' are above all of ours, so that any ranking would show them."""
    return (1_000.0 if key in OTHERS else 1.0) + 10.0 * int(key[-2:]) + minute


@pytest.fixture(scope="module")
def pair(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    app = UserApp(Topics(kafka), tmp_path_factory.mktemp("scopes"), MODULE)
    full, full_entry = new_token("full", ["admin"])
    narrow, narrow_entry = new_token("narrow", ["read/candles/x:A"])
    env = {
        "STREAMAPP_API_TOKENS": f"{full_entry},{narrow_entry}",
        # the last test kills one, which stays the owner while it is asked for
        "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "30000",
    }
    first, second = app.worker("first", env), app.worker("second", env)
    for worker in (first, second):
        worker.headers["Authorization"] = f"Bearer {full}"
    with started(first, second):
        for worker in (first, second):
            worker.until_ready()
        app.until_shared(first, second)
        app.send(
            *(
                trade(key[2:], START + minute * MINUTE, price=close_of(key, minute))
                for minute in range(MINUTES)
                for both in zip(MINE, OTHERS, strict=True)
                for key in both
            )
        )
        app.drained(first)
        yield Pair(app, first, second, full, narrow)


def refused(told: Told) -> None:
    """The same for whatever may not be read: nothing says whether it is there, or where."""
    assert (told.status, told.document["code"]) == (403, "forbidden"), told
    assert 'error="insufficient_scope"' in told.challenge
    assert set(told.document) == {"type", "title", "status", "detail", "code"}


def test_point_reads_open_the_prefix_alone_whoever_owns_the_key(pair: Pair) -> None:
    owners = {key: pair.owner(key) for key in (*MINE, *OTHERS)}
    for group in (MINE, OTHERS):
        assert {owners[key] for key in group} == set(pair.workers), "each has some of both kinds"
    for worker, other in (pair.workers, pair.workers[::-1]):
        before, served = worker.metric(FORWARDED), other.metric(SERVED, caller="narrow")
        for key in MINE:
            told = pair.ask(worker, point(key))
            assert (told.status, told.document["value"]["close"]) == (200, close_of(key)), told
        hops = sum(owners[key] is other for key in MINE)
        assert worker.metric(FORWARDED) - before == hops
        assert other.metric(SERVED, caller="narrow") - served == hops, "in whose name is told along"
    before_all = pair.hops()
    for worker in pair.workers:
        for key in (*OTHERS, "x:B99", "x:NONE", "x:", "x", "y:A00", "X:A00"):
            for path in (point(key), f"{point(key)}?at={START}", f"{point(key)}/windows"):
                refused(pair.ask(worker, path))
        for key in (MINE[0], OTHERS[0]):
            refused(pair.ask(worker, point(key, "signals")))
            refused(pair.ask(worker, point(key, "nothing")))
    assert pair.hops() == before_all, "what is refused is asked of nobody"


def test_what_a_client_says_about_itself_opens_nothing(pair: Pair) -> None:
    forged = [
        {HOP_HEADER: ""},
        {HOP_HEADER: pair.narrow},
        {HOP_HEADER: hop_token(Settings())},
        {ON_BEHALF_HEADER: "full"},
        {HOP_HEADER: "1", ON_BEHALF_HEADER: "full"},
    ]
    for worker in pair.workers:
        for headers in forged:
            for key in OTHERS[:4]:
                refused(pair.ask(worker, point(key), headers=headers))
                assert pair.ask(worker, point(key), headers=headers, token=None).status == 401
            # whoever says that the read was forwarded once gets it from here or not at all
            assert pair.ask(worker, point(MINE[0]), headers=headers).status in (200, 503)
        assert pair.ask(worker, "/metrics").status == 403


def test_nearest_keys_are_those_of_the_prefix(pair: Pair) -> None:
    for worker in pair.workers:
        for number in range(COUNT, COUNT + 8):  # of all partitions
            told = pair.ask(worker, point(f"x:A{number}"))
            assert (told.status, told.document["code"]) == (404, "unknown_key")
            assert set(told.document["nearest"]) <= set(MINE)


def test_ranges_and_lists_and_rankings_are_of_the_prefix_alone(pair: Pair) -> None:
    for worker in pair.workers:
        for key in MINE:
            windows = pair.ask(worker, f"{point(key)}/windows").document["items"]
            assert [item["value"]["close"] for item in windows] == [close_of(key, minute) for minute in range(MINUTES)]
        found, cursor = [], ""
        while True:
            page = pair.ask(worker, f"/v1/tables/candles/keys?limit=5{cursor}").document
            assert page["missing_partitions"] == []
            found += page["items"]
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        assert found == MINE
        assert pair.ask(worker, "/v1/tables/candles/keys?prefix=x").document["items"] == MINE
        assert pair.ask(worker, "/v1/tables/candles/keys?prefix=x:B").document["items"] == []
        for order, ranked in (("desc", MINE[::-1]), ("asc", MINE)):
            top = pair.ask(worker, f"/v1/tables/candles/top?by=close&limit=100&order={order}").document
            assert [item["key"] for item in top["items"]] == ranked
            assert [item["value"]["close"] for item in top["items"]] == [close_of(key) for key in ranked]
        assert pair.ask(worker, "/v1/tables/candles/top?by=close&prefixes=x:B").document["items"] == []
        both = [key for keys in zip(MINE, OTHERS, strict=True) for key in keys]
        several = pair.ask(worker, f"/v1/tables/candles/values?keys={','.join(both)}").document["items"]
        assert [item.get("error", {}).get("code") for item in several] == [None, "forbidden"] * COUNT
        refused(pair.ask(worker, "/v1/tables/signals/top?by=score"))
        (table,) = pair.ask(worker, "/v1/tables").document["tables"]
        assert (table["name"], table["keys"]) == ("candles", None)
        for path in ("/v1/status", "/v1/context?budget_tokens=2000&style=json", "/v1/tables/candles"):
            told = pair.ask(worker, path)
            assert told.status == 200, told
            assert "x:B" not in str(told.document), path


def until_all(events: Iterator[Event], price: float) -> list[Event]:
    """The events until each of our keys has closed at a price."""
    found, left = [], set(MINE)
    while left:
        found.append(next(events))
        if found[-1].data["value"]["close"] == price:
            left.discard(found[-1].data["key"])
    return found


def send_all(pair: Pair, price: float) -> None:
    """Change every key, the others first."""
    pair.app.send(*(trade(key[2:], START + MINUTES * MINUTE, price=price) for key in (*OTHERS, *MINE)))


def test_streams_tell_of_the_prefix_alone_also_when_resumed_from_another_tokens_position(pair: Pair) -> None:
    price = 5_000.0
    for worker in pair.workers:
        refused(pair.ask(worker, f"/v1/tables/candles/changes?key={OTHERS[0]}"))
        refused(pair.ask(worker, f"/v1/changes?of=candles/{MINE[0]}&of=candles/{OTHERS[0]}"))
        for path in ("/v1/tables/candles/changes", "/v1/tables/candles/changes?prefix=x", "/v1/changes?of=candles"):
            price += 1
            with following(worker.port, path, pair.full) as events:
                seen = [next(events) for _ in range(2 * COUNT)]
                assert {event.data["key"] for event in seen} == {*MINE, *OTHERS}
                send_all(pair, price)
                position = until_all(events, price)[-1].id
            with following(worker.port, path, pair.narrow) as events:
                snapshots = [next(events) for _ in range(COUNT)]
                assert {(event.kind, event.data["key"]) for event in snapshots} == {("snapshot", key) for key in MINE}
                price += 1
                send_all(pair, price)
                assert {event.data["key"] for event in until_all(events, price)} == set(MINE)
            with following(worker.port, path, pair.narrow, since=position) as events:
                assert {event.data["key"] for event in until_all(events, price)} == set(MINE)
                price += 1
                send_all(pair, price)
                assert {event.data["key"] for event in until_all(events, price)} == set(MINE)


def text_of(result: types.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


@asynccontextmanager
async def client_of(worker: Worker, token: str, mode: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=RUN_S) as http_client,
        Client(
            streamable_http_client(f"http://{HOST}:{worker.port}/mcp", http_client=http_client), mode=mode
        ) as client,
    ):
        yield client


async def tools_keep_to_the_prefix(client: Client) -> None:
    async def call(tool: str, **given: Any) -> Any:
        result = await client.call_tool(tool, given)
        assert not result.is_error, (tool, text_of(result))
        assert "x:B" not in text_of(result)
        return result.structured_content

    items = (await call("get_current", table="candles", keys=MINE))["items"]
    assert [item["key"] for item in items] == MINE
    for key in MINE[:6]:
        points = (await call("get_windows", table="candles", key=key, max_points=2))["points"]
        assert len(points) == 2
        assert (await call("wait_for", table="candles", key=key, condition="close > -1"))["held"] is True
    top = (await call("get_top", table="candles", by="close", limit=COUNT))["items"]
    assert {item["key"] for item in top} == set(MINE)
    for query in ("x", "B", "a"):
        keys = {found["key"] for found in (await call("find_keys", query=query))["keys"]}
        assert keys <= set(MINE), query
    assert [table["name"] for table in (await call("list_tables"))["tables"]] == ["candles"]
    await call("summarize_state", budget_tokens=2_000)
    for key in OTHERS[:6]:
        for tool, given in (
            ("get_current", {"table": "candles", "keys": [key]}),
            ("get_windows", {"table": "candles", "key": key}),
            ("compare", {"table": "candles", "keys": [key, OTHERS[-1]]}),
            ("wait_for", {"table": "candles", "key": key, "condition": "close > 0", "timeout_ms": 0}),
            ("summarize_state", {"keys": [key]}),
        ):
            result = await client.call_tool(tool, given)
            assert result.is_error, (tool, key)
            assert "error forbidden" in text_of(result), (tool, key)
        with pytest.raises(MCPError, match="forbidden"):
            await client.read_resource(f"table://candles/{key}")
    assert (await client.call_tool("get_signals", {"keys": [MINE[0]]})).is_error
    listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
    assert listed == {f"table://candles/{key}" for key in MINE}


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_tools_and_resources_keep_to_the_prefix_on_both(pair: Pair, mode: str) -> None:
    async def use() -> None:
        for worker in pair.workers:
            async with asyncio.timeout(RUN_S), client_of(worker, pair.narrow, mode) as client:
                await tools_keep_to_the_prefix(client)

    asyncio.run(use())


def test_forbidden_keys_of_a_dead_worker_are_refused_as_ever(pair: Pair) -> None:
    """The last one: afterwards there is one worker less."""
    first, second = pair.workers
    owned = {key: pair.owner(key) for key in (*MINE, *OTHERS)}
    lost = second.assigned(pair.app.trades)
    second.kill()
    for key, owner in owned.items():
        told = pair.ask(first, point(key))
        if key in OTHERS:
            refused(told)
        elif owner is second:
            assert (told.status, told.document["code"]) == (503, "owner_unreachable"), told
        else:
            assert told.status == 200, told
    page = pair.ask(first, "/v1/tables/candles/keys").document
    assert page["missing_partitions"] == lost
    assert page["items"] == [key for key in MINE if owned[key] is first]
    several = pair.ask(first, f"/v1/tables/candles/values?keys={','.join(OTHERS)}").document["items"]
    assert {item["error"]["code"] for item in several} == {"forbidden"}
