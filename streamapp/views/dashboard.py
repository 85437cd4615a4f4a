"""The dashboard's files, and the login that lets a browser read without a token in any address."""

from hashlib import blake2b
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import web

from streamapp.errors import BadParameterError, ForbiddenError, TooLargeError
from streamapp.settings import Settings
from streamapp.views.auth import COOKIE, COOKIE_MAX_AGE_S, Authenticator
from streamapp.views.binding import same_origin
from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters
from streamapp.views.problems import NotFoundError
from streamapp.views.responses import answer

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: nothing but this server's own files and answers; no inline script or style, no frames, no forms elsewhere
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_PAGE_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class DashboardViews:
    """Serves the page's files from memory, and keeps the browser's cookie."""

    def __init__(self, settings: Settings, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._body_max_bytes = settings.max_body_bytes
        self._files: dict[str, tuple[bytes, str, bytes]] = {}
        for file in files("streamapp.views").joinpath("static").iterdir():
            suffix = "." + file.name.rpartition(".")[2]
            if file.is_file() and suffix in _TYPES:
                content = file.read_bytes()
                self._files[file.name] = (content, _TYPES[suffix], blake2b(content).digest())

    def routes(self) -> list[Route]:
        """The page and its files hold no data, so they are open to everybody; the data they show is not."""
        return [
            Route("GET", "/", self.page, None),
            Route("GET", "/static/{name}", self.file, None),
            Route("GET", "/session", self.session, None),
            Route("POST", "/login", self.login, None),
            Route("POST", "/logout", self.logout, None),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """`GET /`."""
        return self._serve(request, "index.html")

    async def file(self, request: web.Request) -> web.Response:
        """`GET /static/{name}`: one of the page's own files."""
        name = request.match_info["name"]
        if name not in self._files:
            raise NotFoundError(f"the dashboard has no file {name[:100]!r}")
        return self._serve(request, name)

    async def session(self, request: web.Request) -> web.Response:
        """`GET /session`: whether this browser may read, so that the page knows when to ask for a token."""
        Parameters(request, ())
        required = not self._authenticator.open
        text = self._authenticator.presented(request) if required else None
        token = self._authenticator.identify(text) if text else None
        allowed = not required or (token is not None and token.allows("read"))
        return _private({"login_required": required, "allowed": allowed, "name": token.name if token else None})

    async def login(self, request: web.Request) -> web.Response:
        """`POST /login` with `{"token": "..."}`: a cookie that scripts cannot read and other sites cannot make use of."""
        if not same_origin(request):
            raise ForbiddenError("a login has to come from this server's own page")
        fields = await self._body(request)
        text = fields.get("token")
        if not isinstance(text, str) or not text.strip():
            raise BadParameterError("token", 'the body must be {"token": "..."}')
        token = self._authenticator.login(request, text.strip())
        response = _private({"name": token.name, "scopes": sorted(token.scopes)})
        response.set_cookie(
            COOKIE,
            text.strip(),
            max_age=COOKIE_MAX_AGE_S,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def logout(self, request: web.Request) -> web.Response:
        """`POST /logout`: forget the cookie."""
        if not same_origin(request):
            raise ForbiddenError("a logout has to come from this server's own page")
        response = _private({})
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=request.secure)
        return response

    def _serve(self, request: web.Request, name: str) -> web.Response:
        content, content_type, tag = self._files[name]
        response = answer(request, content, tag, content_type=content_type, cache="no-cache")
        response.headers.update(_PAGE_HEADERS)
        return response

    async def _body(self, request: web.Request) -> dict[str, Any]:
        """The request's JSON object, read no further than the bound; a slow sender meets the request time-out."""
        content = bytearray()
        while chunk := await request.content.readany():
            content += chunk
            if len(content) > self._body_max_bytes:
                raise TooLargeError(f"a request body may have {self._body_max_bytes} bytes")
        try:
            fields = orjson.loads(bytes(content))
        except orjson.JSONDecodeError:
            raise BadParameterError("body", "the body must be JSON") from None
        if not isinstance(fields, dict):
            raise BadParameterError("body", "the body must be a JSON object")
        return fields


def _private(content: object) -> web.Response:
    return web.Response(
        body=orjson.dumps(content), headers={"Content-Type": "application/json", "Cache-Control": "no-store"}
    )
