"""`streamapp simulate`: a venue on this machine."""

from typing import Annotated

import typer
import uvloop

from streamapp.cli.serving import serve_until_stopped
from streamapp.simulator.faults import FaultSettings
from streamapp.simulator.server import Simulator, SimulatorSettings


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on loopback; 0: any free one.")],
    venue: Annotated[str, typer.Option(help="The protocol that is spoken; coinbase is the only one.")] = "coinbase",
    symbols: Annotated[int, typer.Option(min=1, max=10_000, help="How many products.")] = 5,
    rate: Annotated[float, typer.Option(min=0, help="Trades per second; 0: as fast as subscribers read.")] = 100.0,
    seed: Annotated[int, typer.Option(help="Same seed, same trades and faults.")] = 1,
    events: Annotated[int, typer.Option(min=0, help="Stop after this many trades, staying connected; 0: never.")] = 0,
    start_time: Annotated[
        int | None, typer.Option(min=0, metavar="MS", help="Event time of the first trade; default: now.")
    ] = None,
    time_scale: Annotated[float, typer.Option(help="Seconds of event time per second.")] = 1.0,
    ticker_every: Annotated[int, typer.Option(min=0, help="A ticker with every n-th trade of a product.")] = 5,
    gaps: Annotated[float, typer.Option(min=0, max=1, help="Share of the trades that nobody is told.")] = 0.0,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share of the trades that are told twice.")] = 0.0,
    reorder: Annotated[float, typer.Option(min=0, max=1, help="Share of the trades that are told late.")] = 0.0,
    malformed: Annotated[float, typer.Option(min=0, max=1, help="Share of the trades after a broken frame.")] = 0.0,
    disconnect_every: Annotated[float, typer.Option(min=0, help="Break connections after these seconds.")] = 0.0,
    silence_every: Annotated[float, typer.Option(min=0, help="Fall silent after these seconds.")] = 0.0,
    silence: Annotated[float, typer.Option(min=0.001, help="... and stay so for these seconds.")] = 15.0,
) -> None:
    """Serve a venue's WebSocket protocol from a seeded random walk, with faults on demand.

    The first line of output is `listening on ws://127.0.0.1:PORT`. Trades begin with the first subscription and go on
    while nobody is connected. Runs until Ctrl-C.

    Example: streamapp simulate --venue coinbase --port 8765 --symbols 3 --rate 1000 --seed 7 --gaps 0.001
    """
    if venue != "coinbase":
        raise typer.BadParameter(f"expected coinbase, got {venue!r}", param_hint="--venue")
    if time_scale <= 0:
        raise typer.BadParameter("expected a number above 0", param_hint="--time-scale")
    settings = SimulatorSettings(
        port=port,
        symbols=symbols,
        rate=rate,
        seed=seed,
        events=events,
        start_time_ms=start_time,
        time_scale=time_scale,
        ticker_every=ticker_every,
        faults=FaultSettings(
            gaps=gaps,
            duplicates=duplicates,
            reorder=reorder,
            malformed=malformed,
            disconnect_every_s=disconnect_every,
            silence_every_s=silence_every,
            silence_s=silence,
        ),
    )
    uvloop.run(serve_until_stopped(Simulator(settings)))
