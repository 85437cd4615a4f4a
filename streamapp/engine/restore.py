"""Restoring: the changelog is read into the store, from where the store stands to the end.

One thread with a loop of its own reads all partitions that one assignment brought, so that readers of other partitions
are served meanwhile. It parses what came while the next answer of the broker is under way and the last chunk is written
by a further thread: RocksDB works without Python's lock. Each chunk is one atomic write with its own position, so a crash
in the middle goes on from there.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from streamapp.clock import Clock
from streamapp.engine.changelog import ChangelogReader, Chunk
from streamapp.errors import KafkaError, StateError
from streamapp.kafka.config import confluent_config
from streamapp.settings import Settings
from streamapp.state.replay import REBUILD_KEY, Replay
from streamapp.state.store import CHANGELOG_OFFSET_KEY, StateStore

log = logging.getLogger(__name__)

#: how often it is looked whether a partition is still wanted while nothing comes
_LOOK_S = 0.25
#: chunks that wait to be written, or are being written; what they hold is in memory
_WRITES_MAX = 2


@dataclass
class RestoreRequest:
    """One partition to bring up to date.

    Attributes:
        table, partition, topic: whose changelog.
        store: where to; written from the restoring thread, nobody else may write it meanwhile.
        begin, end: the changelog's first and next offset, as the broker says.
        windowed: whether the store keeps the index in order of time.
        records: counts what was read.
    """

    table: str
    partition: int
    topic: str
    store: StateStore
    begin: int
    end: int
    windowed: bool
    records: int = 0

    @property
    def position(self) -> int:
        """The next changelog offset that the store has not seen."""
        raw = self.store.get(CHANGELOG_OFFSET_KEY)
        return int(raw) + 1 if raw is not None else self.begin


async def restore(
    requests: Sequence[RestoreRequest],
    settings: Settings,
    clock: Clock,
    *,
    on_restored: Callable[[RestoreRequest], None],
    is_wanted: Callable[[RestoreRequest], bool],
) -> None:
    """Bring all requested partitions up to date; each is reported on the event loop as soon as it is.

    Args:
        requests: what to restore.
        settings: brokers, and how long to wait without any progress.
        clock: for that time-out.
        on_restored: called once per request that was completed.
        is_wanted: False ends a request early, where the partition has been taken away meanwhile.

    Raises:
        StateError: no progress within `restore_timeout_ms`, the store cannot be written, or it is ahead of its changelog.
        KafkaError: the changelog cannot be read.
    """
    loop = asyncio.get_running_loop()
    behind: list[RestoreRequest] = []
    for request in requests:
        _check_not_ahead(request)
    for request in requests:
        if request.position >= request.end:
            on_restored(request)
        else:
            behind.append(request)

    def report(request: RestoreRequest) -> None:
        loop.call_soon_threadsafe(on_restored, request)

    if not behind:
        return
    reading = asyncio.ensure_future(asyncio.to_thread(_read, behind, settings, clock, report, is_wanted))
    try:
        await asyncio.shield(reading)
    except asyncio.CancelledError:
        # the thread ends by itself once nothing is wanted; until then nobody else may touch these stores, however often
        # it is asked to
        while not reading.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({reading})
        raise


def starts_over(settings: Settings, place: tuple[str, int], begin: int, end: int) -> bool:
    """Whether a changelog partition begins with the mark of a rebuild; blocks."""
    if begin >= end:
        return False
    consumer = Consumer({**_client(settings), "queued.max.messages.kbytes": 1024}, logger=log)
    try:
        consumer.assign([TopicPartition(*place, begin)])
        first = consumer.poll(settings.kafka_request_timeout_ms / 1000)
        return first is not None and first.error() is None and first.key() == REBUILD_KEY
    finally:
        consumer.close()


def _check_not_ahead(request: RestoreRequest) -> None:
    """What the disk has seen must be in the changelog: else the next owner would restore less than was answered here."""
    if request.position > request.end:
        raise StateError(
            request.table,
            request.partition,
            f"table {request.table}, partition {request.partition}: the local state has seen its changelog up to offset "
            f"{request.position}, but {request.topic}-{request.partition} ends at {request.end}: Kafka has lost its last "
            "records (an unclean election, or a broker's disk). To go on from what Kafka has, delete this partition's "
            "folder below STREAMAPP_DATA_DIR and start the worker again: what is missing is counted again from the source",
        )


def _client(settings: Settings) -> dict[str, Any]:
    return {
        **confluent_config(settings),
        "group.id": "streamapp-restore",  # the client insists on one; it never joins it
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "check.crcs": True,
    }


def _read(
    requests: Sequence[RestoreRequest],
    settings: Settings,
    clock: Clock,
    on_restored: Callable[[RestoreRequest], None],
    is_wanted: Callable[[RestoreRequest], bool],
) -> None:
    """Bring all these partitions up to date; blocks."""
    asyncio.run(_Restoring(requests, settings, clock, on_restored, is_wanted).run())


class _Restoring:
    """One run over partitions that are behind."""

    def __init__(
        self,
        requests: Sequence[RestoreRequest],
        settings: Settings,
        clock: Clock,
        on_restored: Callable[[RestoreRequest], None],
        is_wanted: Callable[[RestoreRequest], bool],
    ) -> None:
        self._waiting = {(request.topic, request.partition): request for request in requests}
        self._replays = {
            place: Replay(request.store, windowed=request.windowed, begin=request.begin)
            for place, request in self._waiting.items()
        }
        self._writes: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._settings = settings
        self._clock = clock
        self._on_restored = on_restored
        self._is_wanted = is_wanted

    async def run(self) -> None:
        """Until every partition is up to date, or is not wanted any more."""
        positions = {place: max(replay.position, self._waiting[place].begin) for place, replay in self._replays.items()}
        last_progress = self._clock.monotonic_ms()
        with concurrent.futures.ThreadPoolExecutor(_WRITES_MAX, "restore-write") as writers:
            async with contextlib.AsyncExitStack() as stack:
                reader = await self._connected(ChangelogReader(self._settings, positions), stack)
                try:
                    while self._waiting:
                        for chunk in await reader.next(_LOOK_S):
                            if await self._take(chunk, writers):
                                last_progress = self._clock.monotonic_ms()
                        for place in self._ended():
                            reader.drop(place)
                        self._check_progress(last_progress)
                finally:
                    await asyncio.gather(*self._writes.values(), return_exceptions=True)

    async def _connected(self, reader: ChangelogReader, stack: contextlib.AsyncExitStack) -> ChangelogReader:
        """The reader, once the brokers can be reached; what is waited for longer than without progress is an error."""
        begun = self._clock.monotonic_ms()
        while self._waiting:
            try:
                return await stack.enter_async_context(reader)
            except KafkaError as problem:
                log.warning("restoring: %s; trying again", problem)
            self._ended()
            self._check_progress(begun)
            await asyncio.sleep(_LOOK_S * random.uniform(0.5, 1.5))
        return reader

    async def _take(self, chunk: Chunk, writers: concurrent.futures.Executor) -> bool:
        """Have a chunk written; True where it brought the partition further."""
        request = self._waiting.get(chunk.place)
        if request is None:
            return False
        replay = self._replays[chunk.place]
        if chunk.nothing_here and chunk.high_watermark >= request.end:
            await self._written(chunk.place)
            replay.position = max(replay.position, request.end)  # compaction has emptied the rest
            return True
        if chunk.end <= replay.position:
            return False
        changes = replay.take(chunk.records(), chunk.end)
        request.records = replay.records
        await self._written(chunk.place)
        while sum(not write.done() for write in self._writes.values()) >= _WRITES_MAX:
            await asyncio.wait(self._writes.values(), return_when=asyncio.FIRST_COMPLETED)
        loop = asyncio.get_running_loop()
        self._writes[chunk.place] = loop.run_in_executor(writers, request.store.write, changes)
        if replay.position >= request.end:
            await self._written(chunk.place)
        return True

    async def _written(self, place: tuple[str, int]) -> None:
        """Wait for the partition's last write; chunks of one partition are written in their order."""
        write = self._writes.pop(place, None)
        if write is not None:
            await write

    def _ended(self) -> list[tuple[str, int]]:
        """Take out, and report, what is up to date; take out what is not wanted."""
        ended: list[tuple[str, int]] = []
        for place, request in list(self._waiting.items()):
            if not self._is_wanted(request):
                ended.append(place)
            elif self._replays[place].position >= request.end:
                ended.append(place)
                self._on_restored(request)
        for place in ended:
            del self._waiting[place]
        return ended

    def _check_progress(self, last_progress: int) -> None:
        timeout_ms = self._settings.restore_timeout_ms
        if self._waiting and self._clock.monotonic_ms() - last_progress > timeout_ms:
            names = ", ".join(f"{request.table}-{request.partition}" for request in self._waiting.values())
            raise StateError(
                next(iter(self._waiting.values())).table,
                None,
                f"restoring {names}: nothing came from the changelog for {timeout_ms} ms; check the brokers, or raise "
                "STREAMAPP_RESTORE_TIMEOUT_MS",
            )
