"""Access tokens of an issuer elsewhere: what lets somebody in, what does not, and what happens while the issuer is away."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from streamapp.clock import ManualClock
from streamapp.errors import ConfigurationError, UnsafeBindError
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.views.application import application, runner_options, with_point_reads
from streamapp.views.auth import Authenticator, new_token
from streamapp.views.binding import check_bind
from streamapp.views.jwks import Jwks
from tests.fakes.oauth_issuer import Issuer
from tests.fakes.queries import FakeQueries, latest

BTC, ETH = "coinbase:BTC-USD", "coinbase:ETH-USD"
AUDIENCE = "http://worker.example/mcp"
SECRET = "x" * 32
BEGIN = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    fake = Issuer()
    await fake.start()
    fake.rotate()
    yield fake
    await fake.stop()


class Worker:
    """A server that takes the issuer's tokens; its clock stands still at first, at the real time."""

    def __init__(self, issuer: Issuer, **changes: Any) -> None:
        self.clock = ManualClock(int(time.time() * 1000))
        self.metrics = Metrics()
        self.queries = FakeQueries(clock=self.clock)
        for key in (BTC, ETH):
            self.queries.put("latest", key, latest(1.0))
        given = {"oauth_issuer": issuer.url, "oauth_audience": AUDIENCE, "cluster_secret": SECRET, **changes}
        self.settings = Settings(**given)
        self.app = application(self.queries, self.settings, metrics=self.metrics, clock=self.clock)
        self.runner = web.AppRunner(self.app, **runner_options(self.settings))
        self.session = aiohttp.ClientSession()
        self.url = ""

    async def start(self) -> None:
        await self.runner.setup()
        assert self.runner.server is not None
        handler = self.runner.server.request_handler
        self.runner.server.request_handler = with_point_reads(self.app, handler)  # type: ignore[method-assign]
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self.session.close()
        await self.runner.cleanup()

    async def ask(
        self, token: str | None, path: str = f"/v1/tables/latest/keys/{BTC}", method: str = "GET", **options: Any
    ) -> tuple[int, Any, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.session.request(method, self.url + path, headers=headers, **options) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else text, answer.headers


@pytest.fixture
async def serve(issuer: Issuer) -> AsyncIterator[Any]:
    started: list[Worker] = []

    async def start(**changes: Any) -> Worker:
        started.append(Worker(issuer, **changes))
        await started[-1].start()
        return started[-1]

    yield start
    for worker in started:
        await worker.stop()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("metadata", ["oauth", "oidc", "none"])
async def test_good_token_reads_on_every_way(serve: Any, issuer: Issuer, algorithm: str, metadata: str) -> None:
    issuer.rotate(algorithm)
    issuer.metadata = metadata
    worker = await serve(oauth_jwks_url=f"{issuer.url}/keys" if metadata == "none" else None)
    token = issuer.token(aud=["another", AUDIENCE])
    for _ in range(3):
        assert (await worker.ask(token))[0] == 200
    assert (await worker.ask(token, "/v1/operations/list_tables", "POST", json={}))[0] == 200
    accepts = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {token}"}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": BEGIN}
    async with worker.session.post(f"{worker.url}/mcp", json=begin, headers=accepts) as answer:
        assert answer.status == 200
    assert issuer.fetches == 1
    counted = worker.metrics.operation_calls.labels("list_tables", "oauth:alice", "ok")
    assert counted._value.get() == 1


def forged(issuer: Issuer, kind: str) -> str:
    now = int(time.time())
    kid = list(issuer.private)[-1]
    if kind == "alg none":
        return jwt.encode(issuer.claims(), None, "none", headers={"kid": kid})
    if kind == "public key as secret":
        head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode()).rstrip(b"=")
        body = base64.urlsafe_b64encode(json.dumps(issuer.claims()).encode()).rstrip(b"=")
        mac = jwt.get_algorithm_by_name("HS256").sign(head + b"." + body, issuer.public_pem(kid))
        return b".".join([head, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    if kind == "another key":
        other = Issuer()
        other.url = issuer.url
        other.rotate()
        return other.token()
    if kind == "changed payload":
        head, _, mac = issuer.token().split(".")
        body = base64.urlsafe_b64encode(json.dumps(issuer.claims(sub="root", scope="admin")).encode()).rstrip(b"=")
        return f"{head}.{body.decode()}.{mac}"
    if kind == "no signature":
        return issuer.token().rpartition(".")[0] + "."
    changes: dict[str, dict[str, Any]] = {
        "wrong issuer": {"iss": "https://elsewhere.example"},
        "issuer with a slash": {"iss": issuer.url + "/"},
        "wrong audience": {"aud": "http://worker.example"},
        "no audience": {"aud": None},
        "no issuer": {"iss": None},
        "no end": {"exp": None},
        "expired": {"exp": now - 120},
        "not yet": {"nbf": now + 120},
        "made tomorrow": {"iat": now + 86_400},
        "nobody": {"sub": None, "client_id": None},
        "end as text": {"exp": "soon"},
        "oversized": {"padding": "x" * 8_000},
        "too many scopes": {"scope": " ".join(f"s{number}" for number in range(100))},
        "too many tables": {"scope": " ".join(f"read/t{number}" for number in range(50))},
    }
    headers: dict[str, dict[str, Any]] = {
        "identity token": {"typ": "id+jwt"},
        "unknown extension": {"crit": ["exotic"], "exotic": 1},
        "key in the header": {"jwk": {"kty": "oct", "k": "eA"}, "kid": "nothing"},
        "path as key": {"kid": "../../dev/null"},
    }
    return issuer.token(list(issuer.private)[-1], headers.get(kind), **changes.get(kind, {}))


@pytest.mark.parametrize(
    "kind",
    ["alg none", "public key as secret", "another key", "changed payload", "no signature", "wrong issuer",
     "issuer with a slash", "wrong audience", "no audience", "no issuer", "no end", "expired", "not yet", "made tomorrow",
     "nobody", "end as text", "too many scopes", "too many tables", "identity token", "unknown extension",
     "key in the header", "path as key"],
)  # fmt: skip
async def test_token_that_does_not_hold_lets_nobody_in(
    serve: Any, issuer: Issuer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.rotate("RS256" if kind == "public key as secret" else "ES256")
    worker = await serve()
    token = forged(issuer, kind)
    for method, path in (("GET", f"/v1/tables/latest/keys/{BTC}"), ("HEAD", "/v1/tables"), ("POST", "/mcp")):
        status, _, headers = await worker.ask(token, path, method)
        assert status == 401
        assert 'error="invalid_token"' in headers["WWW-Authenticate"]
        metadata = "http://worker.example/.well-known/oauth-protected-resource/mcp"
        assert f'resource_metadata="{metadata}"' in headers["WWW-Authenticate"]
    assert token not in caplog.text
    assert (await worker.ask(issuer.token()))[0] == 200, "and the next good one does"


async def test_signature_that_is_not_on_the_list_of_algorithms_is_refused(serve: Any, issuer: Issuer) -> None:
    worker = await serve(oauth_algorithms="RS256, EdDSA")
    assert (await worker.ask(issuer.token()))[0] == 401
    assert issuer.fetches == 0, "before anything is fetched for it"
    issuer.rotate("EdDSA", keep=True)
    assert (await worker.ask(issuer.token()))[0] == 200


async def test_invented_keys_take_no_memory(issuer: Issuer) -> None:
    clock = ManualClock()
    jwks = Jwks(issuer.url, None, clock, timeout_ms=5_000, refresh_ms=1_000, max_age_ms=10_000, pause_ms=1)
    for number in range(50):
        clock.advance(1)
        assert await jwks.find(f"invented-{number}", "ES256") is None
    assert issuer.fetches > 1
    assert await jwks.find("key-1", "ES256") is not None
    assert await jwks.find("key-1", "RS256") is None
    assert len(jwks._made) == 1
    await jwks.close()


ODD_KEYS: list[Any] = [
    {"kty": "EC", "crv": ["P-256"]},
    {"kty": "EC", "crv": "P-256", "key_ops": 5},
    {"kty": "EC", "crv": "P-256", "key_ops": {"verify": []}},
    {"kty": ["EC"]},
    "text",
    None,
]


@pytest.mark.parametrize("odd", ODD_KEYS)
async def test_odd_entry_among_the_keys_spoils_no_other(serve: Any, issuer: Issuer, odd: Any) -> None:
    token = issuer.token()
    issuer.listed = [odd, *issuer.listed]
    worker = await serve()
    assert (await worker.ask(token))[0] == 200


async def test_oversized_token_is_not_looked_at(serve: Any, issuer: Issuer) -> None:
    worker = await serve()
    status, _, _ = await worker.ask(issuer.token(padding="x" * 5_950))
    assert status in (400, 401, 431)
    assert issuer.fetches == 0


async def test_token_ends_though_it_is_remembered(serve: Any, issuer: Issuer) -> None:
    worker = await serve(oauth_leeway_ms=0)
    token = issuer.token(exp=int(time.time()) + 30)
    assert (await worker.ask(token))[0] == 200
    worker.clock.advance(31_000)
    # the remembered answer has ended; the library goes by the real time, by which the token still holds
    authenticator = Authenticator(worker.settings, worker.clock, Metrics())
    assert authenticator.oauth is not None
    first = await authenticator.oauth.check(token)
    assert authenticator.oauth.known(token) is None
    assert first.caller.expires_ms is not None
    assert first.caller.expires_ms <= worker.clock.now_ms()
    await authenticator.close()


async def test_remembered_tokens_are_bounded_and_checked_again(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamapp.views.oauth._REMEMBERED_MAX", 3)
    monkeypatch.setattr("streamapp.views.oauth._LABELS_MAX", 2)
    settings = Settings(oauth_issuer=issuer.url, oauth_audience=AUDIENCE, cluster_secret=SECRET)
    clock = ManualClock(int(time.time() * 1000))
    oauth = Authenticator(settings, clock, Metrics()).oauth
    assert oauth is not None
    tokens = [issuer.token(sub=f"user-{number}") for number in range(6)]
    labels = [(await oauth.check(token)).caller.metric_label for token in tokens]
    assert labels == ["oauth:user-0", "oauth:user-1"] + ["oauth:other"] * 4
    assert [oauth.known(token) is not None for token in tokens] == [False] * 3 + [True] * 3
    clock.advance(60_000)
    assert oauth.known(tokens[-1]) is None


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"scp": "openid read"}, 200),
        ({"scp": ["openid", "read"]}, 200),
        ({"scp": [f"read/latest/{BTC}"]}, 200),
        ({"scp": ["read/candles_1m"]}, 403),
        ({"scp": ["openid read"]}, 403),
        ({"scp": ["read", 5]}, 403),
        ({"scp": {"read": True}}, 403),
        ({"scp": []}, 403),
        ({"scp": "read", "scope": "openid"}, 403),
        ({"scp": "read", "scope": ""}, 403),
        ({"scp": [f"s{number}" for number in range(100)]}, 401),
    ],
)
async def test_scopes_of_issuers_that_write_scp_in_the_place_of_scope(
    serve: Any, issuer: Issuer, claims: dict[str, Any], status: int
) -> None:
    worker = await serve()
    token = issuer.token(**{"scope": None, **claims})
    assert (await worker.ask(token, f"/v1/tables/latest/keys/{BTC}"))[0] == status


@pytest.mark.parametrize(
    ("scope", "btc", "eth", "metrics"),
    [
        ("read", 200, 200, 403),
        ("openid profile", 403, 403, 403),
        ("", 403, 403, 403),
        (None, 403, 403, 403),
        ("READ", 403, 403, 403),
        (f"read/latest/{BTC}", 200, 403, 403),
        ("read/latest/coinbase%3ABTC metrics", 200, 403, 200),
        ("read/latest/%zz read/", 403, 403, 403),
        ("read/candles_1m", 403, 403, 403),
        ("admin", 200, 200, 200),
        (["read"], 403, 403, 403),
    ],
)
async def test_scopes_of_a_token_open_what_they_do_for_others(
    serve: Any, issuer: Issuer, scope: Any, btc: int, eth: int, metrics: int
) -> None:
    worker = await serve()
    token = issuer.token(scope=scope)
    btc_path, eth_path = (f"/v1/tables/latest/keys/{key}" for key in (BTC, ETH))
    for path, expected in ((btc_path, btc), (eth_path, eth), ("/metrics", metrics)):
        for _ in range(2):  # on the ordinary way at first, on the quick one then
            status, body, headers = await worker.ask(token, path)
            assert status == expected, path
        if expected == 403:
            assert body["code"] == "forbidden"
            assert 'error="insufficient_scope"' in headers["WWW-Authenticate"]


async def test_rotated_key_is_fetched_and_invented_ones_only_so_often(serve: Any, issuer: Issuer) -> None:
    worker = await serve(oauth_jwks_pause_ms=10_000)
    later = int(time.time()) + 100_000
    old = issuer.token(exp=later)
    assert (await worker.ask(old))[0] == 200
    new_kid = issuer.rotate(keep=True)
    new = issuer.token(new_kid, exp=later)
    assert (await worker.ask(new))[0] == 401, "the last fetch is too young"
    worker.clock.advance(10_000)
    assert (await worker.ask(new))[0] == 200
    assert issuer.fetches == 2
    for number in range(20):
        assert (await worker.ask(issuer.token(header={"kid": f"invented-{number}"})))[0] == 401
    assert issuer.fetches == 2
    issuer.rotate()  # the old keys are withdrawn
    worker.clock.advance(600_000)
    assert (await worker.ask(issuer.token(exp=later)))[0] == 200
    assert (await worker.ask(old))[0] == 401


async def test_keys_are_kept_while_the_issuer_is_down_and_not_for_ever(serve: Any, issuer: Issuer) -> None:
    worker = await serve(oauth_jwks_max_age_ms=3_600_000)
    later = int(time.time()) + 100_000
    assert (await worker.ask(issuer.token()))[0] == 200
    issuer.failing = True
    for number in range(5):
        worker.clock.advance(650_000)
        assert (await worker.ask(issuer.token(jti=str(number), exp=later)))[0] == 200
    worker.clock.advance(650_000)
    status, body, headers = await worker.ask(issuer.token(exp=later))
    assert (status, body["code"], headers["Retry-After"]) == (503, "issuer_unreachable", "10")
    issuer.failing = False
    worker.clock.advance(10_000)
    assert (await worker.ask(issuer.token(exp=later)))[0] == 200


async def test_silent_issuer_holds_up_nobody_else(serve: Any, issuer: Issuer) -> None:
    token, entry = new_token("laptop", ["read"])
    worker = await serve(api_tokens=entry, oauth_timeout_ms=300)
    issuer.hanging = asyncio.Event()
    waiting = [asyncio.create_task(worker.ask(issuer.token(jti=str(number)))) for number in range(5)]
    async with asyncio.timeout(30):
        while not issuer.fetches:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
        assert (await worker.ask(token))[0] == 200
        assert {status for status, _, _ in await asyncio.gather(*waiting)} == {503}
    assert issuer.fetches == 1
    issuer.hanging.set()


@pytest.mark.parametrize("kind", ["oversized", "too many", "secrets", "small", "not json", "other issuer"])
async def test_list_of_keys_that_cannot_be_trusted_is_not_taken(serve: Any, issuer: Issuer, kind: str) -> None:
    token = issuer.token()
    if kind == "oversized":
        issuer.padding = 300_000
    elif kind == "too many":
        issuer.listed = issuer.listed * 101
    elif kind == "secrets":
        issuer.listed = [{"kty": "oct", "k": "eHh4", "kid": "key-1", "alg": "HS256"}]
    elif kind == "small":
        issuer.listed = [{"kty": "RSA", "kid": "key-1", "e": "AQAB", "n": "sXch"}]
    elif kind == "not json":
        issuer.listed = None  # type: ignore[assignment]
    else:
        issuer.named = "https://elsewhere.example"
    worker = await serve()
    assert (await worker.ask(token))[0] in (401, 503)
    assert (await worker.ask(token, "/mcp", "POST"))[0] in (401, 503)


async def test_stream_ends_with_its_token(serve: Any, issuer: Issuer) -> None:
    worker = await serve(oauth_leeway_ms=0)
    token = issuer.token(exp=int(time.time()) + 3)
    headers = {"Authorization": f"Bearer {token}"}
    async with asyncio.timeout(30):
        async with worker.session.get(f"{worker.url}/v1/tables/latest/changes", headers=headers) as answer:
            assert answer.status == 200
            # the connection ends, in the middle of the stream
            with contextlib.suppress(aiohttp.ClientError):
                while await answer.content.readany():
                    pass
    assert (await worker.ask(issuer.token()))[0] == 200


async def test_session_of_a_subject_serves_no_token_of_it_that_opens_less(serve: Any, issuer: Issuer) -> None:
    worker = await serve()
    accepts = {"Accept": "application/json, text/event-stream"}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": BEGIN}
    wide = {"Authorization": f"Bearer {issuer.token()}", **accepts}
    async with worker.session.post(f"{worker.url}/mcp", json=begin, headers=wide) as answer:
        session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "Mcp-Protocol-Version": "2025-06-18"}
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    for changes, status in (({"scope": "read/latest"}, 404), ({"sub": "bob"}, 404), ({"jti": "renewed"}, 200)):
        headers = {"Authorization": f"Bearer {issuer.token(**changes)}", **accepts, **session}
        async with worker.session.post(f"{worker.url}/mcp", json=listing, headers=headers) as answer:
            assert answer.status == status, changes


async def test_clients_learn_whom_to_ask(serve: Any, issuer: Issuer) -> None:
    worker = await serve(oauth_audience=None, web_advertised_url="http://worker.example/")
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
        status, body, _ = await worker.ask(None, path)
        assert status == 200
        assert body["resource"] == AUDIENCE
        assert body["authorization_servers"] == [issuer.url]
        assert body["bearer_methods_supported"] == ["header"]
        async with worker.session.get(worker.url + path, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
    for method, path in (("GET", "/v1/tables"), ("POST", "/mcp")):
        status, _, headers = await worker.ask(None, path, method)
        assert status == 401
        challenge = headers["WWW-Authenticate"]
        assert 'resource_metadata="http://worker.example/.well-known/oauth-protected-resource/mcp"' in challenge
        assert 'scope="read"' in challenge
        assert "error=" not in challenge
    assert (await worker.ask(issuer.token()))[0] == 200


@pytest.mark.parametrize("scopes", ["read", "read/latest read/candles_1m/coinbase%3ABTC-"])
async def test_every_refusal_says_what_to_ask_for(serve: Any, issuer: Issuer, scopes: str) -> None:
    worker = await serve(oauth_scopes=scopes)
    _, metadata, _ = await worker.ask(None, "/.well-known/oauth-protected-resource/mcp")
    assert metadata["scopes_supported"] == scopes.split(), "a client may ask for all that is listed"
    nothing, narrow = issuer.token(scope="openid"), issuer.token(scope=f"read/latest/{BTC}")
    foreign = issuer.token(aud="http://elsewhere.example/mcp")
    for token, path, status in (
        (None, "/v1/tables", 401),
        ("nonsense", "/v1/tables", 401),
        (foreign, "/v1/tables", 401),
        (nothing, "/v1/tables", 403),
        (narrow, f"/v1/tables/latest/keys/{ETH}", 403),
    ):
        found, _, headers = await worker.ask(token, path)
        assert found == status
        assert f'scope="{scopes}"' in headers["WWW-Authenticate"], (token, path)
    _, _, headers = await worker.ask(narrow, "/metrics")
    assert 'scope="metrics"' in headers["WWW-Authenticate"], "reading is not what is missing there"


async def test_without_an_issuer_there_is_no_metadata() -> None:
    worker = Worker(Issuer(), oauth_issuer=None)
    await worker.start()
    try:
        assert (await worker.ask(None, "/.well-known/oauth-protected-resource"))[0] == 404
        assert (await worker.ask(None))[0] == 200
    finally:
        await worker.stop()


@pytest.mark.parametrize(
    "name", ["access_token", "token", "Access-Token", "acc%65ss_token", "TOKEN", "api_key", "token%20"]
)
@pytest.mark.parametrize("path", [f"/v1/tables/latest/keys/{BTC}", "/mcp", "/", "/metrics", "/health/live", "/nowhere"])
async def test_token_in_the_address_is_refused_and_logged_nowhere(
    serve: Any, issuer: Issuer, caplog: pytest.LogCaptureFixture, name: str, path: str
) -> None:
    caplog.set_level("DEBUG")
    worker = await serve()
    token = issuer.token()
    from yarl import URL

    for headers in ({}, {"Authorization": f"Bearer {token}"}):
        url = URL(f"{worker.url}{path}?{name}=s3cr3t-{token}", encoded=True)
        async with worker.session.get(url, headers=headers) as answer:
            assert answer.status == 400
            text = await answer.text()
            assert "s3cr3t" not in text
            assert json.loads(text)["code"] == "bad_parameter"
    own = [record for record in caplog.records if record.name.startswith("streamapp")]
    assert not any("s3cr3t" in record.getMessage() for record in own)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"oauth_issuer": "http://issuer.example"}, "https"),
        ({"oauth_issuer": "https://user:pw@issuer.example"}, "https"),
        ({"oauth_issuer": "ftp://127.0.0.1"}, "https"),
        ({"oauth_issuer": "http://127.0.0.1.evil.example"}, "https"),
        ({"oauth_jwks_url": "http://keys.example"}, "oauth_jwks_url"),
        ({"oauth_audience": None}, "web_advertised_url"),
        ({"oauth_algorithms": "RS256,HS256"}, "HS256"),
        ({"oauth_algorithms": "none"}, "none"),
        ({"oauth_algorithms": " "}, "one at least"),
        ({"oauth_scopes": "reed"}, "'reed' opens nothing"),
        ({"oauth_scopes": "read/"}, "oauth_scopes|without empty parts"),
        ({"oauth_scopes": 'metrics read/latest/"x'}, "without quotes"),
        ({"oauth_scopes": " "}, "one at least"),
        ({"cluster_secret": None}, "cluster_secret"),
        ({"cluster_secret": "short"}, "32 characters"),
    ],
)
def test_setting_that_would_let_others_in_is_refused(changes: dict[str, Any], told: str) -> None:
    given = {"oauth_issuer": "https://issuer.example", "oauth_audience": AUDIENCE, "cluster_secret": SECRET, **changes}
    with pytest.raises(ConfigurationError, match=told):
        Authenticator(Settings(**given), ManualClock(), Metrics())


def test_wider_bind_needs_tokens_or_an_issuer() -> None:
    with pytest.raises(UnsafeBindError):
        check_bind(Settings(web_host="0.0.0.0"))
    check_bind(Settings(web_host="0.0.0.0", oauth_issuer="https://issuer.example"))
