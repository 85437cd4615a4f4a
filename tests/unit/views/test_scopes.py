"""Tokens that may read some tables and keys only: what is not theirs is refused by name, and shows nowhere else.

The strongest check is that of two worlds: one that holds what a token may not read, and one that does not. Whatever a
caller asks, both must answer alike.
"""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.queries.model import FeedInfo, WorkerInfo
from streamapp.settings import Settings
from streamapp.views.application import application, with_point_reads
from streamapp.views.auth import new_token
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest

START = 1_790_000_040_000
OPEN, HIDDEN, OTHER = "coinbase:BTC-USD", "coinbase:BTD-USD", "kraken:BTC-USD"
#: beginnings of keys in three tables, and nothing of `stats_5m` and `candles_5m`
SCOPES = [
    "read/candles_1m/coinbase:BTC",
    "read/candles_1m/zz/",
    "read/signals/coinbase:BTC-",
    "read/latest/coinbase:BTC-",
]
SIGNAL = {"kind": "price_move", "z": 4.5, "value": 0.02, "mean": 0.0, "stddev": 0.004, "window_start": START}


def world(clock: ManualClock, secrets: bool) -> FakeQueries:
    fake = FakeQueries(clock=clock)
    for number in range(3):
        start = START - (2 - number) * MINUTE
        fake.put("candles_1m", OPEN, candle(100.0 + number), start=start, final=number < 2)
    fake.put("candles_1m", "coinbase:BTC-EUR", candle(90.0), start=START)
    fake.put("candles_1m", "zz/a,b", candle(1.0), start=START)
    fake.put("latest", OPEN, latest(101.5))
    fake.put("signals", OPEN, SIGNAL)
    fake.feed_infos = [FeedInfo("coinbase", True, "connected", "", START, 2, {"BTC-USD": 2})]
    if secrets:
        for key in (HIDDEN, OTHER, "Coinbase:BTC-USD", "a", "coinbase:BT", "zz", "zz-c", "coinbase:BTB-USD"):
            fake.put("candles_1m", key, candle(1_000.0), start=START)
            fake.put("latest", key, latest(1_000.0))
        fake.put("candles_5m", OPEN, candle(5.0), start=START)
        fake.put("stats_5m", OPEN, {"count": 1, "mean": 2.0, "stddev": None}, start=START)
        fake.feed_infos = [
            FeedInfo("coinbase", True, "connected", "BTD-USD is odd", START, 9, {"BTC-USD": 2, "BTD-USD": 7}),
            FeedInfo("secret-venue", False, "disconnected", "", START, 1, {"X-Y": 1}),
        ]
        fake.worker_info = WorkerInfo(True, ("candles_5m-1",), {"hidden-topic": [1]}, {"hidden-topic": 0}, 0)
    return fake


class Worlds:
    """Two servers, with the secrets and without, and a token for both."""

    def __init__(self) -> None:
        self.runners: list[web.AppRunner] = []
        self.urls: list[str] = []
        self.fakes: list[FakeQueries] = []
        self.token, self.entry = new_token("narrow", SCOPES)
        self.session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"})

    async def start(self) -> None:
        for secrets in (True, False):
            clock = ManualClock(START + 21_234)
            self.fakes.append(world(clock, secrets))
            app = application(self.fakes[-1], Settings(api_tokens=self.entry), metrics=Metrics(), clock=clock)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            assert runner.server is not None
            runner.server.request_handler = with_point_reads(app, runner.server.request_handler)  # type: ignore[method-assign]
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.runners.append(runner)
            self.urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")

    async def stop(self) -> None:
        await self.session.close()
        for runner in self.runners:
            await runner.cleanup()

    async def ask(self, method: str, path: str, **options: Any) -> list[tuple[int, str]]:
        """Status and text of both, the one with the secrets first."""
        answers = []
        for url in self.urls:
            from yarl import URL

            async with self.session.request(method, URL(url + path, encoded=True), **options) as response:
                answers.append((response.status, await response.text()))
        return answers

    async def same(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """The answer that both give."""
        with_secrets, without = await self.ask(method, path, **options)
        assert with_secrets == without
        return with_secrets

    async def streamed(self, path: str, count: int) -> list[list[dict[str, Any]]]:
        """The first events of both, without their ids."""
        both = []
        for url, fake in zip(self.urls, self.fakes, strict=True):
            async with self.session.get(url + path) as response:
                events: list[dict[str, Any]] = []
                while len(events) < count:
                    if len(events) == count - 1:
                        fake.put("candles_1m", HIDDEN, candle(2_000.0), start=START)
                        fake.put("candles_1m", OPEN, candle(200.0), start=START)
                    line = await response.content.readline()
                    assert line, "the stream ended"
                    if line.startswith(b"data: "):
                        events.append(json.loads(line[6:]))
                both.append(events)
        return both


@pytest.fixture
async def worlds() -> AsyncIterator[Worlds]:
    both = Worlds()
    await both.start()
    yield both
    await both.stop()


def quoted(key: str) -> str:
    return key.replace("/", "%2F").replace(",", "%2C")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/tables", 200),
        ("/v1/tables/candles_1m", 200),
        ("/v1/tables/candles_5m", 403),
        ("/v1/tables/nothing", 403),
        ("/v1/tables/*", 403),
        ("/v1/tables/candles_1m/keys", 200),
        ("/v1/tables/candles_1m/keys?limit=1", 200),
        ("/v1/tables/candles_1m/keys?prefix=coinbase", 200),
        ("/v1/tables/candles_1m/keys?prefix=coinbase:BTD", 200),
        ("/v1/tables/candles_1m/keys?prefix=zz", 200),
        ("/v1/tables/candles_1m/keys?prefix=%25", 200),
        ("/v1/tables/candles_5m/keys", 403),
        ("/v1/tables/nothing/keys", 403),
        (f"/v1/tables/candles_1m/keys/{OPEN}", 200),
        ("/v1/tables/candles_1m/keys/zz/a%2Cb", 200),
        ("/v1/tables/candles_1m/keys/zz%2Fa%2cb", 200),
        (f"/v1/tables/candles_1m/keys/{OPEN}?at={START - MINUTE}", 200),
        ("/v1/tables/candles_1m/keys/coinbase:BTC-USE", 404),
        ("/v1/tables/candles_1m/keys/coinbase:BTCD-USD", 404),
        (f"/v1/tables/candles_1m/keys/{HIDDEN}", 403),
        (f"/v1/tables/candles_1m/keys/{HIDDEN.replace(':', '%3a')}", 403),
        (f"/v1/tables/candles_1m/keys/{HIDDEN}?at={START}", 403),
        (f"/v1/tables/candles_1m/keys/{OTHER}", 403),
        ("/v1/tables/candles_1m/keys/coinbase:NONE", 403),
        ("/v1/tables/candles_1m/keys/coinbase%253ABTC-USD", 403),
        ("/v1/tables/candles_1m/keys/COINBASE:BTC-USD", 403),
        ("/v1/tables/candles_1m/keys/zz", 403),
        ("/v1/tables/candles_1m/keys/zz/../coinbase:BTD-USD", 404),
        ("/v1/tables/candles_1m/keys/coinbase:BTC/../../coinbase:BTD-USD", 404),
        (f"/v1/tables/candles_5m/keys/{OPEN}", 403),
        (f"/v1/tables/CANDLES_1M/keys/{OPEN}", 403),
        (f"/v1/tables/candles_1m/keys/{OPEN}/windows", 200),
        (f"/v1/tables/candles_1m/keys/{HIDDEN}/windows", 403),
        (f"/v1/tables/candles_1m/keys/{HIDDEN}%2Fwindows", 403),
        ("/v1/tables/candles_1m/keys/none/windows", 403),
        (f"/v1/tables/candles_1m/values?keys={OPEN},{HIDDEN},none,coinbase:BTCX", 200),
        (f"/v1/tables/candles_1m/values?keys={HIDDEN}", 200),
        (f"/v1/tables/candles_5m/values?keys={OPEN}", 403),
        (f"/v1/tables/candles_1m/values?keys={OPEN}&keys={HIDDEN}", 400),
        ("/v1/tables/candles_1m/top?by=close", 200),
        ("/v1/tables/candles_1m/top?by=close&limit=1", 200),
        ("/v1/tables/candles_1m/top?by=close&prefixes=coinbase:BTD", 200),
        ("/v1/tables/candles_1m/top?by=close&prefixes=coinbase,kraken,z", 200),
        ("/v1/tables/candles_1m/top?by=nothing", 400),
        ("/v1/tables/candles_5m/top?by=close", 403),
        ("/v1/tables/candles_5m/changes", 403),
        (f"/v1/tables/candles_1m/changes?key={HIDDEN}", 403),
        ("/v1/tables/candles_1m/changes?key=none", 403),
        (f"/v1/changes?of=candles_1m&of=candles_1m/{HIDDEN}", 403),
        ("/v1/changes?of=candles_1m&of=candles_5m", 403),
        ("/v1/changes?of=candles_1m&of=nothing", 403),
        ("/v1/context", 200),
        ("/v1/context?style=json", 200),
        (f"/v1/context?keys={OPEN},{HIDDEN}", 200),
        (f"/v1/context?keys={HIDDEN}", 403),
        ("/v1/context?keys=none", 403),
        (f"/v1/context?tables=candles_1m,candles_5m&keys={OPEN}", 403),
        ("/v1/status", 200),
        ("/openapi.json", 200),
        ("/v1/operations", 200),
    ],
)  # fmt: skip
async def test_what_may_not_be_read_shows_nowhere(worlds: Worlds, path: str, status: int) -> None:
    answered, text = await worlds.same("GET", path)
    assert answered == status, text
    if status == 403:
        assert json.loads(text)["code"] == "forbidden"
        assert "nearest" not in json.loads(text)
    asked = re.sub(r"[^A-Za-z0-9]", "", path)
    for secret in ("BTD-USD", "secret-venue", "hidden-topic", "stats_5m"):
        assert secret not in text or re.sub(r"[^A-Za-z0-9]", "", secret) in asked
    head, _ = await worlds.same("HEAD", path)
    assert head == status


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("list_tables", {}, 200),
        ("describe_table", {"table": "candles_1m"}, 200),
        ("describe_table", {"table": "candles_5m"}, 403),
        ("describe_table", {"table": "nothing"}, 403),
        ("get_current", {"table": "candles_1m", "keys": [OPEN, HIDDEN, "none"]}, 200),
        ("get_current", {"table": "candles_1m", "keys": [HIDDEN]}, 403),
        ("get_current", {"table": "candles_1m", "keys": ["coinbase%3ABTD-USD"]}, 403),
        ("get_current", {"table": "candles_1m", "keys": ["coinbase:BTC-USE"]}, 404),
        ("get_windows", {"table": "candles_1m", "key": OPEN}, 200),
        ("get_windows", {"table": "candles_1m", "key": HIDDEN}, 403),
        ("get_windows", {"table": "candles_1m", "key": HIDDEN, "from_ms": 0}, 403),
        ("get_top", {"table": "candles_1m", "by": "close"}, 200),
        ("get_top", {"table": "candles_5m", "by": "close"}, 403),
        ("find_keys", {"query": "BTD"}, 200),
        ("find_keys", {"query": ""}, 200),
        ("find_keys", {"query": "coinbase:BTD-USD"}, 200),
        ("find_keys", {"query": "BTC", "table": "candles_5m"}, 403),
        ("compare", {"table": "candles_1m", "keys": [OPEN, HIDDEN]}, 200),
        ("compare", {"table": "candles_1m", "keys": [HIDDEN, OTHER]}, 403),
        ("compare", {"table": "latest", "keys": [OPEN, "coinbase:BTC-EUR"]}, 400),
        ("get_signals", {}, 200),
        ("get_signals", {"keys": [HIDDEN]}, 403),
        ("get_feed_health", {}, 200),
        ("get_feed_health", {"venue": "secret-venue"}, 400),
        ("summarize_state", {"budget_tokens": 2_000}, 200),
        ("summarize_state", {"keys": [HIDDEN, "none"]}, 403),
        ("summarize_state", {"tables": ["candles_5m"]}, 403),
        ("wait_for", {"table": "candles_1m", "key": HIDDEN, "condition": "close > 0", "timeout_ms": 0}, 403),
        ("wait_for", {"table": "candles_1m", "key": OPEN, "condition": "close > 0", "timeout_ms": 0}, 200),
    ],
)  # fmt: skip
async def test_operations_tell_nothing_of_it_either(
    worlds: Worlds, name: str, arguments: dict[str, Any], status: int
) -> None:
    answered, text = await worlds.same("POST", f"/v1/operations/{name}", json=arguments)
    assert answered == status, text


async def test_pages_of_keys_hold_every_open_key_once(worlds: Worlds) -> None:
    found, cursor = [], ""
    for _ in range(20):
        status, text = await worlds.same("GET", f"/v1/tables/candles_1m/keys?limit=1{cursor}")
        assert status == 200
        page = json.loads(text)
        found += page["items"]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert found == ["coinbase:BTC-EUR", OPEN, "zz/a,b"]
    for bad in ("1", "-1.", "x.", "1.!", "99999.", "٣."):
        status, _ = await worlds.same("GET", f"/v1/tables/candles_1m/keys?cursor={bad}")
        assert status in (200, 400)


async def test_nearest_keys_are_chosen_among_the_open_ones(worlds: Worlds) -> None:
    _, text = await worlds.same("GET", "/v1/tables/candles_1m/keys/coinbase:BTC-USE")
    assert json.loads(text)["nearest"] == [OPEN, "coinbase:BTC-EUR"]


async def test_table_list_names_what_is_open_and_counts_no_keys_of_others(worlds: Worlds) -> None:
    _, text = await worlds.same("GET", "/v1/tables")
    tables = {table["name"]: table for table in json.loads(text)["tables"]}
    assert list(tables) == ["candles_1m", "latest", "signals"]
    assert (tables["candles_1m"]["keys"], tables["signals"]["keys"]) == (None, None)


async def test_stream_of_a_table_tells_only_of_open_keys(worlds: Worlds) -> None:
    for path in ("/v1/tables/candles_1m/changes", "/v1/changes?of=candles_1m"):
        for events in await worlds.streamed(path, 4):
            assert [event["key"] for event in events] == [OPEN, "coinbase:BTC-EUR", "zz/a,b", OPEN]
    with_secrets, without = await worlds.streamed("/v1/changes?of=signals&status=true", 2)
    assert with_secrets == without


async def test_a_token_without_scopes_to_read_reads_nothing(worlds: Worlds) -> None:
    token, entry = new_token("scraper", ["metrics"])
    app = application(world(ManualClock(START), True), Settings(api_tokens=entry), clock=ManualClock(START))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/tables"
        async with worlds.session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == 403
    finally:
        await runner.cleanup()
