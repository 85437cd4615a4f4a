"""What event streams write in one turn of the loop."""

import asyncio
from typing import Any

from streamapp.views.outbox import Outbox


class Transport:
    """Notes what is written to it."""

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self.log, self.name, self.closing = log, name, False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, content: bytes) -> None:
        self.log.append((self.name, content))


async def test_writes_of_a_turn_are_made_at_its_end_and_in_order() -> None:
    log: list[tuple[str, bytes]] = []
    first: Any = Transport(log, "first")
    second: Any = Transport(log, "second")
    outbox = Outbox()
    outbox.put(first, b"1")
    outbox.put(second, b"2")
    outbox.put(first, b"3")
    assert log == []
    await asyncio.sleep(0)
    assert log == [("first", b"1"), ("second", b"2"), ("first", b"3")]
    outbox.put(second, b"4")
    await asyncio.sleep(0)
    assert log[3:] == [("second", b"4")], "the next turn's are written as well"


async def test_flush_writes_now_and_nothing_twice() -> None:
    log: list[tuple[str, bytes]] = []
    transport: Any = Transport(log, "one")
    outbox = Outbox()
    outbox.put(transport, b"1")
    outbox.flush()
    assert log == [("one", b"1")]
    await asyncio.sleep(0)
    assert log == [("one", b"1")]


async def test_write_that_fails_is_its_own_clients_affair() -> None:
    log: list[tuple[str, bytes]] = []

    class Broken(Transport):
        aborted = False

        def write(self, content: bytes) -> None:
            raise RuntimeError("no luck")

        def abort(self) -> None:
            self.aborted = True

    broken: Any = Broken(log, "broken")
    sound: Any = Transport(log, "sound")
    outbox = Outbox()
    outbox.put(broken, b"1")
    outbox.put(sound, b"2")
    await asyncio.sleep(0)
    assert log == [("sound", b"2")]
    assert broken.aborted


async def test_nothing_is_written_to_a_client_that_has_gone() -> None:
    log: list[tuple[str, bytes]] = []
    gone: Any = Transport(log, "gone")
    stays: Any = Transport(log, "stays")
    outbox = Outbox()
    outbox.put(gone, b"1")
    outbox.put(stays, b"2")
    gone.closing = True
    await asyncio.sleep(0)
    assert log == [("stays", b"2")]
