"""How a successful answer leaves: conditional requests, compression and the headers that keep browsers careful."""

import re
from collections.abc import Mapping

from aiohttp import hdrs, web
from multidict import istr

from streamapp.views.serialise import weak_etag

GZIP_MIN_BYTES = 1_400  # below about one packet compression only costs
_GZIP_EXECUTOR_BYTES = 256 << 10  # beyond this it would hold up the event loop for milliseconds
_GZIP = re.compile(r"(?:^|,)\s*(?:gzip|x-gzip|\*)\s*(?:;\s*q=(?P<q>[0-9.]+))?\s*(?:,|$)", re.IGNORECASE)

#: on every answer; the page's own policy is in `dashboard`
SECURITY_HEADERS: Mapping[istr, str] = {
    istr("X-Content-Type-Options"): "nosniff",
    istr("Cross-Origin-Resource-Policy"): "same-origin",
}

_CONTENT_TYPE, _ETAG, _CACHE, _VARY = istr("Content-Type"), istr("ETag"), istr("Cache-Control"), istr("Vary")


def accepts_gzip(request: web.Request) -> bool:
    """Whether the client takes gzip; `q=0` is a refusal."""
    accepted = request.headers.get(hdrs.ACCEPT_ENCODING)
    found = _GZIP.search(accepted) if accepted else None
    if found is None:
        return False
    try:
        return float(found["q"] or 1) > 0
    except ValueError:
        return False


def compress(request: web.Request, response: web.Response) -> web.Response:
    """Have aiohttp gzip a body that is worth it, in a thread when it is big."""
    body = response.body
    if isinstance(body, bytes) and len(body) >= GZIP_MIN_BYTES and accepts_gzip(request):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison of RFC 9110, section 8.8.3.2, of a list of tags with one."""
    opaque = etag.removeprefix("W/")
    return any(
        tag == "*" or tag.removeprefix("W/") == opaque for tag in (part.strip() for part in if_none_match.split(","))
    )


def answer(
    request: web.Request,
    body: bytes,
    tag: bytes,
    *,
    content_type: str = "application/json",
    cache: str = "private, no-cache",
    unchanged_headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A 200 with a weak ETag, or a bodiless 304 when the client already has these values.

    Args:
        request: the request that is answered.
        body: the whole body.
        tag: the bytes that the ETag stands for; see `serialise`.
        content_type: of the body.
        cache: the `Cache-Control` of the answer; by default each use is revalidated.
        unchanged_headers: extra headers of a 304, for what moves while the values stay.
    """
    etag = weak_etag(tag)
    asked = request.headers.get(hdrs.IF_NONE_MATCH)
    if asked is not None and matches(asked, etag):
        headers = {_ETAG: etag, _CACHE: cache, _VARY: "Accept-Encoding", **(unchanged_headers or {})}
        return web.Response(status=304, headers=headers)
    response = web.Response(
        body=body,
        headers={_CONTENT_TYPE: content_type, _ETAG: etag, _CACHE: cache, _VARY: "Accept-Encoding"},
        zlib_executor_size=_GZIP_EXECUTOR_BYTES,
    )
    return compress(request, response) if len(body) >= GZIP_MIN_BYTES else response
