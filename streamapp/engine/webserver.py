"""Faust's web server without Faust's pages.

Its `/table`, `/router`, statistics and index pages answer anybody and know nothing of freshness; what is served instead
is attached by the app. Pages that a user adds with `@app.page` go on working.
"""

import errno
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from aiohttp.web import AppRunner
from faust.web.drivers.aiohttp import Web

from streamapp.errors import ConfigurationError


class WorkerWeb(Web):  # type: ignore[misc]
    """The web server of a worker."""

    default_blueprints: ClassVar[list[Any]] = []
    production_blueprints: ClassVar[list[Any]] = []
    debug_blueprints: ClassVar[list[Any]] = []
    optional_blueprints: ClassVar[list[Any]] = []

    def __init__(
        self,
        app: Any,
        runner_options: Mapping[str, Any],
        in_front: Callable[[Any, Any], Any] = lambda application, handler: handler,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, **kwargs)
        self._in_front = in_front
        # Faust gives no way to set the runner's options: without them a connection may cost as much as it likes before its
        # first request, one log line per request costs more than the request, and open streams hold up the stop
        self._runner = AppRunner(self.web_app, handle_signals=False, **runner_options)

    async def start_server(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: something else listens there.
        """
        try:
            await super().start_server()
            server = self._runner.server
            assert server is not None
            server.request_handler = self._in_front(self.web_app, server.request_handler)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            conf = self.app.conf
            raise ConfigurationError(
                f"port {conf.web_port} on {conf.web_bind} is taken; choose another with --web-port"
            ) from None
