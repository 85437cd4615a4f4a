"""The official client's own OAuth against a real worker and a real issuer: from a 401 to a tool's answer, and refusals.

The issuer is npm's oidc-provider in a process of its own; without npm the tests are skipped.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.shared.exceptions import MCPError

from streamapp.views.auth import new_token
from tests.fakes.agent_app import KEYS, MODULE, fill
from tests.fakes.asking import Told, ask
from tests.fakes.oidc_issuer import OidcIssuer, Person
from tests.fakes.ports import HOST
from tests.fakes.processes import Topics, Worker, started, until
from tests.fakes.user_apps import UserApp

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MINE, OTHER = KEYS[1], KEYS[2]
PREFIX = "read/candles/x%3AS1"
EVERY_PREFIX = "read/*/x%3AS1"
ELSEWHERE = "http://elsewhere.example/mcp"
ASKED = f"read {PREFIX} read/signals"
SCOPES = ("read", "read/candles", PREFIX, EVERY_PREFIX, "read/signals", "metrics", "admin")
CALLBACK = "http://127.0.0.1:33418/callback"
RUN_S = 60.0


@dataclass(frozen=True)
class Desk:
    """A worker with data, another one for which the same tokens are made, and their issuer."""

    worker: Worker
    second: Worker
    issuer: OidcIssuer

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.worker.port}/mcp"

    def calls(self, caller: str) -> float:
        """Calls of tools that were answered in that name."""
        return self.worker.metric("streamapp_operation_calls_total", caller=caller, outcome="ok")

    def ask(self, path: str, token: str | None, **options: Any) -> Told:
        """A request as a program makes it that got its token elsewhere; both workers say the same."""
        told, same = (ask(worker.port, path, token, **options) for worker in (self.worker, self.second))
        assert (told.status, told.challenge) == (same.status, same.challenge), path
        return told


@pytest.fixture(scope="module")
def desk(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("oauth")
    app = UserApp(Topics(kafka), folder, MODULE)
    first, second = workers = app.worker("first"), app.worker("second")
    audience = f"http://{HOST}:{first.port}/mcp"
    issuer = OidcIssuer(
        folder,
        accounts={"alice": ["read"], "bob": [PREFIX], "carol": ["read/signals"], "dave": ["metrics"]},
        clients={"agent": 600, "brief": 1},
        resources=[audience, ELSEWHERE],
        scopes=SCOPES,
    )
    probe, entry = new_token("probe", ["admin"])
    with issuer:
        for worker in workers:
            worker.headers["Authorization"] = f"Bearer {probe}"
            worker.set_env(
                STREAMAPP_API_TOKENS=entry,
                STREAMAPP_OAUTH_ISSUER=issuer.url,
                STREAMAPP_OAUTH_AUDIENCE=audience,
                STREAMAPP_OAUTH_SCOPES=ASKED,
                STREAMAPP_OAUTH_LEEWAY_MS="0",
                STREAMAPP_CLUSTER_SECRET="c" * 32,
            )
        with started(*workers):
            for worker in workers:
                worker.until_ready()
            app.until_shared(first, second)
            fill(app, first)
            yield Desk(first, second, issuer)


class Storage:
    """What a client keeps between its runs."""

    def __init__(self, token: str | None = None) -> None:
        self.tokens = None if token is None else OAuthToken(access_token=token, expires_in=600, scope="read")
        self.client: OAuthClientInformationFull | None = None
        self.given: list[OAuthToken] = []

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens
        self.given.append(tokens)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Desktop:
    """A client as a desktop application has one: it registers itself and sends its user to the issuer's pages.

    Attributes:
        person: who uses it.
        storage: what it keeps.
        seen: its exchanges, as `METHOD PATH STATUS`.
        provider: the official package's.
    """

    def __init__(self, desk: Desk, login: str, token: str | None = None) -> None:
        self.url = desk.url
        self.person = Person(login, CALLBACK)
        self.storage = Storage(token)
        self.seen: list[str] = []
        self._back: dict[str, str] = {}
        self.provider = OAuthClientProvider(
            desk.url,
            OAuthClientMetadata(redirect_uris=[CALLBACK], client_name="desktop"),
            self.storage,
            self._redirect,
            self._returned,
        )

    async def _redirect(self, link: str) -> None:
        self._back = await self.person.follow(link)

    async def _returned(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**self._back)

    @asynccontextmanager
    async def client(self, mode: str = "2026-07-28") -> AsyncIterator[Client]:
        async with connected(self.url, self.provider, self.seen, mode) as client:
            yield client


@asynccontextmanager
async def connected(
    url: str, auth: httpx2.Auth, seen: list[str] | None = None, mode: str = "2026-07-28"
) -> AsyncIterator[Client]:
    """The official client with that kind of admission."""

    async def note(response: httpx2.Response) -> None:
        if seen is not None:
            seen.append(f"{response.request.method} {response.request.url.path} {response.status_code}")

    async with (
        httpx2.AsyncClient(auth=auth, timeout=RUN_S, event_hooks={"response": [note]}) as http_client,
        Client(streamable_http_client(url, http_client=http_client), mode=mode) as client,
    ):
        yield client


def text_of(result: types.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


async def current(client: Client, *keys: str) -> types.CallToolResult:
    return await client.call_tool("get_current", {"table": "candles", "keys": list(keys)})


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_client_finds_the_issuer_registers_and_calls_a_tool(desk: Desk, mode: str) -> None:
    desktop = Desktop(desk, "alice")

    async def use() -> None:
        async with asyncio.timeout(RUN_S), desktop.client(mode) as client:
            answer = await current(client, MINE, OTHER)
            assert not answer.is_error, text_of(answer)
            assert [item["value"]["close"] for item in answer.structured_content["items"]] == [103.0, 104.0]

    before = desk.calls("oauth:alice")
    asyncio.run(use())
    assert desktop.seen[:7] == [
        "POST /mcp 401",
        "GET /.well-known/oauth-protected-resource/mcp 200",
        "GET /.well-known/oauth-authorization-server 200",
        "POST /reg 201",
        "POST /token 200",
        "POST /mcp 200",
        desktop.seen[6],
    ]
    assert not [line for line in desktop.seen[6:] if "/mcp" not in line]
    (asked,) = desktop.person.asked
    assert asked["resource"] == desk.url
    assert asked["scope"].split() == [*ASKED.split(), "offline_access"]
    assert desktop.storage.tokens is not None
    assert desktop.storage.tokens.scope == "read"
    assert desk.calls("oauth:alice") == before + 1


def test_scope_that_the_issuer_grants_limits_every_tool_and_resource(desk: Desk) -> None:
    async def use() -> None:
        async with asyncio.timeout(RUN_S), Desktop(desk, "bob").client() as client:
            answer = await current(client, MINE)
            assert [item["value"]["close"] for item in answer.structured_content["items"]] == [103.0]
            for tool, given in (
                ("get_current", {"table": "candles", "keys": [OTHER]}),
                ("get_windows", {"table": "candles", "key": OTHER}),
                ("wait_for", {"table": "candles", "key": OTHER, "condition": "close > 0"}),
                ("get_current", {"table": "signals", "keys": [MINE]}),
                ("get_top", {"table": "signals", "by": "score"}),
            ):
                refused = await client.call_tool(tool, given)
                assert refused.is_error, (tool, given)
                assert "error forbidden" in text_of(refused), (tool, given)
            tables = (await client.call_tool("list_tables", {})).structured_content["tables"]
            assert [table["name"] for table in tables] == ["candles"]
            top = await client.call_tool("get_top", {"table": "candles", "by": "close"})
            assert [item["key"] for item in top.structured_content["items"]] == [MINE]
            found = await client.call_tool("find_keys", {"query": "s"})
            assert [one["key"] for one in found.structured_content["keys"]] == [MINE]
            listed = (await client.list_resources()).resources
            assert [str(resource.uri) for resource in listed] == [f"table://candles/{MINE}"]
            with pytest.raises(MCPError, match="forbidden"):
                await client.read_resource(f"table://candles/{OTHER}")
        async with asyncio.timeout(RUN_S), Desktop(desk, "carol").client() as client:
            tables = (await client.call_tool("list_tables", {})).structured_content["tables"]
            assert [table["name"] for table in tables] == ["signals"]
            assert (await current(client, MINE)).is_error

    asyncio.run(use())


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_client_waits_and_subscribes_while_it_calls(desk: Desk, mode: str) -> None:
    async def use() -> None:
        async with asyncio.timeout(RUN_S), Desktop(desk, "bob").client(mode) as client:
            given = {"table": "candles", "key": MINE, "condition": "close > 100000", "timeout_ms": 3_000}
            waiting = asyncio.create_task(client.call_tool("wait_for", given))
            assert not (await current(client, MINE)).is_error
            if mode != "legacy":
                uri = f"table://candles/{MINE}"
                async with client.listen(resource_subscriptions=[uri]) as listening:
                    assert str(getattr(await anext(aiter(listening)), "uri", "")) == uri
                    assert not (await current(client, MINE)).is_error
                with pytest.raises(MCPError, match="forbidden"):
                    async with client.listen(resource_subscriptions=[f"table://candles/{OTHER}"]) as listening:
                        await anext(aiter(listening))
            assert (await waiting).structured_content["held"] is False

    asyncio.run(use())


def test_client_renews_its_token_without_its_user(desk: Desk) -> None:
    desktop = Desktop(desk, "bob")

    async def use() -> None:
        async with asyncio.timeout(RUN_S), desktop.client() as client:
            assert not (await current(client, MINE)).is_error
            begun = len(desktop.seen)
            desktop.provider.context.token_expiry_time = 1.0
            assert not (await current(client, MINE)).is_error
            assert (await current(client, OTHER)).is_error
            assert desktop.seen[begun:] == ["POST /token 200", "POST /mcp 200", "POST /mcp 200"]

    asyncio.run(use())
    assert len(desktop.person.asked) == 1
    first, second = desktop.storage.given
    assert first.access_token != second.access_token
    assert second.scope == PREFIX


@pytest.mark.parametrize("kind", ["another audience", "expired"])
def test_client_whose_token_does_not_hold_gets_a_new_one_and_asks_for_no_more(desk: Desk, kind: str) -> None:
    token = desk.issuer.token("agent", ELSEWHERE, "admin") if kind == "another audience" else expired(desk)
    desktop = Desktop(desk, "alice", token)

    async def use() -> None:
        async with asyncio.timeout(RUN_S), desktop.client() as client:
            assert not (await current(client, MINE)).is_error

    asyncio.run(use())
    assert desktop.seen[0] == "POST /mcp 401"
    (asked,) = desktop.person.asked
    assert asked["scope"].split() == [*ASKED.split(), "offline_access"]


def test_client_whose_token_opens_too_little_asks_again_with_what_is_missing(desk: Desk) -> None:
    desktop = Desktop(desk, "alice", desk.issuer.token("agent", desk.url, "metrics"))

    async def use() -> None:
        async with asyncio.timeout(RUN_S), desktop.client() as client:
            assert not (await current(client, MINE)).is_error

    asyncio.run(use())
    assert desktop.seen[0] == "POST /mcp 403"
    (asked,) = desktop.person.asked
    assert set(ASKED.split()) <= set(asked["scope"].split())


def test_client_whose_user_may_read_nothing_is_refused(desk: Desk) -> None:
    desktop = Desktop(desk, "dave")

    async def use() -> None:
        async with asyncio.timeout(RUN_S), desktop.client() as client:
            await current(client, MINE)

    with pytest.raises(BaseExceptionGroup):
        asyncio.run(use())
    assert [line for line in desktop.seen if line.startswith("POST /mcp")] == ["POST /mcp 401", "POST /mcp 403"]


def test_client_that_acts_for_itself_calls_a_tool(desk: Desk) -> None:
    provider = ClientCredentialsOAuthProvider(
        desk.url, Storage(), "agent", OidcIssuer.secret_of("agent"), issuer=desk.issuer.url
    )

    async def use() -> None:
        async with asyncio.timeout(RUN_S), connected(desk.url, provider) as client:
            assert not (await current(client, MINE, OTHER)).is_error

    before = desk.calls("oauth:agent")
    asyncio.run(use())
    assert desk.calls("oauth:agent") == before + 1


def expired(desk: Desk) -> str:
    """A token of this issuer for this worker that has had its time."""
    token = desk.issuer.token("brief", desk.url, "read")
    until("its time to be over", lambda: ask(desk.worker.port, point(MINE), token).status == 401)
    return token


def point(key: str, table: str = "candles") -> str:
    return f"/v1/tables/{table}/keys/{key}"


def on_every_way(desk: Desk, token: str | None) -> dict[str, Told]:
    """The answers to reads, an operation and the protocol."""
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    return {
        "point": desk.ask(point(MINE), token),
        "keys": desk.ask("/v1/tables/candles/keys", token),
        "changes": desk.ask(f"/v1/tables/candles/changes?key={MINE}", token),
        "operation": desk.ask("/v1/operations/list_tables", token, method="POST", body={}),
        "mcp": desk.ask("/mcp", token, method="POST", body=listing),
    }


@pytest.mark.parametrize("kind", ["none", "another audience", "expired", "without a scope to read", "changed"])
def test_refusal_says_what_does_not_hold_and_where_to_get_a_token(desk: Desk, kind: str) -> None:
    own, foreign = desk.url, ELSEWHERE
    issuer = desk.issuer
    place = urlsplit(own)
    metadata = f'resource_metadata="{place.scheme}://{place.netloc}/.well-known/oauth-protected-resource/mcp"'
    if kind == "none":
        token, status, told = None, 401, ""
    elif kind == "another audience":
        token, status, told = issuer.token("agent", foreign, "admin"), 401, "it is for another audience"
    elif kind == "expired":
        token, status, told = expired(desk), 401, "the access token has expired"
    elif kind == "changed":
        head, _, mac = issuer.token("agent", own, "read").split(".")
        body = issuer.token("agent", own, "admin").split(".")[1]
        token, status, told = f"{head}.{body}.{mac}", 401, "its signature is wrong"
    else:
        token, status, told = issuer.token("agent", own, "metrics"), 403, 'error="insufficient_scope"'
    for way, answer in on_every_way(desk, token).items():
        assert answer.status == status, way
        assert answer.challenge.startswith("Bearer "), way
        assert told in answer.challenge, way
        assert metadata in answer.challenge, way
        assert f'scope="{ASKED}"' in answer.challenge, way
        assert ('error="invalid_token"' in answer.challenge) == (status == 401 and token is not None), way


@pytest.mark.parametrize(
    ("scope", "mine", "other", "elsewhere", "metrics"),
    [
        ("read", 200, 200, 200, 403),
        ("admin", 200, 200, 200, 200),
        ("read/candles", 200, 200, 403, 403),
        (PREFIX, 200, 403, 403, 403),
        (EVERY_PREFIX, 200, 403, 200, 403),
        ("read/signals", 403, 403, 200, 403),
        (f"metrics {PREFIX}", 200, 403, 403, 200),
    ],
)
def test_scopes_of_a_real_token_open_what_they_name(
    desk: Desk, scope: str, mine: int, other: int, elsewhere: int, metrics: int
) -> None:
    token = desk.issuer.token("agent", desk.url, scope)
    opened = {
        point(MINE): mine,
        point(OTHER): other,
        f"{point(MINE)}/windows": mine,
        f"{point(OTHER)}/windows": other,
        f"/v1/tables/candles/changes?key={OTHER}": 403 if other == 403 else None,
        f"/v1/tables/candles/top?by=close&prefixes={OTHER}": 200 if mine == 200 else 403,
        point(MINE, "signals"): elsewhere,
        "/metrics": metrics,
    }
    for path, wanted in opened.items():
        if wanted is None:
            continue  # it would go on
        told = desk.ask(path, token)
        assert told.status in ((200, 404) if wanted == 200 else (wanted,)), (path, told)
        assert ('error="insufficient_scope"' in told.challenge) == (wanted == 403), path
        if "/top" in path and wanted == 200:
            assert [item["key"] for item in told.document["items"]] == ([OTHER] if other == 200 else [])
