"""Operations that say what there is."""

import pytest

from streamapp.errors import BadParameterError, UnknownKeyError
from streamapp.operations import describing
from streamapp.operations.failures import failure
from streamapp.queries.model import FeedInfo
from tests.fakes.queries import FakeQueries, latest
from tests.unit.operations.conftest import BTC, ETH, START, Asked, asked


async def test_tables_come_in_order_of_declaration(ask: Asked) -> None:
    answer = await ask("list_tables")
    assert [table["name"] for table in answer["tables"]] == [
        "candles_1m",
        "candles_5m",
        "stats_5m",
        "latest",
        "signals",
    ]
    assert answer["freshness"]["as_of"] == START + 21_234


async def test_description_has_an_example_that_works(ask: Asked) -> None:
    described = await ask("describe_table", table="candles_1m")
    assert described["window"]["size_ms"] == 60_000
    assert {field["name"]: field["unit"] for field in described["fields"]}["volume"] == "base"
    assert described["keys"] == 2
    example = described["example"]
    assert (await ask(example["tool"], **example["arguments"]))["items"]
    assert (await ask("describe_table", table="latest"))["window"] is None


async def test_description_stands_while_keys_cannot_be_read(queries: FakeQueries, ask: Asked) -> None:
    described = await ask("describe_table", table="stats_5m")
    assert described["example_keys"] == []
    queries.restoring = {0}
    assert (await ask("describe_table", table="candles_1m"))["keys"] is None
    assert "find_keys" in described["example"]["arguments"]["keys"][0]


@pytest.mark.parametrize(
    ("query", "first"), [("btc-usd", BTC), ("BTC", BTC), ("coinbase:e", ETH), ("th-us", ETH), ("bct-usd", BTC)]
)
async def test_keys_are_found_by_any_part(ask: Asked, query: str, first: str) -> None:
    assert (await ask("find_keys", query=query))["keys"][0]["key"] == first


async def test_found_keys_name_their_tables(ask: Asked) -> None:
    keys = (await ask("find_keys", query="btc"))["keys"]
    assert keys == [{"key": BTC, "tables": ["candles_1m", "latest"]}]
    assert (await ask("find_keys", query="btc", table="latest"))["keys"][0]["tables"] == ["latest"]
    assert (await ask("find_keys", query="doge"))["keys"] == []


async def test_keys_that_cannot_be_asked_for_are_not_listed(queries: FakeQueries, ask: Asked) -> None:
    for key in ("", "a" * 300, "odd key", "odd%41"):
        queries.put("latest", key, latest(1.0))
    shown = [found["key"] for found in (await ask("find_keys", table="latest"))["keys"]]
    assert shown == [BTC, ETH, "odd%20key", "odd%2541"]
    assert len((await ask("get_current", table="latest", keys=shown))["items"]) == len(shown)
    assert (await ask("describe_table", table="latest"))["example_keys"] == shown[:3]


async def test_example_works_where_the_first_keys_cannot_be_asked_for(queries: FakeQueries, ask: Asked) -> None:
    for number in range(10):
        queries.put("latest", f"{number}" + " " * 200, latest(1.0))
    example = (await ask("describe_table", table="latest"))["example"]
    assert (await ask(example["tool"], **example["arguments"]))["items"][0]["key"] == BTC


async def test_keys_are_bounded_and_that_is_told(queries: FakeQueries) -> None:
    for number in range(30):
        queries.put("latest", f"x:K{number:02}", latest(1.0))
    answer = await asked(queries, page_limit_max=7)("find_keys", query="x:", limit=10)
    assert [found["key"] for found in answer["keys"]] == [f"x:K{number:02}" for number in range(10)]
    assert answer["truncated"] is True


async def test_beginning_of_a_key_is_found_beyond_the_keys_that_are_read(
    queries: FakeQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describing, "_SCAN_MAX", 10)
    for number in range(30):
        queries.put("latest", f"a:{number:02}", latest(1.0))
    ask = asked(queries, page_limit_max=5)
    answer = await ask("find_keys", query=BTC, table="latest")
    assert answer["keys"] == [{"key": BTC, "tables": ["latest"]}]
    assert answer["truncated"] is True
    assert (await ask("find_keys", query="a:0", table="latest"))["keys"][0] == {"key": "a:00", "tables": ["latest"]}


def test_similar_keys_are_looked_for_among_few() -> None:
    texts = [f"coinbase:token{number:05}-usd" for number in range(20_000)]
    found = describing._candidates("coinbase:tokne12345-usd", texts)
    assert len(found) == describing._COMPARED_MAX
    assert "coinbase:token12345-usd" in found
    keys = {text.upper(): ["latest"] for text in texts}
    assert next(describing._alike("tokne12345usd", keys)) == "COINBASE:TOKEN12345-USD"


async def test_log_has_no_arguments_that_are_not_declared(ask: Asked, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamapp.operations.runner")
    with pytest.raises(BadParameterError):
        await ask("get_current", table="latest", keys=[BTC], authorization="Bearer hidden")
    with pytest.raises(BadParameterError):
        await ask("nothing", table="hidden")
    assert BTC in caplog.text
    assert "hidden" not in caplog.text


async def test_feed_health_leaves_free_text_out(queries: FakeQueries, ask: Asked) -> None:
    queries.feed_infos = [
        FeedInfo("kraken", False, "exploded: call this number", "free text", START, 7, {"A-B": 5, "C-D": 2}),
        FeedInfo("coinbase", True, "connected", "", START + 20_000, 0),
    ]
    feeds = (await ask("get_feed_health"))["feeds"]
    assert feeds[0]["state"] == "unknown"
    assert feeds[0]["symbols_with_gaps"] == {"A-B": 5, "C-D": 2}
    assert feeds[1]["silent_ms"] == 1_234
    assert "free text" not in str(feeds)
    assert [feed["venue"] for feed in (await ask("get_feed_health", venue="kraken"))["feeds"]] == ["kraken"]
    with pytest.raises(BadParameterError, match="kraken, coinbase"):
        await ask("get_feed_health", venue="nyse")


@pytest.mark.parametrize("venue", ["my venue", "50%", "a%20b"])
async def test_venue_may_be_asked_for_as_it_is_shown(queries: FakeQueries, ask: Asked, venue: str) -> None:
    queries.feed_infos = [FeedInfo(name, True, "connected", "", START, 0) for name in (venue, "other")]
    shown = (await ask("get_feed_health"))["feeds"][0]["venue"]
    for asked_for in dict.fromkeys((shown, venue)):
        assert [feed["venue"] for feed in (await ask("get_feed_health", venue=asked_for))["feeds"]] == [shown]


@pytest.mark.parametrize("query", ["caf%C3%A9", "CAF%C3%89", "%C3%A9:btc", "é:B", "caf%C3%A9:BTC%20USD"])
async def test_part_of_a_key_is_found_as_it_is_shown(queries: FakeQueries, ask: Asked, query: str) -> None:
    queries.put("latest", "café:BTC USD", latest(1.0))
    queries.put("latest", "100%:A", latest(1.0))
    assert [found["key"] for found in (await ask("find_keys", query=query))["keys"]] == ["caf%C3%A9%3ABTC%20USD"]
    assert [found["key"] for found in (await ask("find_keys", query="100%"))["keys"]] == ["100%25%3AA"]


async def test_nearest_keys_can_be_asked_for(queries: FakeQueries, ask: Asked) -> None:
    wanted = "a long name of a key, " * 8
    for key in (wanted + "1", wanted[:40]):
        queries.put("latest", key, latest(1.0))
    with pytest.raises(UnknownKeyError) as refused:
        await ask("get_current", table="latest", keys=[wanted])
    assert wanted + "1" in refused.value.nearest
    (missing,) = (await ask("get_current", table="latest", keys=[BTC, wanted]))["missing"]
    for nearest in (failure(refused.value).nearest, missing["nearest"]):
        for key in nearest:
            assert (await ask("get_current", table="latest", keys=[key]))["items"]
