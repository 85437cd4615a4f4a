"""Operations over the fake reads."""

from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.metrics import Metrics
from streamapp.operations.runner import Operations
from streamapp.operations.tokens import TokenCounter
from streamapp.settings import Settings
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest

START = 1_790_000_040_000
BTC, ETH = "coinbase:BTC-USD", "coinbase:ETH-USD"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + 21_234)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def queries(clock: ManualClock) -> FakeQueries:
    """Two instruments: five windows of one, one of the other."""
    fake = FakeQueries(clock=clock)
    for number in range(5):
        start = START - (4 - number) * MINUTE
        fake.put("candles_1m", BTC, candle(100.0 + number, time=start), start=start, final=number < 4)
    fake.put("candles_1m", ETH, candle(50.0), start=START)
    fake.put("latest", BTC, latest(101.5))
    fake.put("latest", ETH, latest(50.5))
    return fake


class Asked:
    """Runs operations and gives their answers as plain JSON."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    async def __call__(self, name: str, **given: Any) -> dict[str, Any]:
        return (await self.operations.call(name, given)).model_dump(mode="json")


def asked(fake: FakeQueries, counter: TokenCounter | None = None, **settings: Any) -> Asked:
    return Asked(Operations(fake, Settings(**settings), Metrics(), fake.clock, counter=counter))


@pytest.fixture
def ask(queries: FakeQueries) -> Asked:
    return asked(queries)
