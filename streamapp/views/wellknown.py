"""Where clients learn whom to ask for an access token (RFC 9728)."""

from typing import TYPE_CHECKING

from aiohttp import web

from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters
from streamapp.views.problems import NotFoundError
from streamapp.views.serialise import dumps

if TYPE_CHECKING:
    from streamapp.views.oauth import OAuth

METADATA_PATH = "/.well-known/oauth-protected-resource"


class WellKnownViews:
    """Handlers of `/.well-known/oauth-protected-resource`, with and without the path of the MCP server.

    Args:
        oauth: whose metadata they give; None where no issuer is configured.
    """

    def __init__(self, oauth: "OAuth | None") -> None:
        self._body = None if oauth is None else dumps(oauth.metadata())

    def routes(self) -> list[Route]:
        """Open to everybody: a client reads them before it has a token."""
        return [
            Route("GET", METADATA_PATH, self.document, None),
            Route("GET", f"{METADATA_PATH}/mcp", self.document, None),
        ]

    async def document(self, request: web.Request) -> web.Response:
        """The same document at both paths: there is one resource."""
        Parameters(request, ())
        if self._body is None:
            raise NotFoundError("no issuer of access tokens is configured here")
        headers = {"Content-Type": "application/json", "Cache-Control": "max-age=300"}
        return web.Response(body=self._body, headers=headers)
