"""Actions that a change starts: once per beginning, debounced, bounded, tried again, and told of."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from langchain_core.tools import StructuredTool

from streamapp.client import Activation, OnChange, Outcome, StreamClient, on_change
from streamapp.errors import BadParameterError
from streamapp.tools import EventTriggeredTool
from tests.fakes.queries import FakeQueries, latest
from tests.unit.mcp_server.conftest import BTC, ETH, Serve, clock, metrics, queries, serve

__all__ = ["clock", "metrics", "queries", "serve"]  # fixtures


class Told:
    """Outcomes, as they are published."""

    def __init__(self) -> None:
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

    async def __call__(self, outcome: Outcome) -> None:
        self.outcomes.put_nowait(outcome)

    async def next(self) -> Outcome:
        async with asyncio.timeout(20):
            return await self.outcomes.get()


@contextlib.asynccontextmanager
async def running(
    serve: Serve, condition: str, action: Callable[[Activation], Awaitable[Any]], **options: Any
) -> AsyncIterator[Told]:
    told = Told()
    async with StreamClient(await serve()) as client:
        watch = OnChange(
            client, "latest", condition, action, publish=told, **{"debounce_ms": 1, "pause_s": 0.001, **options}
        )
        task = asyncio.create_task(watch.run())
        yield told
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def price(activation: Activation) -> float:
    return float(activation.value["price"])


async def test_action_runs_once_per_beginning(serve: Serve, queries: FakeQueries) -> None:
    seen: list[tuple[str, float]] = []

    async def seen_and_acted_on(told: Told, key: str, level: float) -> None:
        """Another key's change has been acted on, so those before it have been seen."""
        queries.put("latest", key, latest(level))
        while (key, level) not in seen:
            outcome = await told.next()
            seen.append((outcome.activation.key, outcome.result))

    async with running(serve, "price > 100", price) as told:
        await seen_and_acted_on(told, "x:A", 1_000.0)
        for number in range(3):
            queries.put("latest", BTC, latest(150.0 + number))
            await seen_and_acted_on(told, f"x:B{number}", 1_000.0)
        queries.put("latest", BTC, latest(50.0))
        await seen_and_acted_on(told, ETH, 1_000.0)
        await seen_and_acted_on(told, BTC, 300.0)
    assert [level for key, level in seen if key == BTC] == [101.5, 300.0]


async def test_failure_is_tried_again_with_a_limit(serve: Serve) -> None:
    tries = 0

    async def fails(_activation: Activation) -> None:
        nonlocal tries
        tries += 1
        raise ValueError("no")

    async with running(serve, "price > 100", fails, retries=2) as told:
        outcome = await told.next()
    assert (outcome.error, outcome.attempts, tries) == ("ValueError: no", 3, 3)


async def test_action_has_a_time_out(serve: Serve) -> None:
    async def hangs(_activation: Activation) -> None:
        await asyncio.Event().wait()

    async with running(serve, "price > 100", hangs, retries=0, timeout_s=0.01) as told:
        assert (await told.next()).error == "no result within 0.01 s"


async def test_actions_at_once_are_bounded(serve: Serve, queries: FakeQueries) -> None:
    for number in range(20):
        queries.put("latest", f"x:K{number}", latest(500.0))
    now = most = 0

    async def counts(_activation: Activation) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        async with asyncio.timeout(20):
            while most < 3:  # noqa: ASYNC110 - the first ones wait for each other, so that the bound is reached
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        now -= 1

    async with running(serve, "price > 100", counts, prefix="x:", concurrency=3) as told:
        keys = {(await told.next()).activation.key for _ in range(20)}
    assert keys == {f"x:K{number}" for number in range(20)}
    assert most == 3


async def test_quick_changes_are_one_action_with_the_newest_value(serve: Serve, queries: FakeQueries) -> None:
    async with running(serve, "price > 1000", price, debounce_ms=1_500) as told:
        for number in range(10):
            queries.put("latest", BTC, latest(2_000.0 + number))
            await asyncio.sleep(0.005)
        assert (await told.next()).result == 2_009.0
        assert told.outcomes.empty()


async def test_tool_is_started_by_a_change(serve: Serve) -> None:
    async def noted(table: str, key: str, value: dict[str, Any]) -> str:
        return f"{table} {key} {value['price']}"

    tool = StructuredTool.from_function(coroutine=noted, name="note", description="note it")
    async with running(serve, "price > 100", EventTriggeredTool(tool)) as told:
        assert (await told.next()).result == f"latest {BTC} 101.5"


async def test_condition_is_checked_at_the_start(serve: Serve) -> None:
    async with StreamClient(await serve()) as client:

        @on_change(client, "latest", "nothing > 1")
        async def act(_activation: Activation) -> None: ...

        with pytest.raises(BadParameterError, match="no field"):
            await act.run()
