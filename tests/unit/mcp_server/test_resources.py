"""Resources: every key under its own URI, and a list that no key and no partition can break."""

import json

from streamapp.clock import ManualClock
from streamapp.mcp_server import resources
from streamapp.mcp_server.backend import LocalBackend
from streamapp.metrics import Metrics
from streamapp.operations.runner import Operations
from streamapp.queries.access import ANONYMOUS
from streamapp.settings import Settings
from tests.fakes.queries import FakeQueries, latest

BTC = "coinbase:BTC-USD"


def backend(*keys: str) -> tuple[FakeQueries, LocalBackend]:
    """A table of these keys, whose prices are their places."""
    queries = FakeQueries(clock=ManualClock(1_790_000_061_234))
    for place, key in enumerate(keys):
        queries.put("latest", key, latest(float(place)))
    return queries, LocalBackend(Operations(queries, Settings(), Metrics(), queries.clock))


async def test_key_with_percent_signs_is_read_and_listed_as_itself() -> None:
    _, over = backend("p%41", "pA", "100%")
    listed, _ = await resources.listed(over, "latest/", ANONYMOUS)
    prices = {}
    for resource in listed:
        content = (await resources.content(over, str(resource.uri), ANONYMOUS)).contents[0]
        prices[resource.name] = json.loads(content.text)["value"]["price"]  # type: ignore[union-attr]
    assert prices == {"latest 100%25": 2.0, "latest p%2541": 0.0, "latest pA": 1.0}


async def test_key_that_cannot_be_asked_for_does_not_break_the_list() -> None:
    _, over = backend(BTC, "evil\x01key", "x" * 2_000, "long key " * 20)
    listed, _ = await resources.listed(over, "latest/", ANONYMOUS)
    assert [resource.name for resource in listed] == [f"latest {BTC}"]


async def test_restoring_partition_does_not_break_the_list() -> None:
    queries, over = backend(BTC, "coinbase:BTD-USD")
    queries.restoring = {queries.partition(BTC)}
    some, _ = await resources.listed(over, "latest/", ANONYMOUS)
    assert [resource.annotations is None for resource in some] == [True, False]
    queries.restoring = {0, 1, 2, 3}
    none, _ = await resources.listed(over, "latest/", ANONYMOUS)
    assert [resource.name for resource in none] == [resource.name for resource in some]
