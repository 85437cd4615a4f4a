"""A client for measuring: one connection kept alive, one request at a time, little work of its own."""

import asyncio
from typing import Self

_TIMEOUT_S = 10.0


class HttpError(RuntimeError):
    """The server closed the connection, or answered something that is not HTTP as expected here."""


class Connection:
    """GET requests over one connection; `async with Connection.open(...)`."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> Self:
        """Connect."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _TIMEOUT_S)
        return cls(f"{host}:{port}", reader, writer)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            HttpError: the connection is over.
        """
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await self._reader.readuntil(b"\r\n\r\n")
                lines = head.split(b"\r\n")
                status, length = int(lines[0].split(b" ", 2)[1]), 0
                for line in lines[1:]:
                    if line[:15].lower() == b"content-length:":
                        length = int(line[15:])
                return status, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, IndexError) as problem:
            raise HttpError(f"GET {path}: {problem!r}") from problem

    async def close(self) -> None:
        """Close it, whatever state it is in."""
        self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
