"""`streamapp bridge`: feeds into Kafka, in the foreground."""

import asyncio
import gc
import signal
from collections.abc import Sequence
from typing import Annotated

import typer
import uvloop

from streamapp.bridge.service import Bridge
from streamapp.feeds.auth import redact_url
from streamapp.feeds.catalog import VENUES
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.waiting import kafka_answers
from streamapp.logs import configure_logging
from streamapp.settings import FeedSettings, Settings

#: how long the first word with Kafka may take, so that a wrong address is told within seconds
_FIRST_ANSWER_MS = 5_000


def bridge(
    feed: Annotated[
        list[str], typer.Option("--feed", help="A venue, or a name under [feeds] in streamapp.toml; repeatable.")
    ],
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="The WebSocket's address, for the feed at the same place; repeatable."),
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option("--symbols", help="Instruments, comma separated, for the feed at the same place; repeatable."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(help="Serve /metrics and /health on this port of 127.0.0.1; 0: off.", min=0, max=65535),
    ] = None,
) -> None:
    """Forward feeds into Kafka, until Ctrl-C or SIGTERM.

    Each --url and --symbols belongs to the --feed at the same place. A feed's own settings come from streamapp.toml.

    Example: streamapp bridge --feed coinbase --symbols BTC-USD,ETH-USD --feed binance --symbols BTC-USDT
    """
    settings = Settings()
    if metrics_port is not None:
        settings = settings.model_copy(update={"bridge_metrics_port": metrics_port})
    feeds = feeds_of(settings, feed, url or [], symbols or [])
    configure_logging(settings.log_level, settings.log_format)
    uvloop.run(_run(settings, feeds))


def feeds_of(
    settings: Settings, names: Sequence[str], urls: Sequence[str], symbols: Sequence[str]
) -> dict[str, FeedSettings]:
    """The feeds that the command line asks for, by name, in its order.

    Raises:
        typer.BadParameter: a name is neither configured nor a venue, is given twice, or there are more addresses or
            lists of symbols than feeds.
    """
    for option, values in (("--url", urls), ("--symbols", symbols)):
        if len(values) > len(names):
            raise typer.BadParameter(f"{len(values)} x {option} for {len(names)} x --feed; give at most one per feed")
    feeds: dict[str, FeedSettings] = {}
    for place, name in enumerate(names):
        found = settings.feeds.get(name)
        if found is None:
            if name not in VENUES or name == "generic":
                known = ", ".join([*settings.feeds, *(venue for venue in VENUES if venue != "generic")])
                raise typer.BadParameter(
                    f"feed {name!r} is not known; the feeds are: {known}. "
                    "Others are configured under [feeds.NAME] in streamapp.toml."
                )
            found = FeedSettings(venue=name)
        if name in feeds:
            raise typer.BadParameter(f"feed {name!r} is given twice; name its symbols in one --symbols")
        changed: dict[str, object] = {}
        if place < len(urls):
            changed["url"] = urls[place]
        if place < len(symbols):
            changed["symbols"] = tuple(part.strip() for part in symbols[place].split(",") if part.strip())
        feeds[name] = found.model_copy(update=changed)
    return feeds


async def _run(settings: Settings, feeds: dict[str, FeedSettings]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    service = Bridge(settings, feeds)
    # what is loaded stays, and records on their way are no garbage: looking through them often only costs time
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await kafka_answers(settings)
    quick = min(_FIRST_ANSWER_MS, settings.kafka_request_timeout_ms)
    await KafkaAdmin(settings.model_copy(update={"kafka_request_timeout_ms": quick})).cluster_id()
    try:
        await service.start()
        for name, connection in service.connections.items():
            symbols = ", ".join(connection.protocol.symbols) or "everything"
            typer.echo(f"feed {name}: {redact_url(connection.protocol.url)} ({symbols}) -> {settings.kafka_brokers}")
        waiting = {asyncio.create_task(stopping.wait()), asyncio.create_task(service.ended.wait())}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
    finally:
        await service.stop()
    if service.problem is not None:
        raise service.problem
