"""`streamapp replay`: a recorded session, served again."""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from streamapp.cli.serving import serve_until_stopped
from streamapp.simulator.replay import Replay, ReplaySettings


def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The recording; may end in .gz.")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on loopback; 0: any free one.")],
    speed: Annotated[str, typer.Option(metavar="X|max", help="Times the recorded pace, or max.")] = "1",
    close: Annotated[bool, typer.Option("--close", help="Close the connection after the last frame.")] = False,
) -> None:
    """Serve recorded frames over a WebSocket: every connection gets all of them, in order, from the beginning.

    The first line of output is `listening on ws://127.0.0.1:PORT`. Frames begin with the client's first message, or
    half a second after the connection. Runs until Ctrl-C.

    Example: streamapp replay session.ws.gz --port 8766 --speed 10
    """
    settings = ReplaySettings(path=file, port=port, speed=_factor(speed), close=close)
    uvloop.run(serve_until_stopped(Replay(settings)))


def _factor(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise typer.BadParameter(f"expected a number above 0 or max, got {speed!r}", param_hint="--speed")
    return factor
