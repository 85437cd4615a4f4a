"""Reading changelogs at the rate of the disk: whole answers of a broker, parsed without an object per step on the way.

aiokafka's consumer builds several objects per record and librdkafka's binding asks five calls of each message; here the
broker's answer goes to aiokafka's compiled parser at once, and the next answer is under way while one is parsed. There is
no group, no automatic reset: where a partition is to be read is said, and what cannot be read is an error.

This module uses parts of aiokafka that are not in its documentation (its client, the fetch request and the parser of
records); tests/integration/test_engine_contract.py names them.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streamapp.errors import KafkaError
from streamapp.kafka.config import aiokafka_options
from streamapp.settings import Settings
from streamapp.state.epochs import ChangelogRecord

Place = tuple[str, int]

#: bounds of one answer; parsed, its records take about three times as much
_ANSWER_MAX_BYTES = 8 << 20
_PARTITION_MAX_BYTES = 4 << 20
#: how long a broker holds a request that it has nothing for
_FETCH_WAIT_MS = 250
_RETRY_S = 0.1
_READ_UNCOMMITTED = 0


@dataclass
class Chunk:
    """What one answer brought of one partition.

    Attributes:
        end: the offset behind it.
        high_watermark: the changelog's next offset, as the broker says.
        nothing_here: there is nothing between this position and that offset.
    """

    place: Place
    end: int
    high_watermark: int
    nothing_here: bool
    _first: int
    _raw: bytes = b""

    def records(self) -> Iterable[ChangelogRecord]:
        """The same as iterating over the chunk."""
        return self

    def __iter__(self) -> Iterator[ChangelogRecord]:
        """The records in order of offset; parsed anew each time, so that they need not be kept.

        Raises:
            KafkaError: the bytes are damaged.
        """
        parts: list[Iterable[ChangelogRecord]] = []
        for batch in _batches(self._raw):
            if not batch.validate_crc():
                topic, partition = self.place
                raise KafkaError(
                    f"{topic}-{partition}: the records from offset {batch.base_offset} on are damaged (CRC); check the "
                    "broker's disk and the network"
                )
            if batch.is_control_batch:
                continue
            if batch.base_offset >= self._first:
                parts.append(batch)
            else:  # a broker sends whole batches, also where the position is in the middle of one
                parts.append([record for record in batch if record.offset >= self._first])
        return chain.from_iterable(parts)


def _batches(raw: bytes) -> Iterator[Any]:
    parsed = MemoryRecords(raw)
    while parsed.has_next():
        yield parsed.next_batch()


class ChangelogReader:
    """Reads partitions from given offsets on. Use it as an asynchronous context, on one event loop.

    Entering raises KafkaError where no broker can be reached; it may be entered again then.

    Args:
        settings: brokers, security, time-out of a request.
        positions: where to begin, per partition.
    """

    def __init__(self, settings: Settings, positions: Mapping[Place, int]) -> None:
        self._settings = settings
        self._positions = dict(positions)
        self._requests: dict[int, asyncio.Task[list[Chunk]]] = {}
        self._left_out: set[Place] = set()
        self._client: Any = None

    async def __aenter__(self) -> "ChangelogReader":
        self._client = AIOKafkaClient(client_id="streamapp-restore", **aiokafka_options(self._settings))
        try:
            await self._client.bootstrap()
            await self._client.set_topics({topic for topic, _ in self._positions})
        except errors.KafkaError as problem:
            await self._client.close()
            raise KafkaError(f"the changelogs cannot be read: {problem}") from problem
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._requests.values():
            task.cancel()
        await asyncio.gather(*self._requests.values(), return_exceptions=True)
        await self._client.close()

    def drop(self, place: Place) -> None:
        """Read this partition no further."""
        self._positions.pop(place, None)
        self._left_out.discard(place)

    async def next(self, timeout_s: float) -> list[Chunk]:
        """What has come, at most one answer per broker; nothing where the time is over.

        A partition that has nothing at its position comes as a chunk without records. The next answers are asked for
        before these are returned.

        Raises:
            KafkaError: a partition cannot be read from its position, now or later.
        """
        self._ask()
        if not self._requests:
            await asyncio.sleep(min(timeout_s, _RETRY_S))
            return []
        done, _ = await asyncio.wait(self._requests.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        chunks: list[Chunk] = []
        for node, task in list(self._requests.items()):
            if task in done:
                del self._requests[node]
                chunks += [chunk for chunk in task.result() if self._positions.get(chunk.place) == chunk._first]
        for chunk in chunks:
            self._positions[chunk.place] = chunk.end
        self._ask()
        await asyncio.sleep(0)  # lets the requests go out before the caller begins to parse
        return chunks

    def _ask(self) -> None:
        """One request to each broker that leads a partition and has none under way."""
        wanted: dict[int, dict[Place, int]] = {}
        for place, position in self._positions.items():
            leader = self._client.cluster.leader_for_partition(TopicPartition(*place))
            if leader is None or leader < 0:
                self._client.force_metadata_update()
            elif leader not in self._requests:
                wanted.setdefault(leader, {})[place] = position
        for node, positions in wanted.items():
            self._requests[node] = asyncio.create_task(self._fetch(node, positions))

    async def _fetch(self, node: int, positions: Mapping[Place, int]) -> list[Chunk]:
        topics: dict[str, list[tuple[int, int, int]]] = {}
        # shuffled, as the broker fills its answer from the front; and what it had no room for comes first
        order = sorted(random.sample(list(positions), len(positions)), key=lambda place: place not in self._left_out)
        for topic, partition in order:
            topics.setdefault(topic, []).append((partition, positions[topic, partition], _PARTITION_MAX_BYTES))
        request = FetchRequest(_FETCH_WAIT_MS, 1, _ANSWER_MAX_BYTES, _READ_UNCOMMITTED, list(topics.items()))
        try:
            answer = await self._client.send(node, request)
        except errors.KafkaError as problem:
            if not _passes(problem):
                raise KafkaError(f"a broker refuses to be read from: {problem}") from problem
            await self._retry()
            return []
        asked = [(topic, partition) for topic, partitions in topics.items() for partition, *_ in partitions]
        chunks = self._chunks(answer.topics or (), asked, positions)
        if len(chunks) < len(positions):
            await self._retry()
        return chunks

    def _chunks(self, topics: Iterable[Any], order: Sequence[Place], positions: Mapping[Place, int]) -> list[Chunk]:
        """What came, in the order in which it was asked for; without what has to be asked for again.

        That a partition came empty does not say that nothing is there: the others may have filled the answer, or its next
        batch is larger than the share of one partition. Only of the first that has any does a broker send at least one
        batch, however large; so nothing is there where all before it are empty, too.
        """
        came = {(topic, answered[0]): answered for topic, partitions in topics for answered in partitions}
        chunks: list[Chunk] = []
        full = False
        for place in order:
            if place not in came:
                continue
            _, code, high_watermark, *rest = came[place]
            first = positions[place]
            if code:
                self._judge(place, first, code)
                continue
            raw = rest[-1] or b""
            end = first
            for batch in _batches(raw):
                end = batch.next_offset
            full = full or bool(raw)
            nothing_here = end == first and (not full or first >= high_watermark)
            chunks.append(Chunk(place, end, high_watermark, nothing_here, first, raw if end > first else b""))
            if end == first and not nothing_here:
                self._left_out.add(place)
            else:
                self._left_out.discard(place)
        return chunks

    def _judge(self, place: Place, position: int, code: int) -> None:
        kind = errors.for_code(code)
        name = f"{place[0]}-{place[1]}"
        if kind is errors.OffsetOutOfRangeError:
            raise KafkaError(f"{name}: offset {position} is not there any more; was the topic cut or re-created?")
        if not _passes(kind()):
            raise KafkaError(f"{name}: cannot be read from offset {position}: {kind.__name__}")

    async def _retry(self) -> None:
        """The leaders may have changed; asked again after a moment, for as long as the caller has patience."""
        self._client.force_metadata_update()
        await asyncio.sleep(_RETRY_S * random.uniform(0.5, 1.5))


def _passes(problem: Exception) -> bool:
    return bool(getattr(problem, "retriable", False)) or isinstance(
        problem, (errors.KafkaConnectionError, errors.CorrelationIdError, errors.NodeNotReadyError)
    )
