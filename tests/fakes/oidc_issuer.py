"""An issuer that others wrote (npm's oidc-provider), as a process on loopback, and a person who uses its pages."""

import base64
import http.client
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp

from tests.fakes.node_packages import NodePackages
from tests.fakes.ports import HOST
from tests.fakes.processes import Child

_HERE = Path(__file__).parent / "oidc"
_PAGES_MAX = 10
_TIMEOUT_S = 30.0


class OidcIssuer(Child):
    """Registers clients, lets accounts log in, and signs access tokens for the audiences that it knows.

    Args:
        folder: where its packages are installed; the test is skipped where that cannot be done.
        accounts: login -> the scopes that it may pass on to a client.
        clients: those that act for themselves: name -> seconds that their tokens live; the secret is the name's `secret_of`.
        resources: the audiences.
        scopes: all that there are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        accounts: Mapping[str, Sequence[str]],
        clients: Mapping[str, int],
        resources: Sequence[str],
        scopes: Sequence[str],
    ) -> None:
        place = folder / "oidc-provider"
        shutil.copytree(_HERE, place, ignore=shutil.ignore_patterns("node_modules"))
        packages = NodePackages(place)
        given = {
            "accounts": accounts,
            "clients": {
                name: {"secret": self.secret_of(name), "lifetime_s": lifetime_s} for name, lifetime_s in clients.items()
            },
            "resources": resources,
            "scopes": scopes,
        }
        super().__init__("issuer", [str(packages.node), str(place / "server.mjs"), json.dumps(given)], folder)

    @staticmethod
    def secret_of(client: str) -> str:
        """The secret of a client that acts for itself."""
        return f"{client}-".ljust(48, "x")

    @property
    def url(self) -> str:
        """Its identifier."""
        return self.line(r"^issuer (\S+)")

    def token(self, client: str, resource: str, scope: str | None = None) -> str:
        """An access token of a client that acts for itself."""
        credentials = base64.b64encode(f"{client}:{self.secret_of(client)}".encode()).decode()
        form = {"grant_type": "client_credentials", "resource": resource, **({"scope": scope} if scope else {})}
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPConnection(HOST, urlsplit(self.url).port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", "/token", urlencode(form), headers)
            answer = connection.getresponse()
            document = json.loads(answer.read())
            assert answer.status == 200, document
            return str(document["access_token"])
        finally:
            connection.close()


class Person:
    """Follows a client's link in a browser without scripts: logs in, agrees to what is asked, and is sent back.

    Attributes:
        asked: what the links asked for, in order.
    """

    def __init__(self, login: str, redirect_uri: str) -> None:
        self.asked: list[dict[str, str]] = []
        self._login = login
        self._redirect_uri = redirect_uri

    async def follow(self, link: str) -> dict[str, Any]:
        """The parameters with which the issuer sends the browser back to the client."""
        self.asked.append({name: values[0] for name, values in parse_qs(urlsplit(link).query).items()})
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        # cookies of an address instead of a name are kept only when that is asked for
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as browser:
            method, url = "GET", link
            for _ in range(_PAGES_MAX):
                form = {"login": self._login} if method == "POST" else None
                async with browser.request(method, url, data=form, allow_redirects=False) as page:
                    text = await page.text()
                    assert page.status in (200, 302, 303), f"{url}: {page.status} {text[:2_000]}"
                    method = "GET" if page.status != 200 else "POST"
                    url = urljoin(url, page.headers.get("Location", url))
                if url.startswith(self._redirect_uri):
                    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        raise AssertionError(f"the issuer has shown {_PAGES_MAX} pages and not sent {self._login} back")
