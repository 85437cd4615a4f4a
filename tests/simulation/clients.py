"""What a simulated process has in the place of Kafka's clients."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from streamapp.errors import ProduceError
from streamapp.kafka.admin import Commit, TopicDescription
from streamapp.kafka.producer import OutMessage
from streamapp.kafka.topics import TopicSpec
from tests.simulation.cluster import Cluster, Place
from tests.simulation.process import Process

CLUSTER_ID = "cluster"


@dataclass
class Network:
    """How the way to the brokers is at the moment.

    Attributes:
        latency_s: typical time of one way.
        failing: share of the chunks of records that fail.
        gaps: whether what follows a failed chunk may succeed all the same.
        lands_late: whether what a dead process had sent may still arrive, later.
    """

    latency_s: float = 0.001
    failing: float = 0.0
    gaps: bool = True
    lands_late: bool = False


class _Call:
    """One `send_all`."""

    def __init__(self, expected: int, done: "asyncio.Future[None]") -> None:
        self.offsets = [-1] * expected
        self.errors: list[str] = []
        self.left = expected
        self.done = done

    def settled(self, count: int) -> None:
        self.left -= count
        if not self.left and not self.done.done():
            self.done.set_result(None)


@dataclass
class _Chunk:
    call: _Call
    messages: list[tuple[int, OutMessage]]


class SimulatedProducer:
    """In the place of `DurableProducer`: in order per partition, acknowledged in pieces, each of which can fail."""

    def __init__(self, cluster: Cluster, network: Network, process: Process) -> None:
        self._cluster, self._network, self._process = cluster, network, process
        self._world = cluster.world
        self._waiting: dict[Place, deque[_Chunk]] = {}
        self._broken: set[Place] = set()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self, timeout_s: float | None = None) -> None:
        """Everything that was sent is waited for by whoever sent it."""

    @property
    def pending(self) -> int:
        return sum(len(chunk.messages) for chunks in self._waiting.values() for chunk in chunks)

    async def send_all(self, messages: Collection[OutMessage]) -> list[int]:
        if not messages:
            return []
        call = _Call(len(messages), self._process.loop.create_future())
        by_place: dict[Place, list[tuple[int, OutMessage]]] = {}
        for index, message in enumerate(messages):
            place = self._cluster.place_of(message.topic, message.key, message.partition)
            by_place.setdefault(place, []).append((index, message))
        random = self._world.random
        for place, found in by_place.items():
            cut = random.randrange(len(found)) if random.random() < 0.4 else 0
            for part in (found[:cut], found[cut:]):
                if part and self._process.alive:
                    self._waiting.setdefault(place, deque()).append(_Chunk(call, part))
                    self._world.after(self._world.latency(self._network.latency_s), self._arrive, place)
        await call.done
        if call.errors:
            raise ProduceError(
                next(iter(messages)).topic, len(call.errors), f"{len(call.errors)} records failed: {call.errors[0]}"
            )
        return call.offsets

    def _arrive(self, place: Place) -> None:
        waiting = self._waiting.get(place)
        if not waiting:
            return
        chunk = waiting.popleft()
        if not self._process.alive:
            self._append(place, chunk)  # it was on its way when the process ended
            return
        world = self._world
        error = ""
        if place in self._broken and not self._network.gaps:
            error = "an earlier record failed"
        elif self._network.failing and world.chance(self._network.failing):
            error = "timed out"
            self._broken.add(place)
            if world.chance(0.5):  # appended, but its acknowledgement is lost
                self._append(place, chunk)
        elif not self._process.before_effect():
            waiting.appendleft(chunk)
            self._process.settle()
            return
        else:
            self._append(place, chunk)
            self._process.after_effect()
            if self._process.settle():
                return
        world.after(world.latency(self._network.latency_s), self._acknowledge, chunk, error)

    def _append(self, place: Place, chunk: _Chunk) -> None:
        for index, message in chunk.messages:
            # topics that are created here have the time of arrival, whatever a producer says
            offset = self._cluster.append(place, message.key, message.value, message.headers)
            # sent again after a lost answer, a record may only be said to be there
            untold = self._network.failing and self._cluster.world.chance(0.05)
            chunk.call.offsets[index] = -1 if untold else offset

    def _acknowledge(self, chunk: _Chunk, error: str) -> None:
        if self._process.alive:
            self._process.loop.call_soon(self._settle, chunk, error)

    @staticmethod
    def _settle(chunk: _Chunk, error: str) -> None:
        if error:
            chunk.call.errors.append(error)
        chunk.call.settled(len(chunk.messages))

    def process_ended(self) -> None:
        """Of what is on its way, some arrives per partition, and the rest never does."""
        random = self._world.random
        for place, chunks in self._waiting.items():
            arriving = random.randint(0, len(chunks))
            part = random.random() < 0.3
            kept = list(chunks)[:arriving]
            if part and kept:
                kept[-1].messages = kept[-1].messages[: random.randrange(len(kept[-1].messages) + 1)]
            chunks.clear()
            for chunk in kept:
                if self._network.lands_late:
                    chunks.append(chunk)
                    self._world.after(self._world.random.random() * 2, self._arrive, place)
                else:
                    self._append(place, chunk)


class SimulatedAdmin:
    """In the place of `KafkaAdmin`: the answer is of some moment between question and return."""

    def __init__(self, cluster: Cluster, network: Network) -> None:
        self._cluster, self._network = cluster, network

    async def _pass(self) -> None:
        await asyncio.sleep(self._cluster.world.latency(self._network.latency_s))

    async def cluster_id(self) -> str:
        await self._pass()
        return CLUSTER_ID

    async def describe_topics(
        self, names: Iterable[str], *, with_config: bool = True
    ) -> dict[str, TopicDescription | None]:
        await self._pass()
        counts = self._cluster.partitions
        return {
            name: TopicDescription(name, f"id-{name}", counts[name], 1) if name in counts else None for name in names
        }

    async def ensure_topics(self, specs: Sequence[TopicSpec], *, as_found: bool = False) -> dict[str, TopicDescription]:
        await self._pass()
        for spec in specs:
            self._cluster.create(spec.name, spec.partitions, compacted=spec.cleanup == "compact")
        return {name: topic for name, topic in (await self.describe_topics([s.name for s in specs])).items() if topic}

    async def begin_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        wanted = list(places)
        await self._pass()
        return dict.fromkeys(wanted, 0)

    async def end_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        wanted = list(places)
        await self._pass()
        found = {place: self._cluster.logs[place].end for place in wanted}
        await self._pass()
        return found

    async def commits(self, group: str, places: Iterable[Place]) -> dict[Place, Commit | None]:
        wanted = list(places)
        await self._pass()
        committed, told = self._cluster.committed, self._cluster.told
        found = {
            place: Commit(committed[place], told.get(place, "")) if place in committed else None for place in wanted
        }
        await self._pass()
        return found
