"""`wait_for`: ends when the condition holds, says so when it does not, and takes part in no queue without a bound."""

import asyncio
import re
from datetime import date
from decimal import Decimal

import msgspec
import pytest

from streamapp.clock import ManualClock
from streamapp.errors import BadParameterError, LeaseExpiredError, RateLimitedError, StaleError, UnknownKeyError
from streamapp.operations.answers import Waited
from streamapp.operations.conditions import parse
from streamapp.queries.access import Caller, parse_access
from streamapp.queries.limits import Limits, Rates
from streamapp.queries.model import FieldInfo
from streamapp.queries.trace import Trace
from streamapp.views.serialise import dumps
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest
from tests.unit.operations.conftest import BTC, ETH, START, Asked, asked


async def test_condition_that_holds_is_answered_at_once(ask: Asked) -> None:
    answer = await ask("wait_for", table="latest", key=BTC, condition="price > 100 and side = buy", timeout_ms=0)
    assert answer["held"] is True
    assert answer["item"]["value"]["price"] == 101.5


async def test_change_that_fulfils_it_ends_the_wait(queries: FakeQueries, ask: Asked) -> None:
    waiting = asyncio.create_task(ask("wait_for", table="latest", key=BTC, condition="price >= 200"))
    price = 101.0
    async with asyncio.timeout(20):
        while not waiting.done():
            price += 10
            queries.put("latest", BTC, latest(price))
            await asyncio.sleep(0.001)
    answer = await waiting
    assert answer["held"] is True
    assert answer["item"]["value"]["price"] >= 200


async def test_late_event_of_an_older_window_does_not_end_it(queries: FakeQueries, ask: Asked) -> None:
    given = {"table": "candles_1m", "key": BTC, "condition": "close > 900", "timeout_ms": 60_000}
    waiting = asyncio.create_task(ask("wait_for", **given))
    for _ in range(20):
        queries.put("candles_1m", BTC, candle(1_000.0), start=START - MINUTE)
        await asyncio.sleep(0.001)
    assert not waiting.done()
    queries.put("candles_1m", BTC, candle(1_000.0), start=START + MINUTE)
    async with asyncio.timeout(20):
        assert (await waiting)["item"]["window"]["start"] == START + MINUTE


async def test_deadline_answers_that_it_did_not_hold(ask: Asked) -> None:
    answer = await ask("wait_for", table="latest", key=BTC, condition="price > 1e9", timeout_ms=10)
    assert answer["held"] is False
    assert answer["item"]["key"] == BTC


async def test_window_that_is_still_being_built_is_not_judged(
    queries: FakeQueries, ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest value of overlapping windows is the one that ended last, and changes tell of the others, too."""
    queries.put("stats_5m", BTC, {"count": 300, "mean": 100.0, "stddev": 1.0}, start=START, final=True)
    complete = queries._data["stats_5m"][BTC][0]
    entries = queries._entries
    monkeypatch.setattr(queries, "_entries", lambda *_: [complete])
    given = {"table": "stats_5m", "key": BTC, "condition": "count < 10", "timeout_ms": 60_000}
    waiting = asyncio.create_task(ask("wait_for", **given))
    for count in range(20):
        queries.put("stats_5m", BTC, {"count": count, "mean": 100.0, "stddev": None}, start=START + 30_000)
        await asyncio.sleep(0.001)
    assert not waiting.done()
    queries.put("stats_5m", BTC, {"count": 5, "mean": 100.0, "stddev": None}, start=START + 30_000)
    await asyncio.sleep(0.01)
    monkeypatch.setattr(queries, "_entries", entries)  # it ends, and nothing tells of that
    async with asyncio.timeout(20):
        assert (await waiting)["item"]["value"]["count"] == 5


async def test_lease_that_expired_for_a_moment_does_not_end_the_wait(
    queries: FakeQueries, ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, failed, again = queries.changes, asyncio.Event(), asyncio.Event()

    def failing(*given: str) -> object:
        if not failed.is_set():
            failed.set()
            raise LeaseExpiredError("for a moment nobody knows")
        again.set()
        return changes(*given)

    monkeypatch.setattr(queries, "changes", failing)
    waiting = asyncio.create_task(ask("wait_for", table="latest", key=BTC, condition="price >= 200"))
    async with asyncio.timeout(20):
        await again.wait()
        queries.put("latest", BTC, latest(200.0))
        assert (await waiting)["held"] is True


async def test_error_at_the_deadline_does_not_hide_that_it_did_not_hold(queries: FakeQueries, ask: Asked) -> None:
    given = {"table": "latest", "key": BTC, "condition": "price > 1e9", "timeout_ms": 200}
    waiting = asyncio.create_task(ask("wait_for", **given))
    await asyncio.sleep(0.05)
    queries.restoring = {0, 1, 2, 3}
    queries.put("latest", BTC, latest(5.0))
    answer = await waiting
    assert answer["held"] is False
    assert answer["item"]["value"]["price"] == 101.5


@pytest.mark.parametrize("max_staleness_ms", [None, 40_000])
async def test_value_that_could_not_be_read_again_has_become_older(
    queries: FakeQueries, ask: Asked, clock: ManualClock, max_staleness_ms: int | None
) -> None:
    given = {"table": "latest", "key": BTC, "condition": "price > 1e9", "timeout_ms": 200}
    waiting = asyncio.create_task(ask("wait_for", **given, max_staleness_ms=max_staleness_ms))
    await asyncio.sleep(0.05)
    queries.restoring = {0, 1, 2, 3}
    clock.advance(50_000)
    if max_staleness_ms is not None:
        with pytest.raises(StaleError):
            await waiting
        return
    answer = await waiting
    assert answer["freshness"]["as_of"] == START + 71_234
    assert answer["freshness"]["staleness_ms"] == answer["item"]["freshness"]["staleness_ms"] == 50_012
    assert answer["item"]["freshness"]["age_ms"] == 50_000


async def test_error_that_does_not_pass_ends_the_wait(
    queries: FakeQueries, ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: str) -> object:
        raise RateLimitedError("too many follow already")

    monkeypatch.setattr(queries, "changes", refusing)
    with pytest.raises(RateLimitedError, match="too many follow"):
        await ask("wait_for", table="latest", key=BTC, condition="price > 1e9")


async def test_view_that_is_too_old_already_is_not_waited_for(queries: FakeQueries, ask: Asked) -> None:
    queries.staleness_ms = 60_000
    async with asyncio.timeout(20):
        with pytest.raises(StaleError):
            await ask("wait_for", table="latest", key=BTC, condition="price > 1e9", max_staleness_ms=1_000)


async def test_server_bounds_the_deadline(queries: FakeQueries) -> None:
    answer = await asked(queries, wait_max_ms=5)("wait_for", table="latest", key=BTC, condition="price > 1e9")
    assert answer["deadline_ms"] == 5


async def test_waits_at_once_are_bounded(queries: FakeQueries) -> None:
    ask = asked(queries, waits_max=1)
    given = {"table": "latest", "key": BTC, "condition": "price > 1e9"}
    waiting = asyncio.create_task(ask("wait_for", **given))
    await asyncio.sleep(0)
    with pytest.raises(RateLimitedError):
        await ask("wait_for", **given)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await ask("wait_for", **given, timeout_ms=0))["held"] is False, "a wait that was given up makes room"


@pytest.mark.parametrize(
    "condition",
    [
        "price",
        "price >",
        "price > abc",
        "nothing > 1",
        "price > 1 or size > 1",
        "price > 1; drop",
        "side > 3 and",
        "__x__ > 1",
        "price > 1e999",
        "price > 70_000",
        "price > 1and size > 1",
        "side = 'a' 'b'",
        "price = NaN",
        "price != '101.5'",
        "price == TRUE",
        "side = 5",
        "side = true",
    ],
)
async def test_condition_that_cannot_be_read_is_refused(ask: Asked, condition: str) -> None:
    with pytest.raises(BadParameterError) as bad:
        await ask("wait_for", table="latest", key=BTC, condition=condition)
    assert bad.value.parameter == "condition"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("price = 101.5", True),
        ("price == 1.015e2", True),
        ("price != 101.5", False),
        ("side = 'buy' && price <= 101.5", True),
        ("side != buy", False),
        ("side != 'buy and sell' and price > 1", True),
        ("side = 'x && y'", False),
        ("side != trueish", True),
        ("price>1&&side=buy", True),
        ("price < -1", False),
        ("bid >= 101 AND ask <= 102", True),
        ("price = null", False),
        ("price != None", True),
        ("side = 'None'", False),
    ],
)
async def test_condition_means_what_it_says(ask: Asked, condition: str, holds: bool) -> None:
    assert (await ask("wait_for", table="latest", key=BTC, condition=condition, timeout_ms=0))["held"] is holds


async def test_example_of_a_condition_compares_a_number(ask: Asked, queries: FakeQueries) -> None:
    queries.put("signals", BTC, {"kind": "price_move", "z": 9.0, "window_start": START})
    with pytest.raises(BadParameterError, match="`z > 70000`"):
        await ask("wait_for", table="signals", key=BTC, condition="nonsense")


@pytest.mark.parametrize(
    ("types", "example"),
    [(("string", "any"), "`f1 > 70000`"), (("any", "number"), "`f1 > 70000`"), (("string",), "`f0 = word`")],
)
def test_example_of_a_condition_names_a_field_that_there_is(types: tuple[str, ...], example: str) -> None:
    with pytest.raises(BadParameterError, match=re.escape(example)):
        parse("nonsense", [FieldInfo(f"f{number}", kind) for number, kind in enumerate(types)])


async def test_null_is_in_no_order(queries: FakeQueries, ask: Asked) -> None:
    queries.put("latest", ETH, {**latest(1.0), "price": None})
    for condition, holds in (("price < 5", False), ("price > 5", False), ("price = null", True)):
        assert (await ask("wait_for", table="latest", key=ETH, condition=condition, timeout_ms=0))["held"] is holds


async def test_unknown_key_is_refused_at_once(ask: Asked) -> None:
    with pytest.raises(UnknownKeyError):
        await ask("wait_for", table="latest", key="coinbase:NO-USD", condition="price > 1")


@pytest.mark.parametrize(
    ("value", "condition", "holds"),
    [
        (float("inf"), "value > 5", False),
        (float("-inf"), "value < 5", False),
        (float("nan"), "value = null", True),
        (float("nan"), "value != null", False),
        (Decimal("1.5"), "value = '1.5'", True),
        (Decimal("1.5"), "value = 1.5", False),
        (date(2026, 1, 2), "value = '2026-01-02'", True),
        (10**400, "value > 5", True),
        (object(), "value = null", True),
    ],
)
def test_condition_judges_what_readers_are_told(value: object, condition: str, holds: bool) -> None:
    assert parse(condition, [FieldInfo("value", "any")]).holds({"value": value}) is holds
    told = msgspec.json.decode(dumps(value)) if type(value) is not object else None
    assert parse(condition, [FieldInfo("value", "any")]).holds({"value": told}) is holds, "as at another worker"


async def test_looking_again_while_it_waits_costs_nothing(queries: FakeQueries) -> None:
    limits = Limits(Rates(cost_per_min=5), queries.clock, lambda _reason: None)
    caller = Caller("waits", parse_access(["read/latest"]), limits, trace=Trace())
    operations = asked(queries).operations
    given = {"table": "latest", "key": BTC, "condition": "price >= 200", "timeout_ms": 5_000}
    waiting = asyncio.create_task(operations.call("wait_for", given, caller))
    for price in range(150, 201):
        queries.put("latest", BTC, latest(float(price)))
        for _ in range(10):
            await asyncio.sleep(0)
    answer = await waiting
    assert isinstance(answer, Waited)
    assert answer.held is True
    limits.check_cost()
    assert caller.trace is not None
    assert caller.trace.key_count <= 2, "the key was asked for, and followed"
