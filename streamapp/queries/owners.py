"""The other workers by what they have: who is asked for a partition that is not here, and all of them for a whole table."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamapp.engine.tables import RunningTable
from streamapp.errors import OwnerUnreachableError, QueryError, RestoringError
from streamapp.queries.model import Reading
from streamapp.queries.peers import Peers, key_path, reading_of
from streamapp.queries.readings import RESTORING_RETRY_S

#: URL -> topic -> partitions, of every worker
Distribution = Callable[[], Mapping[str, Mapping[str, Sequence[int]]]]


class Owners:
    """Finds and asks the workers that have what this one has not.

    Args:
        peers: asks them.
        owners: who has what, as of the last rebalance.
        copies: who keeps copies of what.

    Attributes:
        own_url: of this worker, which is never asked; without a slash at its end.
    """

    def __init__(self, peers: Peers, owners: Distribution, copies: Distribution) -> None:
        self.own_url = ""
        self._peers = peers
        self._owners = owners
        self._copies = copies

    def of(self, running: RunningTable, partition: int, local_only: bool) -> str:
        """The URL of the worker that has this partition.

        Raises:
            OwnerUnreachableError: the read was forwarded already.
            RestoringError: for now nobody has it, as far as is known here.
        """
        if local_only:
            raise OwnerUnreachableError(
                f"partition {partition} of {running.name} is not here (any more); ask again", retry_after_s=1
            )
        if not running.partitions:
            raise RestoringError("this worker has just started", retry_after_s=RESTORING_RETRY_S)
        topic = running.input_topics[0]
        for url, topics in self._owners().items():
            if partition in topics.get(topic, ()) and url.rstrip("/") != self.own_url:
                return url
        raise RestoringError(
            f"partition {partition} of {running.name} is being assigned", retry_after_s=RESTORING_RETRY_S
        )

    def of_others(self, running: RunningTable) -> list[str]:
        """The other workers that together have what this one has not; errors as of `of`."""
        urls = {
            self.of(running, partition, False)
            for partition in range(running.partitions)
            if partition not in running.live
        }
        return sorted(urls)

    async def copied(
        self, running: RunningTable, partition: int, key: str, at: int | None, max_staleness_ms: int | None
    ) -> Reading | None:
        """The answer of another worker that keeps a copy of the partition, marked as stale; None where there is none."""
        topic = running.input_topics[0]
        for url, topics in self._copies().items():
            if partition in topics.get(topic, ()) and url.rstrip("/") != self.own_url:
                with contextlib.suppress(QueryError):
                    parameters = {"at": at, "max_staleness_ms": max_staleness_ms}
                    return reading_of(await self._peers.get(url, key_path(running.name, key), parameters))
        return None

    async def gather(
        self, running: RunningTable, local_only: bool, path: str, parameters: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """The other workers' answers, and the partitions that nobody answered for."""
        topic = running.input_topics[0]
        restoring = {partition for partition, live in running.live.items() if live.state is None}
        missing = set(range(running.partitions)) - set(running.live)
        if local_only or not missing:
            return [], sorted(restoring)
        others = [
            (url, set(topics.get(topic, ())) & missing)
            for url, topics in self._owners().items()
            if url.rstrip("/") != self.own_url
        ]
        answers: list[dict[str, Any]] = []

        async def ask(url: str, partitions: set[int]) -> None:
            with contextlib.suppress(QueryError):
                body = await self._peers.get(url, path, parameters)
                answers.append(body)
                missing.difference_update(partitions.difference(body.get("missing_partitions", ())))

        await asyncio.gather(*(ask(url, partitions) for url, partitions in others if partitions))
        return answers, sorted(missing | restoring)
