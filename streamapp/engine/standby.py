"""Copies of partitions that others own, kept up to date from their changelogs.

A copy is the same store that an owner has, at the same place on the disk: whoever is given the partition goes on from it and
restores next to nothing. Until then it can answer, as a copy: what it says may be a checkpoint old, or older.

All copies are read by one thread with a loop of its own, so that this worker's own partitions do not wait for them.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamapp.clock import Clock
from streamapp.engine.changelog import ChangelogReader
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import KafkaError, StateError
from streamapp.settings import Settings
from streamapp.state.partition import PartitionState
from streamapp.state.replay import Replay
from streamapp.state.store import StateStore

log = logging.getLogger(__name__)

_WAIT_S = 0.25
_RETRY_S = 1.0
_CACHE_MAX_ENTRIES = 1
Place = tuple[str, int]


@dataclass
class Standby:
    """One copy.

    Attributes:
        begin: the changelog's first offset when the copy was begun.
        end: where the changelog ended when it was last read; None before that.
        caught_up_ms: when the copy last held all that there was; None before that.
    """

    table: RunningTable
    partition: int
    store: StateStore
    begin: int
    end: int | None = None
    caught_up_ms: int | None = None

    def snapshot(self) -> LivePartition | None:
        """What it holds now, for one read; None where it has never been complete."""
        if self.caught_up_ms is None:
            return None
        state = PartitionState(
            self.table.definition,
            self.partition,
            self.store,
            origins=self.table.origins,
            cache_max_entries=_CACHE_MAX_ENTRIES,
        )
        return LivePartition(self.table, self.partition, self.store, state)

    def replay(self) -> Replay:
        """Where its store stands in the changelog; for whoever brings it further, one at a time."""
        replay = Replay(self.store, windowed=self.table.definition.window is not None, begin=self.begin)
        replay.position = max(replay.position, self.begin)
        return replay


class Standbys:
    """The copies of a worker.

    Args:
        settings: brokers and time-outs.
        clock: for the freshness of the copies.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._copies: dict[Place, Standby] = {}
        self._thread: threading.Thread | None = None
        self._stopping: Callable[[], None] | None = None

    def find(self, table: str, partition: int) -> Standby | None:
        """The copy of a partition, where there is one."""
        return self._copies.get((table, partition))

    @property
    def places(self) -> list[Place]:
        """(table, partition) of all copies."""
        return sorted(self._copies)

    async def pause(self) -> None:
        """Stop to read; the copies stay, and nobody writes to their stores."""
        thread = self._thread
        if thread is not None and self._stopping is not None:
            self._stopping()
            await asyncio.to_thread(thread.join)
        self._thread = None  # only now: whoever is cancelled while it waits has not paused anything

    def take(self, table: str, partition: int) -> StateStore | None:
        """Hand a copy's open store to its new owner; only while paused."""
        copy = self._copies.pop((table, partition), None)
        return None if copy is None else copy.store

    def drop(self, wanted: set[Place]) -> None:
        """Close what is not wanted any more; only while paused."""
        for place in [place for place in self._copies if place not in wanted]:
            self._copies.pop(place).store.close()

    def add(self, table: RunningTable, partition: int, store: StateStore, begin: int) -> None:
        """One more copy, in an open store; only while paused."""
        self._copies[table.name, partition] = Standby(table, partition, store, begin)

    def resume(self) -> None:
        """Read on."""
        if not self._copies or self._thread is not None:
            return
        # from what the stores hold: where a write failed, what was replayed in memory is ahead of it
        copies = {(copy.table.changelog_topic, copy.partition): (copy, copy.replay()) for copy in self._copies.values()}
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(copies, ready), name="standby", daemon=True)
        self._thread.start()
        ready.wait()

    async def stop(self) -> None:
        """Stop to read and close everything."""
        await self.pause()
        self.drop(set())

    def _run(self, copies: Mapping[Place, tuple[Standby, Replay]], ready: threading.Event) -> None:
        async def main() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None

            def stop() -> None:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    loop.call_soon_threadsafe(task.cancel)

            self._stopping = stop
            ready.set()
            await self._read_forever(copies)

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        except StateError as problem:
            # this worker's own partitions may well be on the same disk and will say so themselves
            log.error("the copies of other workers' partitions are not kept up to date any more: %s", problem)
        finally:
            ready.set()

    async def _read_forever(self, copies: Mapping[Place, tuple[Standby, Replay]]) -> None:
        while True:
            try:
                positions = {place: replay.position for place, (_, replay) in copies.items()}
                async with ChangelogReader(self._settings, positions) as reader:
                    while True:
                        for chunk in await reader.next(_WAIT_S):
                            copy, replay = copies[chunk.place]
                            if chunk.end > replay.position:
                                copy.store.write(replay.take(chunk.records(), chunk.end))
                            elif chunk.nothing_here:
                                replay.position = max(replay.position, chunk.end)
                            copy.end = chunk.high_watermark
                            if replay.position >= chunk.high_watermark or chunk.nothing_here:
                                copy.caught_up_ms = self._clock.now_ms()
                            await asyncio.sleep(0)
            except (KafkaError, OSError) as problem:
                log.warning("copies of other workers' partitions: %s; trying again", problem)
                await asyncio.sleep(_RETRY_S)
