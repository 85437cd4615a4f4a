"""Changes that live on other workers: their event streams, read here and passed on as one.

The owner's stream is bounded on its side (conflated per key) and on this one (a short queue per subscriber); nothing is
kept in between. Whatever ends a part ends the whole with the reason, because a stream that lacks keys silently would be
taken for one on which nothing happens; the client subscribes again and begins with snapshots.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import aiohttp
import msgspec

from streamapp.errors import OwnerUnreachableError
from streamapp.queries.model import Change, Heartbeat
from streamapp.queries.peers import reading_of, remote_problem

#: changes that wait between the parts and whoever reads the whole
_MERGED_MAX = 256


async def events_of(response: aiohttp.ClientResponse, url: str) -> AsyncIterator[Change | Heartbeat]:
    """The changes of another worker's event stream, in the order it sends them; heartbeats where they say how far it is.

    Raises:
        OwnerUnreachableError: the stream broke off, ended, or was silent for longer than its heartbeats allow.
        QueryError: what the owner said in an `event: problem`.
    """
    try:
        while True:
            block = await response.content.readuntil(b"\n\n")
            if not block:
                break
            fields = dict(line.partition(b": ")[::2] for line in block.splitlines() if line and line[:1] != b":")
            kind = fields.get(b"event")
            if kind in (b"snapshot", b"change"):
                body = msgspec.json.decode(fields[b"data"])
                identity = fields.get(b"id", b"").decode()
                told: Literal["snapshot", "change"] = "snapshot" if kind == b"snapshot" else "change"
                yield Change(identity, told, reading_of(body), body.get("conflated", 0), body.get("resumed"))
            elif kind is None and b"id" in fields:
                yield Heartbeat(fields[b"id"].decode())
            elif kind == b"problem":
                raise remote_problem(msgspec.json.decode(fields[b"data"]))
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as problem:
        raise OwnerUnreachableError(
            f"the changes of the worker at {url} broke off: {type(problem).__name__}; subscribe again", retry_after_s=1
        ) from None
    raise OwnerUnreachableError(f"the worker at {url} ended its changes; subscribe again", retry_after_s=1)


async def merged(parts: Sequence[AsyncIterator[Change | Heartbeat]]) -> AsyncIterator[Change | Heartbeat]:
    """All parts as one, each in its own order; ends with the first error of any."""
    queue: asyncio.Queue[Change | Heartbeat | Exception] = asyncio.Queue(_MERGED_MAX)

    async def pump(part: AsyncIterator[Change | Heartbeat]) -> None:
        ended: Exception = OwnerUnreachableError("a part of these changes ended; subscribe again", retry_after_s=1)
        try:
            async for change in part:
                await queue.put(change)
        except Exception as problem:  # told to whoever reads the whole
            ended = problem
        await queue.put(ended)

    tasks = [asyncio.create_task(pump(part), name="changes-part") for part in parts]
    try:
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
