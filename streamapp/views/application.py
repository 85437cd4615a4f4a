"""Puts all routes onto an aiohttp application: Faust's own in a worker, a fresh one in tests."""

from typing import Any

from aiohttp import web

from streamapp.clock import Clock, SystemClock
from streamapp.metrics import Metrics
from streamapp.queries.model import Queries
from streamapp.settings import Settings
from streamapp.views.audit import Audit
from streamapp.views.auth import Authenticator
from streamapp.views.binding import HostCheck
from streamapp.views.dashboard import DashboardViews
from streamapp.views.guard import Guard, Route
from streamapp.views.mcp import McpView, lazily
from streamapp.views.metrics_view import MetricsView
from streamapp.views.openapi import OpenApiView
from streamapp.views.operations import LazyOperations, OperationViews
from streamapp.views.point_reads import Handler, PointReads
from streamapp.views.reads import Reads
from streamapp.views.rest import KEY_TEMPLATE, RestViews
from streamapp.views.sse import StreamViews
from streamapp.views.status import HealthSource, StatusViews
from streamapp.views.wellknown import WellKnownViews

POINT_READS: web.AppKey[PointReads] = web.AppKey("point_reads", PointReads)


def with_point_reads(application: web.Application, handler: Handler) -> Handler:
    """What a server should call instead of the application's own handler, so that plain point reads are quick.

    Args:
        application: one that `attach` has seen.
        handler: `server.request_handler` of its runner.
    """
    # whoever adds a middleware or a signal wants it to see every request; that of Faust's CORS package, which is always
    # there, concerns only routes that were registered with it, and ours are not
    foreign = [one for one in application.on_response_prepare if not one.__module__.startswith("aiohttp_cors")]
    if len(application.middlewares) > 1 or foreign:
        return handler
    return application[POINT_READS].wrap(handler)


def runner_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `aiohttp.web.AppRunner` that bound what a connection may cost before a request is whole.

    `keepalive_timeout` closes connections on which no whole request head arrives, aiohttp's own limits refuse long lines
    and many headers, and `handler_cancellation` frees a stream as soon as its client is gone.
    """
    return {
        "access_log": None,
        "handler_cancellation": True,
        "keepalive_timeout": settings.http_idle_timeout_ms / 1000,
        "lingering_time": 2.0,
        "max_field_size": 8_190,
        "max_headers": 64,
        "max_line_size": 8_190,
        "shutdown_timeout": 5.0,
    }


def attach(
    application: web.Application,
    queries: Queries,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    *,
    health: HealthSource | None = None,
) -> list[Route]:
    """Add every route of the contract to an application that has not started.

    Handlers are wrapped one by one; the only middleware answers for paths that nobody routes. Attach before others add a
    route for `/`: the first one wins. Listening is the caller's business, and `binding.check_bind` comes before it.

    Args:
        application: Faust's `app.web.web_app`, or any other.
        queries: answers all reads.
        settings: limits, time-outs and tokens; ConfigurationError when the tokens cannot be read.
        metrics: what `/metrics` shows, and where requests are counted.
        clock: for rate limits and throughput.
        health: a further condition for `/health/ready`: a reason not to be ready, or None.

    Returns:
        The routes, for whoever wants to list them.
    """
    authenticator = Authenticator(settings, clock, metrics)
    audit = Audit(settings, clock, metrics)
    guard = Guard(settings, metrics, authenticator, HostCheck(settings), clock, audit)
    reads = Reads(queries)
    status = StatusViews(queries, clock, health, names=authenticator.open)
    streams = StreamViews(reads, settings, metrics, status)
    operations = LazyOperations(queries, settings, metrics, clock)
    mcp = McpView(lazily("streamapp.mcp_server.server", "local_server", operations.now, settings, metrics), settings)
    routes = [
        *RestViews(reads, settings).routes(),
        *streams.routes(),
        *status.routes(),
        *MetricsView(metrics).routes(),
        *OpenApiView(reads, settings).routes(),
        *DashboardViews(settings, authenticator).routes(),
        *OperationViews(operations, settings).routes(),
        *mcp.routes(),
        *WellKnownViews(authenticator.oauth).routes(),
    ]
    application[POINT_READS] = PointReads(queries, guard, metrics, KEY_TEMPLATE, audit)
    for route in routes:
        if route.method == "GET":
            application.router.add_get(route.path, guard.wrap(route))
        else:
            application.router.add_route(route.method, route.path, guard.wrap(route))
    application.middlewares.append(guard.unmatched())
    application.on_shutdown.append(streams.close)
    application.on_shutdown.append(mcp.close)
    application.on_shutdown.append(authenticator.close)
    application.on_cleanup.append(audit.close)
    return routes


def application(
    queries: Queries,
    settings: Settings,
    *,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
    health: HealthSource | None = None,
) -> web.Application:
    """A stand-alone application with the same routes, for tests and for whoever serves reads without Faust."""
    app = web.Application()
    attach(app, queries, settings, metrics or Metrics(), clock or SystemClock(), health=health)
    return app
