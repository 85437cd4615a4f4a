"""`/metrics` and `/health` of the bridge, on loopback only."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streamapp.errors import ConfigurationError
from streamapp.metrics import Metrics

_HOST = "127.0.0.1"
Health = Callable[[], tuple[bool, dict[str, object]]]


class MonitorServer:
    """A small web server for Prometheus and for health checks; does nothing where the port is 0."""

    def __init__(self, port: int, metrics: Metrics, health: Health) -> None:
        self._port = port
        self._metrics = metrics
        self._health = health
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: the port is taken.
        """
        if not self._port:
            return
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._on_metrics)
        app.router.add_get("/health", self._on_health)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=15)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, _HOST, self._port).start()
        except OSError as problem:
            await self.stop()
            raise ConfigurationError(
                f"bridge: cannot listen on {_HOST}:{self._port} for metrics ({problem.strerror}); "
                "choose another --metrics-port, or 0 for none"
            ) from problem

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _on_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _on_health(self, request: web.Request) -> web.Response:
        healthy, figures = self._health()
        return web.json_response({"healthy": healthy, **figures}, status=200 if healthy else 503)
