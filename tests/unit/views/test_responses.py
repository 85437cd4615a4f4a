import gzip

import pytest
from aiohttp.test_utils import make_mocked_request

from streamapp.clock import ManualClock
from streamapp.queries.model import FeedInfo
from streamapp.views.responses import accepts_gzip, matches
from tests.fakes.queries import FakeQueries, candle, latest
from tests.unit.views.conftest import BTC, START, CheckedClient

VALUE = f"/v1/tables/candles_1m/keys/{BTC}"


@pytest.mark.parametrize(
    "path",
    [
        VALUE,
        "/v1/tables",
        "/v1/tables/candles_1m/keys",
        f"{VALUE}/windows",
        f"/v1/tables/candles_1m/values?keys={BTC}",
        "/v1/tables/candles_1m/top?by=close",
        "/openapi.json",
        "/",
    ],
)
async def test_unchanged_answer_is_304_although_time_passes(
    client: CheckedClient, clock: ManualClock, path: str
) -> None:
    _, _, headers = await client.get(path)
    assert headers["ETag"].startswith('W/"')
    clock.advance(5_000)
    status, body, again = await client.get(path, headers={"If-None-Match": f'"other", {headers["ETag"]}'})
    assert (status, body, again["ETag"]) == (304, "", headers["ETag"])


async def test_304_tells_how_fresh_the_unchanged_value_is(
    client: CheckedClient, clock: ManualClock, queries: FakeQueries
) -> None:
    _, _, headers = await client.get(VALUE)
    clock.advance(5_000)
    queries.staleness_ms = 77
    _, _, again = await client.get(VALUE, headers={"If-None-Match": headers["ETag"]})
    assert again["Streamapp-As-Of"] == str(clock.now_ms())
    assert again["Streamapp-Staleness-Ms"] == "77"


async def test_etag_changes_with_value_offset_finality_and_feed(client: CheckedClient, queries: FakeQueries) -> None:
    async def etag() -> str:
        return (await client.get(VALUE))[2]["ETag"]

    seen = [await etag()]
    queries.put("candles_1m", BTC, candle(200.0), start=START)
    seen.append(await etag())
    queries.put("candles_1m", BTC, candle(200.0), start=START)  # another record, the same value
    seen.append(await etag())
    queries.put("candles_1m", BTC, candle(200.0), start=START, final=True)
    seen.append(await etag())
    queries.feed_infos = [FeedInfo("coinbase", True, "connected", "", None, 0)]
    seen.append(await etag())
    queries.feed_infos = [FeedInfo("coinbase", False, "disconnected", "", None, 0)]
    seen.append(await etag())
    assert len(set(seen)) == len(seen)


async def test_a_value_cannot_imitate_the_freshness(client: CheckedClient, queries: FakeQueries) -> None:
    path = "/v1/tables/latest/keys/x"
    queries.put("latest", "x", {**latest(1.0), "side": ',"freshness":{'})
    first = (await client.get(path))[2]["ETag"]
    entry = queries._data["latest"]["x"][0]
    entry.value = {**entry.value, "quote_time": 5}  # the same offset: only the value tells
    assert (await client.get(path))[2]["ETag"] != first


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("*", True),
        ("gzip;q=0", False),
        ("br", False),
        ("gzipped", False),
    ],
)
def test_gzip_is_used_only_where_accepted(header: str, expected: bool) -> None:
    assert accepts_gzip(make_mocked_request("GET", "/", headers={"Accept-Encoding": header})) is expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [('W/"a"', True), ('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False), ("", False)],
)
def test_etags_compare_weakly(asked: str, expected: bool) -> None:
    assert matches(asked, 'W/"a"') is expected


async def test_big_answers_are_gzipped_and_small_ones_are_not(client: CheckedClient) -> None:
    async def raw(path: str, accept: str) -> tuple[bytes, str | None]:
        session = client.client.session
        session._auto_decompress = False
        async with session.get(client.client.make_url(path), headers={"Accept-Encoding": accept}) as response:
            return await response.read(), response.headers.get("Content-Encoding")

    plain, none = await raw("/v1/tables", "identity")
    packed, coding = await raw("/v1/tables", "gzip")
    assert (none, coding) == (None, "gzip")
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 3
    assert (await raw(VALUE, "gzip"))[1] is None


async def test_head_has_the_headers_of_get_and_no_body(client: CheckedClient) -> None:
    async with client.client.head(VALUE) as head, client.client.get(VALUE) as get:
        assert head.status == 200
        assert await head.read() == b""
        assert head.headers["ETag"] == get.headers["ETag"]
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize("path", [VALUE, "/v1/tables/none", "/nowhere", "/", "/metrics", "/health/live"])
async def test_every_answer_has_the_security_headers_and_no_cors(client: CheckedClient, path: str) -> None:
    _, _, headers = await client.get(path, headers={"Origin": "https://elsewhere.example"})
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in headers if name.lower().startswith("access-control")]


async def test_page_forbids_everything_foreign(client: CheckedClient) -> None:
    _, body, headers = await client.get("/")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "://" not in body.replace("http://www.w3.org/", "")
    assert " style=" not in body
    assert "<script>" not in body
