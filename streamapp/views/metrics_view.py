"""`GET /metrics`: the registry in the text format that the scraper asks for."""

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from streamapp.metrics import Metrics
from streamapp.views.guard import Route
from streamapp.views.responses import compress


class MetricsView:
    """The handler of `/metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """One route, with a scope of its own: a scraper needs no right to read values."""
        return [Route("GET", "/metrics", self.scrape, "metrics")]

    async def scrape(self, request: web.Request) -> web.Response:
        """Prometheus' or OpenMetrics' text, by the `Accept` header; other parameters are the scraper's business."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = web.Response(
            body=encode(self._metrics.registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"}
        )
        return compress(request, response)
