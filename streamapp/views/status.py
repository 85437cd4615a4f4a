"""What this worker and its feeds are doing: health for machines, `/v1/status` for people and the dashboard."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from streamapp.clock import Clock
from streamapp.errors import QueryError, RestoringError
from streamapp.queries.model import Queries
from streamapp.views.guard import Route
from streamapp.views.parameters import Parameters
from streamapp.views.problems import problem
from streamapp.views.reads import Reads
from streamapp.views.serialise import dumps

#: says what keeps the worker from being ready besides restoring, or None; see `application.attach`
HealthSource = Callable[[], str | None]

_NAMED_MAX = 20  # partitions that a refusal names; the rest is counted


class Throughput:
    """Records applied per second, over the last few seconds, from a counter that only grows.

    Args:
        clock: the monotonic clock to measure with.
        window_ms: how far back the rate looks.
    """

    def __init__(self, clock: Clock, window_ms: int = 3_000) -> None:
        self._clock = clock
        self._window_ms = window_ms
        self._samples: list[tuple[int, int]] = []  # time, count; at most one per 100 ms, oldest first

    def rate(self, count: int) -> float | None:
        """Records per second up to now; None until two samples lie far enough apart."""
        now = self._clock.monotonic_ms()
        samples = self._samples
        if samples and count < samples[-1][1]:
            samples.clear()  # the counter began anew
        if not samples or now - samples[-1][0] >= 100:
            samples.append((now, count))
        # keep one sample that is older than the window, so that the rate spans all of it
        while len(samples) > 2 and now - samples[1][0] >= self._window_ms:
            del samples[0]
        since, before = samples[0]
        return None if now == since else round((count - before) * 1000 / (now - since), 1)


class StatusViews:
    """Handlers of `/health/live`, `/health/ready` and `/v1/status`.

    Args:
        queries: tell how the worker does.
        clock: of the throughput.
        health: a further condition of being ready.
        names: whether `/health/ready`, which is open to everybody, may name tables.
    """

    def __init__(
        self, queries: Queries, clock: Clock, health: HealthSource | None = None, *, names: bool = True
    ) -> None:
        self._queries = queries
        self._reads = Reads(queries)
        self._names = names
        self._clock = clock
        self._health = health
        self._throughput = Throughput(clock)

    def routes(self) -> list[Route]:
        """Liveness and readiness are open to everybody: a probe has no token."""
        return [
            Route("GET", "/health/live", self.live, None),
            Route("GET", "/health/ready", self.ready, None),
            Route("GET", "/v1/status", self.status, "read"),
        ]

    def document(self, queries: Queries) -> dict[str, Any]:
        """The worker, its throughput, and the feeds, as these reads show them; times in milliseconds."""
        worker = queries.worker()
        return {
            "as_of": self._clock.now_ms(),
            "worker": {
                "ready": worker.ready,
                "restoring": list(worker.restoring),
                "assigned": {topic: list(partitions) for topic, partitions in worker.assigned.items()},
                "lag": dict(worker.lag),
                "records_applied": worker.records_applied,
                "records_per_s": self._throughput.rate(worker.records_applied),
                "detail": worker.detail,
                "hot_keys": list(worker.hot_keys),
            },
            "feeds": [
                {
                    "venue": feed.venue,
                    "connected": feed.connected,
                    "state": feed.state,
                    "detail": feed.detail,
                    "last_heartbeat": feed.last_heartbeat,
                    "gaps": feed.gaps,
                    "symbols": dict(feed.symbols),
                }
                for feed in queries.feeds()
            ],
        }

    async def live(self, request: web.Request) -> web.Response:
        """`GET /health/live`: 200 for as long as the event loop answers."""
        Parameters(request, ())
        return _json({"status": "live"})

    async def ready(self, request: web.Request) -> web.Response:
        """`GET /health/ready`: 200 once everything assigned is restored, else 503 with `Retry-After` and the reason."""
        Parameters(request, ())
        refusal = self._refusal()
        return _json({"status": "ready"}) if refusal is None else problem(refusal)

    async def status(self, request: web.Request) -> web.Response:
        """`GET /v1/status`: the worker and its feeds."""
        Parameters(request, ())
        return _json(self.document(self._reads.of(request)))

    def _refusal(self) -> QueryError | None:
        worker = self._queries.worker()
        if not worker.ready or worker.restoring:
            named = ", ".join(worker.restoring[:_NAMED_MAX])
            more = len(worker.restoring) - _NAMED_MAX
            reasons = [worker.detail] if worker.detail else []
            if named and not self._names:
                reasons.append(f"restoring {len(worker.restoring)} partitions")
            elif named:
                reasons.append(f"restoring {named}" + (f" and {more} more" if more > 0 else ""))
            return RestoringError("; ".join(reasons) or "the worker is starting", retry_after_s=1)
        if self._health is not None and (reason := self._health()):
            return RestoringError(reason, retry_after_s=1)
        return None


def _json(content: object) -> web.Response:
    return web.Response(body=dumps(content), headers={"Content-Type": "application/json", "Cache-Control": "no-store"})
