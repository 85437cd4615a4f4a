"""`streamapp record`: a feed's frames, into a file."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from streamapp.cli.serving import stop_signal
from streamapp.errors import RecordingError
from streamapp.feeds.catalog import VENUES, protocol_for
from streamapp.feeds.connection import ConnectionEvent, Disconnected, connection_for
from streamapp.feeds.recorder import RecordingProtocol
from streamapp.feeds.recording import RecordingWriter
from streamapp.settings import FeedSettings, Settings


def record(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write; .gz compresses.")],
    feed: Annotated[str, typer.Option(help="A feed of the settings, or a venue's name.")],
    url: Annotated[str | None, typer.Option(help="The WebSocket's address, instead of the venue's own.")] = None,
    symbols: Annotated[str, typer.Option(help="Instruments, comma separated: BTC-USD,ETH-USD.")] = "",
    duration: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Stop after this long; 0: Ctrl-C.")] = 0.0,
) -> None:
    """Record the WebSocket frames of a feed, to be served again by `streamapp replay`.

    Reconnects like the bridge does. Fails if nothing at all was received.

    Example: streamapp record --feed coinbase --symbols BTC-USD,ETH-USD --duration 60 session.ws.gz
    """
    settings = Settings()
    chosen = feed_named(settings, feed, url, symbols)
    uvloop.run(_record(settings, chosen, file, duration))


def feed_named(settings: Settings, name: str, url: str | None, symbols: str) -> FeedSettings:
    """A feed of the settings, or one made from a venue's name, with what the command line says about it.

    Raises:
        BadParameter: there is neither a feed nor a venue of that name; a generic feed is nothing without its settings.
    """
    feed = settings.feeds.get(name)
    if feed is None:
        venues = [venue for venue in VENUES if venue != "generic"]
        if name not in venues:
            known = ", ".join([*settings.feeds, *venues])
            raise typer.BadParameter(f"expected one of {known}, got {name!r}", param_hint="--feed")
        feed = FeedSettings(venue=name)
    changes: dict[str, object] = {}
    if url is not None:
        changes["url"] = url
    if symbols:
        changes["symbols"] = tuple(part.strip() for part in symbols.split(",") if part.strip())
    return feed.model_copy(update=changes)


async def _record(settings: Settings, feed: FeedSettings, file: Path, duration_s: float) -> None:
    stopped = stop_signal()
    failures: list[str] = []

    async def note(events: Sequence[ConnectionEvent]) -> None:
        for event in events:
            if isinstance(event, Disconnected) and event.pause_ms is not None:
                failures.append(event.detail)
                print(f"connection lost: {event.detail}", file=sys.stderr)

    with RecordingWriter(file) as writer:
        connection = connection_for(feed, RecordingProtocol(protocol_for(feed), writer), settings)
        running = asyncio.ensure_future(connection.run(note))
        waiting = asyncio.ensure_future(stopped.wait())
        try:
            timeout_s = duration_s or None
            await asyncio.wait((running, waiting), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            await connection.stop()
            await running
        finally:
            running.cancel()
            waiting.cancel()
    if not writer.frames:
        raise RecordingError(f"nothing was received; last problem: {failures[-1] if failures else 'a silent feed'}")
    print(f"{writer.frames} frames written to {file}")
