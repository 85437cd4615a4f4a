"""What the event streams write in one turn of the event loop, handed to the kernel at its end in one go."""

import asyncio
import logging

logger = logging.getLogger(__name__)


class Outbox:
    """Collects writes until the turn is over.

    A write to a reader that sleeps wakes it up, which costs more than the write itself; while it is awake further writes
    cost little. So a thousand subscribers are written to back to back, not each when its text is made. Writes to one
    transport keep their order; whoever writes to it by other means calls `flush` before. Where subscribers are woken in
    turns, each turn ends with a `flush`, so that it is part of what a turn takes.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def put(self, transport: asyncio.Transport, content: bytes) -> None:
        """Have it written before the loop waits for anything."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, content))

    def flush(self) -> None:
        """Write now."""
        waiting, self._waiting = self._waiting, []
        for transport, content in waiting:
            if transport.is_closing():
                continue
            try:
                transport.write(content)
            except Exception:  # of one client; the others' events wait behind it
                logger.exception("a write to a subscriber failed")
                transport.abort()
