"""Running a server in the foreground until Ctrl-C, SIGTERM or its own failure."""

import asyncio
import signal
from typing import Protocol


class ForegroundServer(Protocol):
    """What the commands of this package run."""

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        ...

    async def start(self) -> None:
        """Listen."""
        ...

    async def wait(self) -> None:
        """Until it fails; raises then."""
        ...

    async def stop(self) -> None:
        """Stop listening, bounded."""
        ...


async def serve_until_stopped(server: ForegroundServer) -> None:
    """Start, print `listening on URL` as one line, wait for a signal, stop.

    Raises:
        StreamAppError: what the server raises while it starts or runs.
    """
    await server.start()
    print(f"listening on {server.url}", flush=True)
    failed = asyncio.ensure_future(server.wait())
    stopped = asyncio.ensure_future(stop_signal().wait())
    try:
        await asyncio.wait((failed, stopped), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
    finally:
        failed.cancel()
        stopped.cancel()
        await server.stop()


def stop_signal() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set, in the running loop."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    return event
