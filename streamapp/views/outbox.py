"""What the event streams write in one turn of the event loop, handed to the kernel at its end in one go."""

import asyncio


class Outbox:
    """Collects writes until the turn is over.

    A write to a reader that sleeps wakes it up, which costs more than the write itself; while it is awake further writes
    cost little. So a thousand subscribers are written to back to back, not each when its text is made. Writes to one
    transport keep their order; whoever writes to it by other means calls `flush` before.
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
            if not transport.is_closing():
                transport.write(content)
