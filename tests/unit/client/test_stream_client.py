"""The typed client: every operation, errors as classes, retries with a limit, streams that come back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from streamapp.client import StreamClient, UnexpectedAnswerError, WorkerUnreachableError
from streamapp.errors import (
    BadParameterError,
    ConfigurationError,
    QueryError,
    RestoringError,
    StaleError,
    UnknownKeyError,
)
from streamapp.metrics import Metrics
from streamapp.operations.catalogue import OPERATIONS
from streamapp.views.auth import new_token
from tests.fakes.ports import unused_port
from tests.fakes.queries import FakeQueries, latest
from tests.unit.mcp_server.conftest import BTC, ETH, Serve, clock, metrics, queries, serve
from tests.unit.mcp_server.test_mcp_over_http import CALLS

__all__ = ["clock", "metrics", "queries", "serve"]  # fixtures

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def test_every_operation_answers_typed(serve: Serve) -> None:
    async with StreamClient(await serve()) as client:
        for operation in OPERATIONS:
            assert isinstance(await client.call(operation.name, CALLS[operation.name]), operation.answer)
        assert (await client.list_tables()).tables[0].name == "candles_1m"
        assert (await client.describe_table("latest")).kind == "latest"
        assert (await client.get_current("latest", BTC)).items[0].value["price"] == 101.5
        assert len((await client.get_windows("candles_1m", BTC, from_ms=0)).points) == 5
        assert (await client.get_top("latest", "price")).items[0].key == BTC
        assert (await client.find_keys("eth")).keys[0].key == ETH
        assert (await client.compare("candles_1m", [BTC, ETH])).field == "close"
        assert (await client.get_signals()).items[0].key == BTC
        assert (await client.get_feed_health("kraken")).feeds[0].connected is False
        assert (await client.summarize_state(budget_tokens=200)).tokens <= 200
        assert (await client.wait_for("latest", BTC, "price > 1")).held is True
        assert await client.keys("latest", limit=1) == ([BTC], (await client.keys("latest", limit=1))[1])


async def test_refusal_is_the_same_class_as_there(serve: Serve) -> None:
    async with StreamClient(await serve()) as client:
        with pytest.raises(UnknownKeyError) as unknown:
            await client.get_current("latest", "coinbase:BTC-US")
        assert unknown.value.nearest[0] == BTC
        with pytest.raises(StaleError) as stale:
            await client.get_current("latest", BTC, max_staleness_ms=1)
        assert stale.value.staleness_ms == 12
        with pytest.raises(BadParameterError) as bad:
            await client.call("get_top", {"table": "latest"})
        assert bad.value.parameter == "by"
        with pytest.raises(BadParameterError):
            await client.call("nothing", {})


async def test_token_is_sent_and_counted(serve: Serve, metrics: Metrics) -> None:
    token, entry = new_token("bot", ["read"])
    async with StreamClient(await serve(api_tokens=entry), token=token) as client:
        await client.list_tables()
    assert metrics.operation_calls.labels(operation="list_tables", caller="bot", outcome="ok")._value.get() == 1


@pytest.fixture
async def stub() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """A server with one handler for everything."""
    runners: list[web.AppRunner] = []

    async def make(handler: Handler) -> str:
        application = web.Application()
        application.router.add_route("*", "/{any:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield make
    for runner in runners:
        await runner.cleanup()


RESTORING = {"code": "restoring", "detail": "wait", "status": 503}
TABLES = {"tables": [], "freshness": {"as_of": 1}}


async def test_failure_that_may_pass_is_tried_again(stub: Callable[[Handler], Awaitable[str]]) -> None:
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(RESTORING, status=503) if asked < 3 else web.json_response(TABLES)

    async with StreamClient(await stub(handler), pause_s=0.001) as client:
        assert (await client.list_tables()).freshness.as_of == 1
    assert asked == 3


async def test_retries_have_a_limit(stub: Callable[[Handler], Awaitable[str]]) -> None:
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(RESTORING, status=503)

    async with StreamClient(await stub(handler), retries=2, pause_s=0.001) as client:
        with pytest.raises(RestoringError):
            await client.list_tables()
    assert asked == 3


async def test_refusal_for_good_is_not_tried_again(stub: Callable[[Handler], Awaitable[str]]) -> None:
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"code": "unknown_table", "detail": "no", "status": 404}, status=404)

    async with StreamClient(await stub(handler), pause_s=0.001) as client:
        with pytest.raises(Exception, match="no"):
            await client.list_tables()
    assert asked == 1


async def test_silent_server_is_given_up(stub: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with StreamClient(await stub(handler), timeout_s=0.05, retries=0) as client:
        with pytest.raises(WorkerUnreachableError):
            await client.list_tables()


async def test_other_server_is_no_worker(stub: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="<html>", status=404)

    async with StreamClient(await stub(handler), retries=0) as client:
        with pytest.raises(WorkerUnreachableError, match="is it a streamapp worker"):
            await client.list_tables()
    async with StreamClient(f"http://127.0.0.1:{unused_port()}", retries=0) as client:
        with pytest.raises(WorkerUnreachableError, match="no worker answers"):
            await client.list_tables()
    with pytest.raises(ConfigurationError):
        StreamClient("127.0.0.1:6066")


async def test_changes_come_back_after_a_lost_stream(stub: Callable[[Handler], Awaitable[str]]) -> None:
    asked: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = len(asked)
        kind = "snapshot" if number == 1 else "change"
        await response.write(f': hi\n\nretry: 1\n\nevent: {kind}\nid: {number}-0\ndata: {{"n": {number}}}\n\n'.encode())
        return response

    async with StreamClient(await stub(handler)) as client:
        changes = client.changes("latest", "x:Y Z")
        found = [await anext(changes), await anext(changes)]
        await changes.aclose()
    assert [(event.kind, event.data["n"], event.id) for event in found] == [
        ("snapshot", 1, "1-0"),
        ("change", 2, "2-0"),
    ]
    assert asked == [None, "1-0"]


async def test_changes_are_filtered_by_the_worker(serve: Serve, queries: FakeQueries) -> None:
    async with StreamClient(await serve()) as client:
        changes = client.changes("latest", prefix="coinbase:B", condition="price > 500")
        first = asyncio.create_task(anext(changes))
        async with asyncio.timeout(20):
            while not queries.subscribers:  # noqa: ASYNC110 - what is awaited lies inside the server
                await asyncio.sleep(0.01)
        for key, price in (("coinbase:ETH-USD", 900.0), (BTC, 7.0), (BTC, 600.0)):
            queries.put("latest", key, latest(price))
            await asyncio.sleep(0.05)
        event = await asyncio.wait_for(first, 20)
        assert (event.data["key"], event.data["value"]["price"]) == (BTC, 600.0)
        await changes.aclose()
        with pytest.raises(BadParameterError):
            await anext(client.changes("latest", condition="nothing > 5"))


async def test_lost_stream_goes_on_from_a_heartbeat_that_came_after_the_last_event(
    stub: Callable[[Handler], Awaitable[str]],
) -> None:
    asked: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        events = 'event: change\ndata: {"n": 1}\n\nevent: change\nid: a\ndata: {"n": 2}\n\n: heartbeat\nid: b\n\n'
        await response.write(events.encode())
        return response

    async with StreamClient(await stub(handler)) as client:
        changes = client.changes("latest")
        found = [(await anext(changes)).data["n"] for _ in range(3)]
        await changes.aclose()
    assert found == [1, 2, 1]
    assert asked == [None, "b"]


async def test_changes_of_a_worker_begin_with_what_is_there(serve: Serve, queries: FakeQueries) -> None:
    async with StreamClient(await serve()) as client:
        changes = client.changes("latest", BTC)
        event = await anext(changes)
        assert (event.kind, event.data["value"]["price"]) == ("snapshot", 101.5)
        queries.put("latest", BTC, latest(7.0))
        event = await anext(changes)
        assert (event.kind, event.data["value"]["price"]) == ("change", 7.0)
        await changes.aclose()
        with pytest.raises(Exception, match="no table"):
            await anext(client.changes("nothing"))


async def test_wait_is_repeated_only_until_its_deadline(stub: Callable[[Handler], Awaitable[str]]) -> None:
    left: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        left.append((await request.json())["timeout_ms"])
        await asyncio.sleep(0.05)
        return web.json_response(RESTORING, status=503)

    async with StreamClient(await stub(handler), retries=1_000, pause_s=0.02) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(RestoringError):
            await client.wait_for("latest", BTC, "price > 1", timeout_ms=400)
        assert asyncio.get_running_loop().time() - began < 5
    assert left[0] == 400
    assert 1 < len(left) < 9
    assert left == sorted(left, reverse=True), "a repeated wait has what is left of its time"
    assert left[1] < 360


async def test_problem_without_a_class_here_keeps_its_code_and_status(
    stub: Callable[[Handler], Awaitable[str]],
) -> None:
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"code": "brand_new", "detail": "why", "status": 418}, status=418)

    async with StreamClient(await stub(handler), pause_s=0.001) as client:
        with pytest.raises(QueryError, match="why") as found:
            await client.list_tables()
    assert (found.value.code, found.value.status, asked) == ("brand_new", 418, 1)
    assert (QueryError.code, QueryError.status) == ("internal", 500)


async def test_failed_worker_is_not_taken_for_an_unreachable_one(stub: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"code": "internal", "detail": "failed", "status": 500}, status=500)

    async with StreamClient(await stub(handler), retries=0) as client:
        with pytest.raises(QueryError) as found:
            await client.list_tables()
    assert (found.value.code, found.value.status) == ("internal", 500)


async def test_answer_of_another_version_is_told_as_such(stub: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"tables": [], "freshness": {"as_of": 1, "added_later": 2}})

    async with StreamClient(await stub(handler), retries=0) as client:
        with pytest.raises(UnexpectedAnswerError, match="versions differ"):
            await client.list_tables()
        with pytest.raises(UnexpectedAnswerError, match="versions differ"):
            await client.keys("latest")


async def test_stream_that_is_silent_between_heartbeats_stays(stub: Callable[[Handler], Awaitable[str]]) -> None:
    opened = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal opened
        opened += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await asyncio.sleep(0.2)
            await response.write(f'event: change\nid: x\ndata: {{"n": {number}}}\n\n'.encode())
        return response

    async with StreamClient(await stub(handler), timeout_s=0.1) as client:
        changes = client.changes("latest")
        assert [(await anext(changes)).data["n"] for _ in range(3)] == [0, 1, 2]
        await changes.aclose()
    assert opened == 1


@pytest.mark.parametrize(("code", "status", "ends"), [("forbidden", 403, True), ("restoring", 503, False)])
async def test_problem_in_a_stream_ends_it_unless_it_may_pass(
    stub: Callable[[Handler], Awaitable[str]], code: str, status: int, ends: bool
) -> None:
    opened = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal opened
        opened += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if opened == 1:
            problem = {"code": code, "detail": "no more", "status": status}
            await response.write(f"event: problem\ndata: {json.dumps(problem)}\n\n".encode())
        else:
            await response.write(b'event: change\nid: x\ndata: {"n": 2}\n\n')
        return response

    async with StreamClient(await stub(handler)) as client:
        changes = client.changes("latest")
        if ends:
            with pytest.raises(QueryError, match="no more"):
                await anext(changes)
        else:
            assert (await anext(changes)).data == {"n": 2}
        await changes.aclose()


@pytest.mark.parametrize("token", ["two lines\nof it", "with\ttab", "tök", "a b", "end\n"])
def test_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    with pytest.raises(ConfigurationError, match="a token has no spaces") as refused:
        StreamClient(token=token)
    assert token not in str(refused.value)


@pytest.mark.parametrize("bound", [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"retries": -1}, {"pause_s": -1}])
def test_bound_that_would_bound_nothing_is_refused(bound: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="timeout_s above 0"):
        StreamClient(**bound)


async def test_streams_and_waits_hold_up_no_read(stub: Callable[[Handler], Awaitable[str]]) -> None:
    begun = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal begun
        if request.path.endswith("list_tables"):
            return web.json_response({"tables": [], "freshness": {"as_of": 1}})
        begun += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'event: snapshot\nid: 1\ndata: {"key": "a"}\n\n')
        await asyncio.Event().wait()
        return response

    async with StreamClient(await stub(handler), retries=0) as client, asyncio.timeout(30):
        streams = [client.changes("latest", f"k{number}") for number in range(130)]
        for stream in streams:
            assert (await anext(stream)).kind == "snapshot"
        assert begun == len(streams)
        assert (await client.list_tables()).tables == []
        for stream in streams:
            await stream.aclose()
