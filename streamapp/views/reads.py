"""The reads of a request, in the name of its caller."""

from aiohttp import web

from streamapp.queries.bound import bound
from streamapp.queries.model import Queries
from streamapp.views.auth import CALLER


class Reads:
    """Hands out a worker's reads, to requests that were let in; handlers have no other way to them.

    Args:
        queries: all reads.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def of(self, request: web.Request) -> Queries:
        """What this request may read; KeyError for one that nobody has let in."""
        return bound(self._queries, request[CALLER])
