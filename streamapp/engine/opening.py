"""Opening the stores of partitions, whatever is found on the disk: a lock, a copy, or the state of another changelog."""

import asyncio
import random

from streamapp.engine.identity import check_store
from streamapp.engine.restore import starts_over
from streamapp.engine.rocks import RocksFactory
from streamapp.engine.standby import Standbys
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import SourceChangedError, StateError
from streamapp.settings import Settings
from streamapp.state.store import StateStore

_TRIES = 20
_PAUSE_S = 0.25


class StoreOpener:
    """Opens stores and makes sure that they belong to this cluster's changelogs.

    Args:
        stores: where they are on the disk.
        standbys: the copies that are kept here; one of them is where its owner goes on from.
        cluster_id: the cluster that stores have to belong to.
    """

    def __init__(self, stores: RocksFactory, standbys: Standbys, settings: Settings, cluster_id: str) -> None:
        self._stores = stores
        self._standbys = standbys
        self._settings = settings
        self._cluster_id = cluster_id

    async def to_own(self, table: RunningTable, partition: int, begin: int, end: int) -> LivePartition:
        """The store of a partition that this worker takes over, from a copy where there is one.

        Args:
            table: whose it is.
            partition: which.
            begin: the first offset of its changelog.
            end: the offset after the last; a changelog that starts over is the only reason to begin the store anew.

        Raises:
            SourceChangedError: it belongs to another changelog.
            StateError: the disk is full, or another process does not let go of the folder.
        """
        copy = self._standbys.take(table.name, partition)
        live = LivePartition(table, partition, copy or await self._open(table.name, partition))
        try:
            check_store(live, self._cluster_id)
        except SourceChangedError:
            place = (table.changelog_topic, partition)
            marked = await asyncio.to_thread(starts_over, self._settings, place, begin, end)
            live.store.close()
            if not marked:
                raise
            live = await self._anew(table, partition)
        return live

    async def to_copy(self, table: RunningTable, partition: int) -> StateStore:
        """The store of a copy; one that belongs to another changelog is begun anew, as it is only a copy.

        Raises:
            StateError: as of `to_own`.
        """
        live = LivePartition(table, partition, await self._open(table.name, partition))
        try:
            check_store(live, self._cluster_id)
        except SourceChangedError:
            live.store.close()
            live = await self._anew(table, partition)
        return live.store

    async def _anew(self, table: RunningTable, partition: int) -> LivePartition:
        self._stores.remove(table.name, partition)
        live = LivePartition(table, partition, await self._open(table.name, partition))
        check_store(live, self._cluster_id)
        return live

    async def _open(self, table: str, partition: int) -> StateStore:
        """Open a store; the previous owner on this machine may need a moment to let go of it."""
        for attempt in range(_TRIES):
            try:
                return self._stores.open(table, partition)
            except StateError:
                if attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")
