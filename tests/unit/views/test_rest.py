import json

import pytest

from streamapp.metrics import Metrics
from streamapp.queries.model import HOP_HEADER
from tests.fakes.queries import MINUTE, FakeQueries
from tests.unit.views.conftest import BTC, START, CheckedClient, MakeClient


async def test_tables_are_described_with_fields_units_and_keys(client: CheckedClient) -> None:
    status, body, _ = await client.get("/v1/tables")
    assert status == 200
    first = body["tables"][0]
    assert (first["name"], first["kind"], first["keys"], first["key_form"]) == (
        "candles_1m",
        "tumbling",
        3,
        "venue:symbol",
    )
    assert first["window"] == {
        "size_ms": MINUTE,
        "step_ms": None,
        "gap_ms": None,
        "grace_ms": 10_000,
        "retention_ms": 1440 * MINUTE,
    }
    assert first["fields"][0] == {
        "name": "open",
        "type": "number",
        "unit": "quote",
        "nullable": False,
        "description": "",
    }
    assert [table["window"] for table in body["tables"] if table["kind"] == "latest"] == [None, None]
    assert (await client.get("/v1/tables/candles_1m"))[1] == first


async def test_value_is_exactly_the_contracts_json(client: CheckedClient) -> None:
    status, body, headers = await client.get(f"/v1/tables/candles_1m/keys/{BTC}")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert list(body) == ["table", "key", "window", "value", "freshness"]
    assert body["window"] == {"start": START, "end": START + MINUTE, "final": False}
    assert body["value"]["close"] == 105.0
    assert list(body["freshness"]) == [
        "as_of",
        "watermark",
        "partition",
        "offset",
        "lag",
        "restoring",
        "age_ms",
        "staleness_ms",
        "feed",
    ]
    assert body["freshness"]["as_of"] == START + 21_234
    assert body["freshness"]["feed"] is None


async def test_value_of_a_table_without_windows_has_a_null_window(client: CheckedClient) -> None:
    _, body, _ = await client.get(f"/v1/tables/latest/keys/{BTC}")
    assert body["window"] is None
    assert body["value"]["price"] == 101.5


@pytest.mark.parametrize(
    "path",
    ["coinbase:BTC-USD", "coinbase%3ABTC-USD", "kraken:A/B-USD", "kraken%3AA%2FB-USD"],
)
async def test_key_is_found_encoded_or_as_it_is(client: CheckedClient, path: str) -> None:
    status, body, _ = await client.get(f"/v1/tables/candles_1m/keys/{path}")
    assert status == 200
    assert body["key"] == path.replace("%3A", ":").replace("%2F", "/")


async def test_key_with_percent_and_unicode_survives(client: CheckedClient, queries: FakeQueries) -> None:
    queries.put("latest", "x:50%/ü windows", {**queries._data["latest"][BTC][0].value})
    status, body, _ = await client.get("/v1/tables/latest/keys/x%3A50%25%2F%C3%BC%20windows")
    assert (status, body["key"]) == (200, "x:50%/ü windows")
    status, body, _ = await client.get("/v1/tables/latest/values?keys=x%3A50%25%2F%C3%BC%20windows")
    assert body["items"][0]["key"] == "x:50%/ü windows"


async def test_key_that_ends_in_windows_is_reached_encoded(client: CheckedClient, queries: FakeQueries) -> None:
    queries.put("latest", "a/windows", queries._data["latest"][BTC][0].value)
    status, body, _ = await client.get("/v1/tables/latest/keys/a%2Fwindows")
    assert (status, body["key"]) == (200, "a/windows")


async def test_at_chooses_the_window_that_holds_the_instant(client: CheckedClient) -> None:
    _, body, _ = await client.get(f"/v1/tables/candles_1m/keys/{BTC}?at={START - 1}")
    assert body["window"] == {"start": START - MINUTE, "end": START, "final": True}
    status, body, _ = await client.get(f"/v1/tables/candles_1m/keys/{BTC}?at={START + MINUTE}")
    assert (status, body["code"]) == (404, "no_such_window")


async def test_pages_of_keys_reach_the_end_without_repeats(client: CheckedClient) -> None:
    seen: list[str] = []
    cursor = ""
    for _ in range(10):
        _, body, _ = await client.get(f"/v1/tables/candles_1m/keys?limit=2{cursor}")
        seen += body["items"]
        if body["cursor"] is None:
            break
        cursor = f"&cursor={body['cursor']}"
    assert seen == [BTC, "coinbase:ETH-USD", "kraken:A/B-USD"]
    _, body, _ = await client.get("/v1/tables/candles_1m/keys?prefix=kraken:")
    assert body["items"] == ["kraken:A/B-USD"]


async def test_pages_of_windows_reach_the_end_in_order(client: CheckedClient) -> None:
    starts: list[int] = []
    cursor = ""
    for _ in range(10):
        _, body, _ = await client.get(
            f"/v1/tables/candles_1m/keys/{BTC}/windows?from={START - 3 * MINUTE}&limit=1{cursor}"
        )
        starts += [item["window"]["start"] for item in body["items"]]
        if body["cursor"] is None:
            break
        cursor = f"&cursor={body['cursor']}"
    assert starts == [START - 3 * MINUTE, START - 2 * MINUTE, START - MINUTE, START]
    _, body, _ = await client.get(f"/v1/tables/candles_1m/keys/{BTC}/windows?to={START - 3 * MINUTE}")
    assert [item["window"]["start"] for item in body["items"]] == [START - 4 * MINUTE]
    assert body["key"] == BTC


async def test_windows_of_a_key_with_a_slash_are_found(client: CheckedClient) -> None:
    status, body, _ = await client.get("/v1/tables/candles_1m/keys/kraken:A/B-USD/windows")
    assert (status, len(body["items"])) == (200, 1)


async def test_values_keep_the_order_asked_and_put_errors_in_place(client: CheckedClient) -> None:
    status, body, _ = await client.get(f"/v1/tables/latest/values?keys=nobody:X,{BTC}")
    assert status == 200
    assert [item["key"] for item in body["items"]] == ["nobody:X", BTC]
    assert body["items"][0]["error"]["code"] == "unknown_key"
    assert body["items"][1]["value"]["price"] == 101.5


async def test_a_comma_within_a_key_is_written_encoded(client: CheckedClient, queries: FakeQueries) -> None:
    queries.put("latest", "a,b", queries._data["latest"][BTC][0].value)
    _, body, _ = await client.get(f"/v1/tables/latest/values?keys={BTC},a%2Cb")
    # the test client must not have changed what it was given
    assert [item["key"] for item in body["items"]] in ([BTC, "a,b"], [BTC, "a", "b"])
    import aiohttp
    from yarl import URL

    url = URL(str(client.client.make_url("/")) + f"v1/tables/latest/values?keys={BTC},a%2Cb", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert [item["key"] for item in (await response.json())["items"]] == [BTC, "a,b"]


async def test_top_orders_by_the_field_with_nulls_last(client: CheckedClient) -> None:
    _, body, _ = await client.get("/v1/tables/candles_1m/top?by=close&limit=2")
    assert [item["key"] for item in body["items"]] == [BTC, "coinbase:ETH-USD"]
    assert (body["by"], body["order"]) == ("close", "desc")
    for order in ("asc", "desc"):
        _, body, _ = await client.get(f"/v1/tables/latest/top?by=price&order={order}")
        assert [item["key"] for item in body["items"]] == [BTC, "coinbase:ETH-USD"]


async def test_missing_partitions_are_named(client: CheckedClient, queries: FakeQueries) -> None:
    lost = queries.partition(BTC)
    queries.unreachable = {lost}
    _, body, _ = await client.get("/v1/tables/candles_1m/keys")
    assert body["missing_partitions"] == [lost]
    assert BTC not in body["items"]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        (f"/v1/tables/candles_1m/keys/{BTC}?at=x", "at"),
        (f"/v1/tables/candles_1m/keys/{BTC}?at=-1", "at"),
        (f"/v1/tables/candles_1m/keys/{BTC}?at=1.5", "at"),
        (f"/v1/tables/candles_1m/keys/{BTC}?at=", "at"),
        (f"/v1/tables/candles_1m/keys/{BTC}?at=%D9%A1", "at"),  # a digit, but not of ASCII
        (f"/v1/tables/candles_1m/keys/{BTC}?at=99999999999999999", "at"),
        (f"/v1/tables/candles_1m/keys/{BTC}?at=1&at=2", "at"),
        (f"/v1/tables/latest/keys/{BTC}?at=1", "at"),
        (f"/v1/tables/candles_1m/keys/{BTC}?max_staleness_ms=-5", "max_staleness_ms"),
        (f"/v1/tables/candles_1m/keys/{BTC}?max_stale=5", "max_stale"),
        ("/v1/tables/candles_1m/keys/a%00b", "key"),
        ("/v1/tables/candles_1m/keys/" + "k" * 1_025, "key"),
        ("/v1/tables/candles_1m/keys?limit=0", "limit"),
        ("/v1/tables/candles_1m/keys?limit=1001", "limit"),
        ("/v1/tables/candles_1m/keys?cursor=", "cursor"),
        ("/v1/tables/candles_1m/keys?cursor=%FF%FE", "cursor"),
        ("/v1/tables/candles_1m/keys?offset=3", "offset"),
        (f"/v1/tables/candles_1m/keys/{BTC}/windows?from=5&to=4", "to"),
        ("/v1/tables/candles_1m/values", "keys"),
        ("/v1/tables/candles_1m/values?keys=", "keys"),
        ("/v1/tables/candles_1m/values?keys=a,,b", "keys"),
        ("/v1/tables/candles_1m/values?keys=" + ",".join("k" * 1_001), "keys"),
        ("/v1/tables/candles_1m/top", "by"),
        ("/v1/tables/candles_1m/top?by=colour", "by"),
        ("/v1/tables/candles_1m/top?by=close&order=up", "order"),
        ("/v1/tables/candles_1m/top?by=close&prefixes=", "prefixes"),
        ("/v1/tables?x=1", "x"),
        ("/v1/changes", "of"),
        ("/v1/changes?of=latest&status=yes", "status"),
        ("/v1/changes?of=latest/", "of"),
        ("/v1/tables/latest/changes?interval_ms=60001", "interval_ms"),
        ("/health/live?x=1", "x"),
        ("/v1/status?x=1", "x"),
        ("/openapi.json?x=1", "x"),
    ],
)
async def test_bad_parameter_is_refused_by_name(client: CheckedClient, path: str, parameter: str) -> None:
    status, body, headers = await client.get(path)
    assert (status, body["code"], body["parameter"]) == (400, "bad_parameter", parameter)
    assert headers["Content-Type"] == "application/problem+json"
    assert body["detail"]
    assert body["type"] == "urn:streamapp:problem:bad_parameter"


async def test_unknown_table_and_key_say_what_there_is(client: CheckedClient) -> None:
    status, body, _ = await client.get("/v1/tables/candle_1m/keys/x")
    assert (status, body["code"]) == (404, "unknown_table")
    status, body, _ = await client.get("/v1/tables/latest/keys/coinbase:BTC-EUR")
    assert (status, body["code"]) == (404, "unknown_key")
    assert BTC in body["nearest"]


async def test_stale_view_is_refused_with_its_staleness(client: CheckedClient, queries: FakeQueries) -> None:
    queries.staleness_ms = 800
    status, body, _ = await client.get(f"/v1/tables/latest/keys/{BTC}?max_staleness_ms=500")
    assert (status, body["code"], body["staleness_ms"]) == (409, "stale", 800)
    assert (await client.get(f"/v1/tables/latest/keys/{BTC}?max_staleness_ms=800"))[0] == 200
    _, body, _ = await client.get(f"/v1/tables/latest/values?keys={BTC}&max_staleness_ms=500")
    assert body["items"][0]["error"]["code"] == "stale"


async def test_restoring_and_unreachable_say_when_to_retry(client: CheckedClient, queries: FakeQueries) -> None:
    queries.restoring = {queries.partition(BTC)}
    status, body, headers = await client.get(f"/v1/tables/latest/keys/{BTC}")
    assert (status, body["code"], headers["Retry-After"], body["retry_after_s"]) == (503, "restoring", "3", 3)
    queries.restoring, queries.unreachable = set(), {queries.partition(BTC)}
    status, body, headers = await client.get(f"/v1/tables/latest/keys/{BTC}")
    assert (status, body["code"], headers["Retry-After"]) == (503, "owner_unreachable", "1")


async def test_unknown_route_and_method_are_problems(client: CheckedClient) -> None:
    status, body, _ = await client.get("/v2/tables")
    assert (status, body["code"]) == (404, "not_found")
    status, body, headers = await client.request("DELETE", "/v1/tables")
    assert (status, body["code"], headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD")
    assert (await client.get("/static/nothing.js"))[1]["code"] == "not_found"
    assert (await client.get("/static/..%2Fapplication.py"))[0] == 404


async def test_forwarded_read_is_answered_here_only(client: CheckedClient, queries: FakeQueries) -> None:
    await client.get(f"/v1/tables/latest/keys/{BTC}", headers={HOP_HEADER: "1"})
    await client.get(f"/v1/tables/latest/keys/{BTC}")
    assert [arguments["local_only"] for _, arguments in queries.calls] == [True, False]


async def test_failure_inside_is_a_problem_without_its_text(
    make_client: MakeClient, queries: FakeQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    client = await make_client()
    monkeypatch.setattr(queries, "get", fail)
    status, body, _ = await client.get(f"/v1/tables/latest/keys/{BTC}")
    assert (status, body["code"]) == (500, "internal")
    assert "secret" not in json.dumps(body)


async def test_requests_are_counted_by_template_and_never_by_path(client: CheckedClient, metrics: Metrics) -> None:
    await client.get(f"/v1/tables/latest/keys/{BTC}")
    await client.get("/v1/tables/latest/keys/other")
    await client.get("/no/such/path")
    text = (await client.get("/metrics"))[1]
    assert 'streamapp_requests_total{route="/v1/tables/{table}/keys/{key}",status="200"} 1.0' in text
    assert 'streamapp_requests_total{route="/v1/tables/{table}/keys/{key}",status="404"} 1.0' in text
    assert 'streamapp_requests_total{route="unmatched",status="404"} 1.0' in text
    assert "BTC-USD" not in text
    assert "/no/such/path" not in text
