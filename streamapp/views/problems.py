"""Errors as RFC 9457 problem documents with the contract's stable codes."""

from typing import Any

import orjson
from aiohttp import web

from streamapp.errors import BadParameterError, QueryError, StaleError, UnknownKeyError

PROBLEM_TYPE = "application/problem+json"

#: code -> the document's `title`; every code that this server can answer with
TITLES = {
    "bad_parameter": "A parameter cannot be used",
    "forbidden": "This access is not allowed",
    "internal": "The server failed",
    "method_not_allowed": "The route does not take this method",
    "no_such_window": "No window holds that instant",
    "not_found": "There is no such route",
    "issuer_unreachable": "Tokens of the issuer cannot be checked now",
    "lease_expired": "This worker may own the key no longer",
    "owner_unreachable": "The worker that owns the key did not answer",
    "rate_limited": "Too many requests for now",
    "restoring": "State is being restored",
    "stale": "The view is too far behind",
    "timeout": "The answer took too long",
    "too_large": "The request is over a size limit",
    "unauthorized": "A token is needed",
    "unknown_key": "The table holds nothing for that key",
    "unknown_table": "There is no such table",
}


class NotFoundError(QueryError):
    """No route has that path."""

    code, status = "not_found", 404


class MethodNotAllowedError(QueryError):
    """The path exists, but not for that method."""

    code, status = "method_not_allowed", 405


class RequestTimeoutError(QueryError):
    """The answer was not ready within the request time-out."""

    code, status = "timeout", 504


def document(error: QueryError) -> dict[str, Any]:
    """The problem document of an error: `type title status detail code` and what the error knows besides.

    A `bad_parameter` names its `parameter`, a `stale` says its `staleness_ms`, an `unknown_key` lists the `nearest`
    existing keys, and whatever is worth a retry says `retry_after_s`.
    """
    fields: dict[str, Any] = {
        "type": f"urn:streamapp:problem:{error.code}",
        "title": TITLES.get(error.code, error.code),
        "status": error.status,
        "detail": str(error),
        "code": error.code,
    }
    if isinstance(error, BadParameterError):
        fields["parameter"] = error.parameter
    if isinstance(error, UnknownKeyError):
        fields["nearest"] = list(error.nearest)
    if isinstance(error, StaleError):
        fields["staleness_ms"] = error.staleness_ms
    if error.retry_after_s is not None:
        fields["retry_after_s"] = error.retry_after_s
    return fields


def problem(error: QueryError) -> web.Response:
    """The response for an error, with `Retry-After` and `WWW-Authenticate` where they belong."""
    headers = {"Content-Type": PROBLEM_TYPE, "Cache-Control": "no-store"}
    retry_after_s = error.retry_after_s
    if retry_after_s is None and error.status in (429, 503, 504):
        retry_after_s = 1
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, retry_after_s))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="streamapp"'
    return web.Response(status=error.status, body=orjson.dumps(document(error)), headers=headers)
