"""Faust's web server without Faust's pages.

Its `/table`, `/router`, statistics and index pages answer anybody and know nothing of freshness; what is served instead
is attached by the app. Pages that a user adds with `@app.page` go on working.
"""

from typing import Any, ClassVar

from aiohttp.web import AppRunner
from faust.web.drivers.aiohttp import Web

#: how long open event streams get to end before they are cut, in seconds
_SHUTDOWN_S = 2.0
_KEEPALIVE_S = 75.0


class WorkerWeb(Web):  # type: ignore[misc]
    """The web server of a worker."""

    default_blueprints: ClassVar[list[Any]] = []
    production_blueprints: ClassVar[list[Any]] = []
    debug_blueprints: ClassVar[list[Any]] = []
    optional_blueprints: ClassVar[list[Any]] = []

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        # Faust gives no way to set the runner's options: one access log line per request would cost more than the
        # request, and open event streams must not hold up the stop
        self._runner = AppRunner(
            self.web_app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=_KEEPALIVE_S,
            handle_signals=False,
        )
