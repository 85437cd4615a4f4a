"""Where the server may listen, and for which Host names it answers."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from streamapp.errors import ForbiddenError, UnsafeBindError
from streamapp.settings import Settings
from streamapp.views.auth import protected


def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or a Host name, is this machine's own loopback."""
    name = host.strip().strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Refuse to listen beyond loopback while anybody could read.

    Raises:
        UnsafeBindError: the host is not loopback and no token is configured.
        ConfigurationError: the tokens cannot be read.
    """
    if not protected(settings) and not is_loopback(settings.web_host):
        raise UnsafeBindError(
            f"refusing to listen on {settings.web_host!r} without a token: anybody who reaches it could read everything."
            " Make one with `streamapp token NAME --scopes read` and set STREAMAPP_API_TOKENS,"
            " or listen on 127.0.0.1 (STREAMAPP_WEB_HOST)"
        )


def host_name(authority: str) -> str:
    """The name of a `Host` header, without its port, in lower case."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class HostCheck:
    """Refuses names that are not this server's own, on a loopback bind.

    A page of some other origin can point its own name at 127.0.0.1 and then read an open server as the same origin (DNS
    rebinding); the Host header gives it away. A wider bind needs tokens, which such a page does not have.
    """

    def __init__(self, settings: Settings) -> None:
        self._enforced = is_loopback(settings.web_host)
        self._allowed = {name.strip().lower() for name in settings.web_allowed_hosts.split(",") if name.strip()}
        if settings.web_advertised_url:
            self._allowed.add(urlsplit(settings.web_advertised_url).hostname or "")
        self._seen: set[str] = set()  # headers found good; bounded

    def check(self, request: web.Request) -> None:
        """ForbiddenError for a foreign name."""
        if not self._enforced:
            return
        authority = request.headers.get("Host", "")
        if authority in self._seen:
            return
        name = host_name(authority)
        if not (is_loopback(name) or name in self._allowed):
            raise ForbiddenError(
                f"this server does not answer for the host {name[:100]!r}; reach it as localhost,"
                " or name it in STREAMAPP_WEB_ALLOWED_HOSTS"
            )
        if len(self._seen) < 64:
            self._seen.add(authority)


def same_origin(request: web.Request) -> bool:
    """Whether a browser says that a request comes from a page of this server; true where no browser says anything."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    try:
        return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()
    except ValueError:
        return False
