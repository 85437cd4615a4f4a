"""Keys that look like one that does not exist."""

from typing import Any

import pytest

from streamapp.queries import nearest
from streamapp.queries.nearest import NEAREST_MAX, nearest_keys
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from tests.fakes.crashes import Event, batch, definition


def state_of(keys: list[str]) -> PartitionState:
    state = PartitionState(definition(None, Count()), 0, MemoryStore())
    state.apply(batch([Event(key, 5) for key in keys], first=0, origin=0, source=0))
    return state


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("coinbase:BTC-US", "coinbase:BTC-USD"),
        ("coinbase:btc-usd", "coinbase:BTC-USD"),
        ("coinbse:BTC-USD", "coinbase:BTC-USD"),
        ("krakn:ETH-EUR", "kraken:ETH-EUR"),
    ],
)
def test_misspelt_key_is_found_in_any_partition(asked: str, expected: str) -> None:
    states = [state_of(["coinbase:BTC-USD", "coinbase:LTC-USD"]), state_of([]), state_of(["kraken:ETH-EUR"])]
    assert expected in nearest_keys(asked, states)


def test_nothing_like_it_is_nothing() -> None:
    assert nearest_keys("zzzz", [state_of(["coinbase:BTC-USD"])]) == []
    assert nearest_keys("x", []) == []


def test_key_is_found_among_many_at_a_bounded_price(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [state_of([f"coinbase:A{number:05}-USD" for number in range(part, 9_000, 2)]) for part in range(2)]
    states[0].apply(batch([Event("coinbase:ZEC-USD", 5)], first=9_000, origin=0, source=0))
    compared: list[int] = []
    close_matches = nearest.difflib.get_close_matches

    def counted(key: str, known: list[str], *bounds: Any) -> list[str]:
        compared.append(len(known))
        return close_matches(key, known, *bounds)

    monkeypatch.setattr(nearest.difflib, "get_close_matches", counted)
    assert nearest_keys("coinbase:ZEC-US", states)[0] == "coinbase:ZEC-USD"
    assert len(nearest_keys("coinbase:A04321-UDS", states)) == NEAREST_MAX
    assert len(nearest._candidates("coinbase:A04321-UDS", states)) <= 2_000
    assert max(compared) <= 50
