"""What happens around every handler: admission, time-out, errors, headers, metrics.

Handlers are wrapped one by one, so nothing here touches routes that somebody else mounted on the same application.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from streamapp.clock import Clock, SystemClock
from streamapp.errors import InsufficientScopeError, QueryError, TooLargeError, UnauthorizedError
from streamapp.metrics import Metrics
from streamapp.queries.access import Caller
from streamapp.queries.trace import ON_BEHALF, ON_BEHALF_HEADER, Trace
from streamapp.settings import Settings
from streamapp.views.audit import Audit
from streamapp.views.auth import CALLER, Authenticator
from streamapp.views.binding import HostCheck
from streamapp.views.deadlines import Deadlines
from streamapp.views.parameters import refuse_tokens
from streamapp.views.problems import MethodNotAllowedError, NotFoundError, RequestTimeoutError, problem
from streamapp.views.responses import SECURITY_HEADERS

logger = logging.getLogger(__name__)

_DAY_S = 86_400.0
_NAME_MAX_CHARS = 120
#: on a request that has been counted against its caller's limits
CHARGED = web.RequestKey("charged", bool)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Scope = Literal["read", "metrics", "admin"]


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the HTTP interface.

    Attributes:
        method: `GET` (which brings `HEAD` along), `POST` or `DELETE`.
        path: aiohttp's pattern.
        handler: answers, or raises a QueryError.
        scope: what a token must open; None for what is open to everybody.
        limited: counts against the caller's requests here; otherwise the handler counts them.
        streams: the answer goes on for as long as the client listens, so no time-out holds and no duration is counted.
        name: the path as metrics and the OpenAPI document show it, where the pattern has a regular expression in it.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    scope: Scope | None
    streams: bool = False
    name: str = ""
    limited: bool = True

    @property
    def template(self) -> str:
        """The path with its parameters in braces: bounded in number, unlike the paths that are asked for."""
        return self.name or self.path


class Guard:
    """Wraps handlers; one per application."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        authenticator: Authenticator,
        hosts: HostCheck,
        clock: Clock | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit if audit is not None and audit.on else None
        self._clock = clock or SystemClock()
        self._timeout_s = settings.request_timeout_ms / 1000
        self._deadlines = Deadlines(self._timeout_s)
        self._url_max_bytes = settings.url_max_bytes
        self._body_max_bytes = settings.max_body_bytes
        self._metrics = metrics
        self._authenticator = authenticator
        self._hosts = hosts

    def admit(self, request: web.Request, scope: Scope | None) -> Caller | None:
        """Refuse foreign hosts, oversized requests, tokens in the address and whoever lacks the scope.

        Returns:
            In whose name the request is let in; None where the scope is, and nobody was asked.

        Raises:
            QueryError: why not.
        """
        self.check(request)
        return None if scope is None else self._authenticator.authorize(request, scope)

    def check(self, request: web.Request) -> None:
        """What holds whoever asks."""
        self._hosts.check(request)
        if len(request.raw_path) > self._url_max_bytes:
            raise TooLargeError(
                f"path and query may have {self._url_max_bytes} bytes, got {len(request.raw_path)};"
                " ask for fewer keys at once"
            )
        length = request.content_length if hdrs.CONTENT_LENGTH in request.headers else None
        if length is not None and length > self._body_max_bytes:
            raise TooLargeError(f"a request body may have {self._body_max_bytes} bytes, got {length}")
        if "?" in request.raw_path:
            refuse_tokens(request)

    def wrap(self, route: Route) -> Handler:
        """The handler with everything around it."""
        handler, scope, streams, template = route.handler, route.scope, route.streams, route.template
        limited = route.limited
        audit = self._audit if scope == "read" else None
        seconds = self._metrics.request_seconds.labels(route=template)
        counters = {}  # by status; looking up labels costs more than counting
        deadlines = self._deadlines

        async def guarded(request: web.Request) -> web.StreamResponse:
            now = asyncio.get_running_loop().time
            started = now()
            response: web.StreamResponse
            caller: Caller | None = None
            outcome = "ok"
            try:
                if scope is not None and self._authenticator.oauth is not None:
                    self.check(request)
                    await self._authenticator.prepare(request)
                caller = self.admit(request, scope)
                if caller is not None:
                    if audit is not None:
                        caller = replace(caller, trace=Trace())
                    if caller.forwarded:
                        self.count_forwarded(request)
                    else:
                        ON_BEHALF.set(caller.metric_label)
                    request[CALLER] = caller
                    # what the quick way could not answer has been counted there
                    if limited and caller.limits is not None and CHARGED not in request:
                        caller.limits.take_request()
                if streams:
                    with self._ended_with_token(request, caller):
                        response = await handler(request)
                else:
                    task = cast("asyncio.Task[object]", asyncio.current_task())
                    deadlines.enter(task, started)
                    try:
                        response = await handler(request)
                    except asyncio.CancelledError:
                        if deadlines.expired(task):
                            raise TimeoutError from None
                        raise
                    finally:
                        deadlines.leave(task)
            except QueryError as error:
                response, outcome = problem(error), error.code
                if isinstance(error, (UnauthorizedError, InsufficientScopeError)):
                    response.headers[hdrs.WWW_AUTHENTICATE] = self._authenticator.challenge(error)
            except TimeoutError:
                outcome = RequestTimeoutError.code
                response = problem(RequestTimeoutError(f"no answer within {self._timeout_s:g} s; try again"))
            except web.HTTPException:
                raise
            except (ConnectionError, asyncio.CancelledError):
                if audit is not None:
                    self._record(request, template, caller, "cancelled", 499, now() - started)
                raise  # the client went away in the middle of its stream
            except Exception:
                logger.exception("%s %s failed", request.method, template)
                outcome = QueryError.code
                response = problem(QueryError("the request failed here; the worker's log says why"))
            if not response.prepared:
                response.headers.update(SECURITY_HEADERS)
            if response.status == 413:
                response.force_close()  # what is still on its way is not worth reading
            status = response.status
            if status not in counters:
                counters[status] = self._metrics.requests.labels(route=template, status=str(status))
            counters[status].inc()
            took_s = now() - started
            if not streams:
                seconds.observe(took_s)
            if audit is not None:
                self._record(request, template, caller, outcome, status, took_s)
            return response

        return guarded

    def _record(
        self, request: web.Request, route: str, caller: Caller | None, outcome: str, status: int, took_s: float
    ) -> None:
        assert self._audit is not None
        self._audit.write(
            request.method, route, caller, None if caller is None else caller.trace, outcome, status, took_s
        )

    def count_forwarded(self, request: web.Request) -> None:
        """By the name that the other worker gives, which is of a bounded set there."""
        name = request.headers.get(ON_BEHALF_HEADER, "unknown")[:_NAME_MAX_CHARS]
        self._metrics.forwarded_served.labels(name).inc()

    @contextmanager
    def _ended_with_token(self, request: web.Request, caller: Caller | None) -> Iterator[None]:
        """What goes on for long ends with the admission of its caller; the client comes back with a new token."""
        transport = request.transport
        if caller is None or caller.expires_ms is None or transport is None:
            yield
            return
        left_s = (caller.expires_ms - self._clock.now_ms()) / 1000
        ending = asyncio.get_running_loop().call_later(min(max(left_s, 0.0), _DAY_S), transport.close)
        try:
            yield
        finally:
            ending.cancel()

    def unmatched(self) -> Middleware:
        """A middleware that answers for paths and methods without any route; all others pass through it untouched."""

        @web.middleware
        async def answer_unmatched(request: web.Request, handler: Handler) -> web.StreamResponse:
            missing = request.match_info.http_exception
            if missing is None:
                return await handler(request)
            try:
                self.admit(request, None)
            except QueryError as error:
                response = problem(error)
            else:
                if isinstance(missing, web.HTTPMethodNotAllowed):
                    allowed = ", ".join(sorted(missing.allowed_methods))
                    response = problem(MethodNotAllowedError(f"{request.method} is not allowed here; use {allowed}"))
                    response.headers[hdrs.ALLOW] = allowed
                else:
                    response = problem(NotFoundError("no route has this path; /openapi.json lists them all"))
            response.headers.update(SECURITY_HEADERS)
            self._metrics.requests.labels(route="unmatched", status=str(response.status)).inc()
            return response

        return answer_unmatched
