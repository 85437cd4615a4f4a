"""A connection that breaks ends no task that sends over it, whatever the event loop says of it."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from streamapp.engine import connections

WAIT_S = 20


class Connection(AIOKafkaConnection):
    """One to a server that knows nothing of Kafka."""

    async def _do_version_lookup(self) -> None:
        self._versions = {MetadataRequest.API_KEY: (0, 0)}


async def _refusals() -> set[type]:
    """What sending is refused with, turn by turn, while the other end resets the connection."""
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = Connection(*server.sockets[0].getsockname(), request_timeout_ms=1_000)
    await connection.connect()
    writer = await accepted
    # a process that is killed with something unread in its socket: a reset, and no orderly end
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    found: set[type] = set()
    answers: list[asyncio.Task[Any]] = []
    async with asyncio.timeout(WAIT_S):
        while connection.connected():
            try:
                answers.append(asyncio.ensure_future(connection.send(MetadataRequest([]))))
            except (KafkaError, RuntimeError) as problem:
                found.add(type(problem))
            await asyncio.sleep(0)
    await asyncio.gather(*answers, return_exceptions=True)
    server.close()
    return found


def _run(function: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(function())


def test_uvloop_refuses_to_write_before_the_connection_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", connections._stock_send)
    assert RuntimeError in _run(_refusals), "then nothing has to be mended any more"


def test_a_write_to_a_broken_connection_is_an_error_of_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", connections._stock_send)
    connections.mend_connections()
    assert _run(_refusals) == {KafkaConnectionError}
