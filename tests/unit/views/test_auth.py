import hashlib

import pytest
from aiohttp.test_utils import make_mocked_request

from streamapp.clock import ManualClock
from streamapp.errors import ConfigurationError, RateLimitedError, UnauthorizedError, UnsafeBindError
from streamapp.metrics import Metrics
from streamapp.queries.model import HOP_HEADER
from streamapp.queries.peers import hop_token
from streamapp.settings import Settings
from streamapp.views.auth import COOKIE, Authenticator, FailureLimit, new_token, parse_tokens, peer_of
from streamapp.views.binding import check_bind, is_loopback
from tests.unit.views.conftest import BTC, MakeClient

READER, SCRAPER, ADMIN = "reader-token", "scraper-token", "admin-token"


def entry(name: str, scopes: str, token: str) -> str:
    return f"{name}:{scopes}:{hashlib.sha256(token.encode()).hexdigest()}"


TOKENS = ", ".join([entry("r", "read", READER), entry("m", "metrics", SCRAPER), entry("a", "admin", ADMIN)])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


MATRIX = {
    f"/v1/tables/latest/keys/{BTC}": {None: 401, "wrong": 401, READER: 200, SCRAPER: 403, ADMIN: 200},
    "/v1/tables": {None: 401, "wrong": 401, READER: 200, SCRAPER: 403, ADMIN: 200},
    "/v1/tables/nothing": {None: 401, "wrong": 401, READER: 404, SCRAPER: 403, ADMIN: 404},
    "/v1/tables/nothing/changes": {None: 401, "wrong": 401, READER: 404, SCRAPER: 403, ADMIN: 404},
    "/v1/changes?of=nothing": {None: 401, "wrong": 401, READER: 404, SCRAPER: 403, ADMIN: 404},
    "/v1/status": {None: 401, "wrong": 401, READER: 200, SCRAPER: 403, ADMIN: 200},
    "/openapi.json": {None: 401, "wrong": 401, READER: 200, SCRAPER: 403, ADMIN: 200},
    "/metrics": {None: 401, "wrong": 401, READER: 403, SCRAPER: 200, ADMIN: 200},
    "/health/live": {None: 200, "wrong": 200, READER: 200},
    "/health/ready": {None: 200, "wrong": 200, READER: 200},
    "/": {None: 200, "wrong": 200, READER: 200},
    "/session": {None: 200, "wrong": 200, READER: 200},
}


@pytest.mark.parametrize("path", MATRIX)
async def test_each_scope_opens_its_routes_and_no_other(make_client: MakeClient, path: str) -> None:
    client = await make_client(api_tokens=TOKENS)
    for token, expected in MATRIX[path].items():
        status, body, headers = await client.get(path, headers={} if token is None else bearer(token))
        assert status == expected, (path, token)
        if status == 401:
            assert body["code"] == "unauthorized"
            assert headers["WWW-Authenticate"].startswith("Bearer")
        if status == 403:
            assert body["code"] == "forbidden"


@pytest.mark.parametrize("header", ["Basic cmVhZGVy", "Bearer", "Bearer ", READER, "Bearer " + "x" * 4_000])
async def test_malformed_credentials_are_unauthorized(make_client: MakeClient, header: str) -> None:
    client = await make_client(api_tokens=TOKENS)
    assert (await client.get("/v1/tables", headers={"Authorization": header}))[0] == 401


async def test_scheme_is_read_without_regard_to_case(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS)
    assert (await client.get("/v1/tables", headers={"Authorization": f"bEARER {READER}"}))[0] == 200


async def test_worker_that_forwards_is_admitted_to_reads_only(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS)
    peer = {HOP_HEADER: hop_token(Settings(api_tokens=TOKENS))}
    assert (await client.get(f"/v1/tables/latest/keys/{BTC}", headers=peer))[0] == 200
    assert (await client.get("/metrics", headers=peer))[0] == 401
    for wrong in ("1", hop_token(Settings()), hop_token(Settings(api_tokens=TOKENS + ","))):
        assert (await client.get(f"/v1/tables/latest/keys/{BTC}", headers={HOP_HEADER: wrong}))[0] == 401


async def test_without_tokens_loopback_is_open(make_client: MakeClient) -> None:
    client = await make_client()
    assert (await client.get("/v1/tables"))[0] == 200
    assert (await client.get("/session"))[1] == {"login_required": False, "allowed": True, "name": None}


async def test_login_sets_a_strict_cookie_that_reads_until_logout(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS)
    assert (await client.get("/session"))[1] == {"login_required": True, "allowed": False, "name": None}
    status, body, headers = await client.request("POST", "/login", json={"token": f" {READER} "})
    assert (status, body) == (200, {"name": "r", "scopes": ["read"]})
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    client.client.session.cookie_jar.clear()
    stored = {"Cookie": f"{COOKIE}={READER}"}
    assert (await client.get("/v1/tables", headers=stored))[0] == 200
    assert (await client.get("/metrics", headers=stored))[0] == 403
    assert (await client.get("/session", headers=stored))[1]["allowed"] is True
    _, _, headers = await client.request("POST", "/logout", headers=stored)
    assert f'{COOKIE}=""' in headers["Set-Cookie"]
    assert "Max-Age=0" in headers["Set-Cookie"]


async def test_header_wins_over_the_cookie(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS)
    both = {"Cookie": f"{COOKIE}={READER}", **bearer("wrong")}
    assert (await client.get("/v1/tables", headers=both))[0] == 401


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "token"),
        (b'{"token": 5}', "token"),
        (b'{"token": " "}', "token"),
    ],
)
async def test_malformed_login_is_a_bad_parameter(make_client: MakeClient, body: bytes, parameter: str) -> None:
    client = await make_client(api_tokens=TOKENS)
    status, answer, _ = await client.request("POST", "/login", data=body)
    assert (status, answer["code"], answer["parameter"]) == (400, "bad_parameter", parameter)


async def test_login_of_another_site_is_refused(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS)
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        for path in ("/login", "/logout"):
            status, body, answered = await client.request("POST", path, json={"token": READER}, headers=headers)
            assert (status, body["code"]) == (403, "forbidden")
            assert "Set-Cookie" not in answered


async def test_failed_logins_run_into_a_limit_that_passes(make_client: MakeClient, clock: ManualClock) -> None:
    client = await make_client(api_tokens=TOKENS, login_failures_max=3, login_window_ms=60_000)
    for _ in range(3):
        assert (await client.request("POST", "/login", json={"token": "wrong"}))[0] == 401
    clock.advance(10_000)
    status, body, headers = await client.request("POST", "/login", json={"token": READER})
    assert (status, body["code"], headers["Retry-After"]) == (429, "rate_limited", "50")
    clock.advance(50_000)
    assert (await client.request("POST", "/login", json={"token": READER}))[0] == 200


async def test_guessed_tokens_run_into_the_same_limit_and_known_ones_go_on(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS, login_failures_max=3, login_window_ms=60_000)
    statuses = [(await client.get("/v1/tables", headers=bearer(f"guess-{number}")))[0] for number in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await client.get("/v1/tables", headers=bearer(READER)))[0] == 200
    assert (await client.request("POST", "/login", json={"token": "guess"}))[0] == 429


def test_a_request_that_is_admitted_twice_is_one_guess() -> None:
    authenticator = Authenticator(Settings(api_tokens=TOKENS, login_failures_max=2), ManualClock(), Metrics())
    for _ in range(2):
        request = make_mocked_request("GET", "/v1/tables", headers=bearer("guess"))
        for _ in range(2):
            with pytest.raises(UnauthorizedError):
                authenticator.authorize(request, "read")
    request = make_mocked_request("GET", "/v1/tables", headers=bearer("guess"))
    for _ in range(2):
        with pytest.raises(RateLimitedError):
            authenticator.authorize(request, "read")


async def test_an_old_cookie_is_no_guess(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS, login_failures_max=3, login_window_ms=60_000)
    for _ in range(5):
        assert (await client.get("/v1/tables", headers={"Cookie": f"{COOKIE}=withdrawn"}))[0] == 401
    assert (await client.request("POST", "/login", json={"token": READER}))[0] == 200


async def test_token_without_read_cannot_log_in(make_client: MakeClient) -> None:
    client = await make_client(api_tokens=TOKENS)
    assert (await client.request("POST", "/login", json={"token": SCRAPER}))[0] == 403


def test_address_of_the_older_kind_counts_for_itself_however_it_is_written() -> None:
    def peer(remote: str) -> str:
        return peer_of(make_mocked_request("GET", "/").clone(remote=remote))

    assert peer("::ffff:192.0.2.1") == peer("192.0.2.1") != peer("::ffff:192.0.2.2")
    assert peer("2001:db8::1") == peer("2001:db8::2%eth0") != peer("2001:db8:0:1::1")


def test_failure_table_stays_bounded() -> None:
    limit = FailureLimit(ManualClock(), 2, 1_000, peers_max=5)
    for number in range(100):
        limit.failed(f"10.0.0.{number}")
    assert len(limit) == 5
    limit.failed("10.0.0.99")
    with pytest.raises(RateLimitedError):
        limit.check("10.0.0.99")
    limit.check("10.0.0.1")


def test_new_token_of_single_keys_fits_its_entry() -> None:
    _, line = new_token("agent", ["read/candles_1m/coinbase:BTC,EUR", "read/latest", "metrics"])
    assert line.startswith("agent:read/candles_1m/coinbase%3ABTC%2CEUR+read/latest+metrics:")
    (token,) = parse_tokens(f"{line}, {entry('r', 'read', READER)}")[:1]
    assert token.access.allows("candles_1m", "coinbase:BTC,EUR-X")
    assert not token.access.allows("candles_1m", "coinbase:BTC")
    assert token.access.allows("latest", "anything")
    assert token.allows("read")
    assert not token.allows("admin")


@pytest.mark.parametrize(
    ("name", "scope", "told"),
    [("a", "read/", "empty parts"), ("a", "read/t/x*", r"\*"), ("a", "write", "unknown scope"), ("a", "read/t/%zz", "hex"),
     ("a,b", "read", "name"), ("a", "met,rics", "64 hex|unknown|must be"), ("a", "read/t/" + "x" * 2_000, "at most")],
)  # fmt: skip
def test_bad_scope_is_refused_with_what_is_wrong(name: str, scope: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        new_token(name, [scope])


def test_admin_token_reads_everything() -> None:
    assert parse_tokens(entry("a", "admin", ADMIN))[0].access.everything
    assert not parse_tokens(entry("m", "metrics", SCRAPER))[0].access.rules


def test_new_token_fits_its_entry() -> None:
    text, line = new_token("laptop", ["read", "metrics"])
    (token,) = parse_tokens(line)
    assert token.digest == hashlib.sha256(text.encode()).digest()
    assert token.scopes == {"read", "metrics"}
    assert text not in line
    assert token.digest.hex() not in repr(token)
    assert new_token("laptop", ["read"])[0] != text


@pytest.mark.parametrize(
    "setting",
    ["x", "a:read", f"a b:read:{'0' * 64}", f"a:write:{'0' * 64}", "a:read:123", f"a:read:{'g' * 64}", f"a::{'0' * 64}",
     f"a:read:{'0' * 64},a:read:{'1' * 64}", f"a:read/:{'0' * 64}", f"a:read/t/v:k:{'0' * 64}", f"a:read/t/k*:{'0' * 64}"],
)  # fmt: skip
def test_bad_token_settings_are_refused_without_their_hash(setting: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_tokens(setting)
    assert "0" * 64 not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]", "LOCALHOST"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_bind(Settings(web_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.com", "127.0.0.1.example.com"])
def test_wider_bind_needs_a_token(host: str) -> None:
    with pytest.raises(UnsafeBindError, match="streamapp token"):
        check_bind(Settings(web_host=host))
    check_bind(Settings(web_host=host, api_tokens=TOKENS))


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:6066", 200), ("127.0.0.1", 200), ("[::1]:6066", 200), ("evil.example", 403),
     ("127.0.0.1.evil.example", 403), ("", 403), ("[::1", 403)],
)  # fmt: skip
async def test_foreign_host_names_are_refused_on_loopback(make_client: MakeClient, host: str, status: int) -> None:
    client = await make_client()
    for path in ("/v1/tables", "/health/live", "/"):
        assert (await client.get(path, headers={"Host": host}))[0] == status
    assert (await client.get("/nowhere", headers={"Host": host}))[0] == (404 if status == 200 else 403)


async def test_named_hosts_and_wider_binds_are_answered(make_client: MakeClient) -> None:
    named = await make_client(web_allowed_hosts="board.example", web_advertised_url="http://w1.example:6066")
    for host in ("board.example:80", "w1.example:6066"):
        assert (await named.get("/v1/tables", headers={"Host": host}))[0] == 200
    wide = await make_client(web_host="0.0.0.0", api_tokens=TOKENS)
    assert (await wide.get("/v1/tables", headers={"Host": "any.example", **bearer(READER)}))[0] == 200
