"""Many readers of event streams in one process: `python -m benchmarks.listeners PORT TABLE KEYS STALLED`.

Each follows one key; every n-th of them, `STALLED` in all, reads its answer's head and then nothing any more. It says
`connected` when all streams have begun, and four times a second `received` with the milliseconds from each event's own
time to its receipt. A stalled reader that the worker drops connects again and stalls again. What is parsed of an event is
one number, so that this program takes little of the processor that the worker needs.
"""

import asyncio
import re
import socket
import sys
import time

from benchmarks.peers.marks import mark
from benchmarks.topics import symbol

_TICK_S = 0.25
_AGAIN_S = 1.0
_CONNECT_AT_ONCE = 50
#: a stalled reader's kernel should not read in its place
_SMALL_BUFFER = 4 << 10
_newest = re.compile(rb'event: change\n.*?"last_time":(\d+)', re.DOTALL).findall


class Listener(asyncio.Protocol):
    """One stream.

    Args:
        port, path: of the worker.
        stalled: whether to stop reading behind the head.
        delays: where milliseconds go.
        began: called once, when the head has come.
    """

    def __init__(self, port: int, path: str, stalled: bool, delays: list[int]) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._stalled = stalled
        self._delays = delays
        self._transport: asyncio.Transport | None = None
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note when what arrives was produced."""
        if not self.began.done():
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"expected an event stream, got {data[:200]!r}")
            self.began.set_result(None)
            if self._stalled:
                assert self._transport is not None
                self._transport.pause_reading()
                return
        now = time.time_ns() // 1_000_000
        self._delays += [now - int(at) for at in _newest(data)]

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has dropped it, or ended."""
        if not self.over.done():
            self.over.set_result(None)


async def _follow(port: int, path: str, stalled: bool, delays: list[int], begun: asyncio.Semaphore) -> None:
    loop = asyncio.get_running_loop()
    first = True
    while True:
        async with begun:
            sock = socket.socket()
            sock.setblocking(False)
            if stalled:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, listener = await loop.create_connection(lambda: Listener(port, path, stalled, delays), sock=sock)
            await listener.began
        if first:
            delays.append(-1)
        first = False
        await listener.over
        if not stalled:
            raise SystemExit(f"the worker ended {path}")
        await asyncio.sleep(_AGAIN_S)


async def main(port: int, table: str, keys: int, stalled: int) -> None:
    """Connect, and report until the process is ended."""
    delays: list[int] = []
    gate = asyncio.Semaphore(_CONNECT_AT_ONCE)
    every = keys // stalled if stalled else keys + 1
    tasks = [
        asyncio.create_task(
            _follow(port, f"/v1/tables/{table}/changes?key={symbol(number)}", (number + 1) % every == 0, delays, gate)
        )
        for number in range(keys)
    ]
    while len(delays) < keys:
        await asyncio.sleep(_TICK_S)
        for task in tasks:
            if task.done():
                task.result()
    mark("connected", count=keys, stalled=stalled)
    delays.clear()
    while True:
        await asyncio.sleep(_TICK_S)
        mark("received", at=time.time(), delays=delays)
        delays.clear()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
