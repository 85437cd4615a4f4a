"""An application over the fake, and a client whose every JSON answer is held against the OpenAPI document."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from jsonschema import Draft202012Validator

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.views.application import application
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest

START = 1_790_000_040_000
BTC = "coinbase:BTC-USD"


class CheckedClient:
    """Sends requests; each answer with a described body is validated against the document's schema for it."""

    def __init__(self, client: TestClient, document: dict[str, Any]) -> None:
        self.client = client
        self.document = document
        self.checked: list[tuple[str, int]] = []

    async def get(self, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Status, decoded body and headers."""
        return await self.request("GET", path, **options)

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        async with self.client.request(method, path, allow_redirects=False, **options) as response:
            content = await response.read()
            body = json.loads(content) if "json" in response.headers.get("Content-Type", "") else content.decode()
            self.check(method, response.url.raw_path, response.status, response.headers.get("Content-Type", ""), body)
            return response.status, body, response.headers

    def template(self, path: str) -> str | None:
        """The document's path that a raw path belongs to; the longest one when several fit."""
        fitting = [
            template
            for template in self.document["paths"]
            if re.fullmatch(
                re.sub(r"\\\{key\\\}", ".+", re.sub(r"\\\{(?!key)\w+\\\}", "[^/]+", re.escape(template))), path
            )
        ]
        return max(fitting, key=len, default=None)

    def check(self, method: str, path: str, status: int, content_type: str, body: Any) -> None:
        template = self.template(path)
        operation = self.document["paths"].get(template or "", {}).get(method.lower())
        if operation is None:
            assert status in (403, 404, 405, 413), f"{method} {path} answers {status}, but is not in the document"
            schema = {"$ref": "#/components/schemas/Problem"}
        else:
            assert str(status) in operation["responses"], f"{method} {template} is not documented to answer {status}"
            described = operation["responses"][str(status)].get("content", {})
            if not described:
                assert body == "", f"{method} {template} {status} has a body that is not documented"
                return
            media = content_type.partition(";")[0]
            assert media in described or "*/*" in described, f"{method} {template} {status} is {media}"
            schema = described.get(media, {}).get("schema", {})
        if isinstance(body, (dict, list)):
            Draft202012Validator({**schema, "components": self.document["components"]}).validate(body)
        self.checked.append((template or "unmatched", status))


MakeClient = Callable[..., Awaitable[CheckedClient]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + 21_234)


@pytest.fixture
def queries(clock: ManualClock) -> FakeQueries:
    """Two venues, five windows of one key, and one value of each other kind."""
    fake = FakeQueries(clock=clock)
    for number in range(5):
        start = START - (4 - number) * MINUTE
        fake.put("candles_1m", BTC, candle(100.0 + number, time=start), start=start, final=number < 4)
    fake.put("candles_1m", "coinbase:ETH-USD", candle(50.0), start=START)
    fake.put("candles_1m", "kraken:A/B-USD", candle(7.0), start=START)
    fake.put("latest", BTC, latest(101.5))
    fake.put("latest", "coinbase:ETH-USD", {**latest(50.5), "price": None})
    return fake


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def make_settings(**changes: Any) -> Settings:
    return Settings(**changes)


@pytest.fixture
async def make_client(queries: FakeQueries, metrics: Metrics, clock: ManualClock) -> AsyncIterator[MakeClient]:
    """Start an application with other settings; all are stopped in the end."""
    started: list[TestClient] = []

    async def make(health: Callable[[], str | None] | None = None, **changes: Any) -> CheckedClient:
        from streamapp.views.openapi import build_document

        settings = make_settings(**changes)
        app = application(queries, settings, metrics=metrics, clock=clock, health=health)
        client = TestClient(TestServer(app), auto_decompress=True)
        await client.start_server()
        started.append(client)
        return CheckedClient(client, build_document(queries.tables(), settings.page_limit_max))

    yield make
    for client in started:
        await client.close()


@pytest.fixture
async def client(make_client: MakeClient) -> CheckedClient:
    """The application with default settings: loopback, no tokens."""
    return await make_client()
