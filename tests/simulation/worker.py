"""A simulated host: a disk that stays, and one process after the other that runs the real engine on it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from streamapp.engine import checkpoints, ownership, restore, runtime
from streamapp.engine.runtime import Engine
from streamapp.errors import DefinitionChangedError, ProduceError, SourceChangedError, StateError
from streamapp.settings import Settings
from streamapp.state import grouping
from streamapp.state.definition import TableDefinition
from streamapp.state.replay import Replay
from tests.fakes.batches import batch_of
from tests.simulation.clients import CLUSTER_ID, Network, SimulatedAdmin, SimulatedProducer
from tests.simulation.cluster import Cluster, Place, Stored
from tests.simulation.disk import Disk, SimulatedStores
from tests.simulation.group import REBALANCE_TIMEOUT_S, Group
from tests.simulation.process import Process
from tests.simulation.world import SimulatedLoop, running

if TYPE_CHECKING:
    from streamapp.kafka.record_batch import RecordBatch

APP_ID = "app"
HEARTBEAT_S = 0.15
#: how long what a fetch has taken is on its way, at most: rebalances come and go meanwhile
LATE_FETCH_S = 2.0


class Silent:
    """Metrics that nobody reads."""

    def __getattr__(self, name: str) -> "Silent":
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> "Silent":
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


class Worker:
    """One host of the group.

    Attributes:
        disk: survives its processes, unless a fault takes it.
        process: the one that runs now, or ran last.
    """

    def __init__(
        self,
        name: str,
        cluster: Cluster,
        group: Group,
        network: Network,
        settings: Settings,
        definitions: Sequence[TableDefinition],
    ) -> None:
        self.name = name
        self.cluster, self.world, self.group, self.network = cluster, cluster.world, group, network
        self.settings, self.definitions = settings, definitions
        self.disk = Disk(cluster)
        self.process: Process | None = None
        self.lives = 0
        self.life: Life | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start a process, unless one runs."""
        if self.alive:
            return
        self.lives += 1
        self.process = Process(self.world, f"{self.name}.{self.lives}", self._ended)
        self.world.note("start", self.process.name)
        self.life = self.process.loop.owner = Life(self, self.process)
        loop = self.process.loop
        loop.call_soon(lambda: setattr(self.life, "main", loop.create_task(self.life.run())))

    def _ended(self, process: Process) -> None:
        self.world.note("end", process.name)
        if self.life is not None and self.life.process is process:
            for producer in self.life.producers:
                producer.process_ended()


class Life:
    """What `LaneConsumer` and the app around it do for the engine, over the simulated group."""

    def __init__(self, worker: Worker, process: Process) -> None:
        self.worker, self.process = worker, process
        self.world, self.cluster, self.group = worker.world, worker.cluster, worker.group
        self.producers: list[SimulatedProducer] = []
        self.engine: Engine | None = None
        self.generation = -1
        self.assignment: set[Place] = set()
        self.positions: dict[Place, int] = {}
        self.emptied: dict[Place, int] = {}  # when a fetch last found nothing
        self.group_positions: dict[Place, int | None] = {}
        self.told: dict[Place, str] = {}
        self.flowing = False
        self.on_its_way = False  # something that a fetch has taken
        self.checkpointed_s = 0.0  # when the last complete checkpoint began
        self.heard_s = 0.0  # when the coordinator last heard of it
        self.cut_until = 0.0  # until then nothing passes between it and the coordinator
        self._member = False
        self.main: asyncio.Task[None] | None = None
        self.stopping = False
        self._rejoining = False  # from giving back what was assigned to asking for it anew
        self._joins = 0
        self._seeking: asyncio.Task[None] | None = None
        self._news: asyncio.Queue[Any] = asyncio.Queue()

    # --- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        worker = self.worker
        with patched(self):
            self.engine = engine = Engine(
                APP_ID,
                worker.settings,
                Silent(),
                on_failure=self.failed,
                clock=self.world,  # type: ignore[arg-type]
            )
        checkpoint = engine.flush

        async def timed() -> None:
            began = self.world.now
            await checkpoint()
            self.checkpointed_s = began

        engine.flush = timed  # type: ignore[method-assign]
        for definition in worker.definitions:
            engine.add(definition)
        engine.attach(self)
        try:
            await engine.start(SimulatedStores(worker.disk, self.process))  # type: ignore[arg-type]
        except Exception as problem:
            self.failed(problem)
            return
        engine.lease.attach()
        self._join()
        self._beat()
        self._tasks = [asyncio.create_task(self._fetch()), asyncio.create_task(self._commit_forever())]
        while True:
            await (await self._news.get())()

    def failed(self, problem: BaseException) -> None:
        """What `StreamApp.fail` does: stop the worker."""
        self.world.note("failed", self.process.name, type(problem).__name__)
        if isinstance(problem, SourceChangedError | DefinitionChangedError) or not isinstance(
            problem, ProduceError | StateError
        ):
            self.world.violations.append(f"{self.process.name} stopped: {type(problem).__name__}: {problem}")
        self.stop()

    def stop(self) -> None:
        """A planned stop, or one after a failure."""
        if not self.stopping and self.process.alive:
            self.stopping = True
            self.process.loop.create_task(self._stop())

    async def _stop(self) -> None:
        assert self.engine is not None
        if self.main is not None:
            self.main.cancel()
        self.flowing = self._member = False
        with contextlib.suppress(ProduceError, StateError):
            await self._settle()
            self.group.leave(self)
        with contextlib.suppress(ProduceError, StateError):
            await self.engine.stop()
        self.process.kill()

    # --- what the group tells it -------------------------------------------------------------------------------------

    def rejoin(self) -> None:
        """A heartbeat's answer: the group rebalances."""
        if self.process.alive:
            self.process.loop.call_soon(self._news.put_nowait, self._rejoin)

    def assigned(self, generation: int, places: set[Place], sent_ms: int) -> None:
        """The answer to a join, and when the request for it was sent."""

        number = self._joins

        async def take() -> None:
            assert self.engine is not None
            if self._rejoining or number != self._joins:
                return  # the next round has begun: the request that this answers is not waited for any more
            self.generation, self.assignment = generation, set(places)
            self.engine.lease.join()
            self.engine.lease.renew(sent_ms)
            if self._seeking is not None:
                self._seeking.cancel()
            self._seeking = asyncio.create_task(self._seek(self.engine.revocations))

        if self.process.alive:
            self.process.loop.call_soon(self._news.put_nowait, take)

    async def _seek(self, revocations: int) -> None:
        """Take over some time after the assignment, as Faust does: the next rebalance may have begun by then."""
        assert self.engine is not None
        await asyncio.sleep(self.world.latency(0.005))
        places = set(self.assignment)
        self.positions = {place: self.cluster.committed.get(place, 0) for place in places}
        self.group_positions = {place: self.cluster.committed.get(place) for place in places}
        self.told = {}
        await self.engine.assign(sorted(places), revocations=revocations)
        self.flowing = True

    @property
    def seeking(self) -> bool:
        """Whether it has been assigned something that it has not taken over yet."""
        return self._seeking is not None and not self._seeking.done()

    async def _rejoin(self) -> None:
        self._rejoining = True
        self.flowing = False
        try:
            await self._settle()
        except Exception as problem:
            self.failed(problem)
            return
        self._join()

    async def _settle(self) -> None:
        assert self.engine is not None
        if await self.engine.revoke():
            self._commit()

    def _join(self) -> None:
        """Join the group, as soon as the coordinator can be reached."""
        if not self.process.alive:
            return
        if self.is_silent():
            self.world.after(0.1, self._join)
            return
        self._member, self._rejoining = True, False
        self._joins += 1
        self.group.joined(self)

    def is_silent(self) -> bool:
        """Whether the coordinator hears nothing of it now."""
        return max(self.cut_until, self.process.loop.paused_until) > self.world.now

    def _beat(self) -> None:
        """One heartbeat, from the consumer's own thread: it goes on while the event loop is busy."""
        if not self.process.alive or self.engine is None:
            return
        self.world.after(HEARTBEAT_S * (0.8 + 0.4 * self.world.random.random()), self._beat)
        if self.is_silent():
            return
        answer, sent_ms = self.group.heartbeat(self), self.world.monotonic_ms()
        self.world.after(self.world.latency(0.002), self._answered, answer, sent_ms)

    def _answered(self, answer: str, sent_ms: int) -> None:
        if not self.process.alive or self.is_silent() or self.engine is None or not self._member:
            return
        lease = self.engine.lease
        if answer == "unknown":
            lease.lapse()
            self._member = False
            self.rejoin()
        else:
            lease.renew(sent_ms, rebalancing=answer == "rebalancing")

    # --- what the engine asks of the consumer ------------------------------------------------------------------------

    async def seek_lane(self, topic: str, partition: int, offset: int) -> None:
        await asyncio.sleep(self.world.latency(0.0005))
        self.cluster.last_change = self.world.now
        if (topic, partition) in self.assignment:
            self.positions[topic, partition] = offset
            self.emptied.pop((topic, partition), None)

    def has_agents(self, topic: str, partition: int) -> bool:
        return False

    def committed_position(self, topic: str, partition: int) -> int | None:
        return self.group_positions.get((topic, partition))

    def emptied_ms(self, topic: str, partition: int) -> int | None:
        return self.emptied.get((topic, partition))

    def wake(self) -> None:
        """The next fetch comes soon enough."""

    # --- fetching and committing ---------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        engine, random = self.engine, self.world.random
        assert engine is not None
        late = False
        while True:
            # what came late and what follows it may reach a lane before it takes its next chunk
            await asyncio.sleep(0.0 if late else random.choice((0.01, 0.05, 0.1)))
            behind, late = late, False
            if not self.flowing:
                continue
            taken: dict[Place, RecordBatch] = {}
            for place in sorted(self.assignment):
                if engine.held(*place):
                    continue
                position = self.positions[place]
                records = self.cluster.logs[place].read(position, random.choice((1, 3, 10, 40)))
                if records:
                    self.positions[place] = records[-1].offset + 1
                    taken[place] = batch_of(records, min_offset=position)
                else:
                    self.emptied[place] = engine.clock.monotonic_ms()
            self.on_its_way = bool(taken)
            if taken and not behind:
                # from the consumer's thread; the position may be set, and everything be another's, meanwhile
                late = random.random() < 0.1
                await asyncio.sleep(LATE_FETCH_S * random.random() if late else 0.001)
            for place, batch in taken.items():
                lane = engine.lanes.get(place)
                if self.flowing and lane is not None and lane.ready and not lane.offer([batch]):
                    await self.seek_lane(*place, lane.next_offset)
            self.on_its_way = False

    async def _commit_forever(self) -> None:
        while True:
            await asyncio.sleep(self.world.random.choice((0.1, 0.2, 0.4)))
            if self.flowing:
                self._commit()

    def _commit(self) -> None:
        assert self.engine is not None
        news: dict[Place, tuple[int, str]] = {}
        for place, lane in self.engine.lanes.items():
            told, known = self.engine.commit_metadata(*place), self.group_positions.get(place)
            if told is None:
                continue
            if lane.durable >= 0 and lane.durable + 1 > (known or 0):
                news[place] = lane.durable + 1, told
            elif known is not None and told and told != self.told.get(place):
                news[place] = known, told
        if news and not self.is_silent() and self.group.commit(self, news):
            self.group_positions.update({place: offset for place, (offset, _) in news.items()})
            self.told.update({place: told for place, (_, told) in news.items()})


@contextlib.contextmanager
def patched(life: Life) -> Iterator[None]:
    """While an engine is built it finds simulated clients in the place of Kafka's."""

    def producer(*args: Any, **kwargs: Any) -> SimulatedProducer:
        life.producers.append(SimulatedProducer(life.cluster, life.worker.network, life.process))
        return life.producers[-1]

    def admin(*args: Any, **kwargs: Any) -> SimulatedAdmin:
        return SimulatedAdmin(life.cluster, life.worker.network)

    with patch.multiple(runtime, DurableProducer=producer, KafkaAdmin=admin):
        yield


_by_expressions = grouping._by_expressions


def _sorted_groups(*args: Any) -> list[Any] | None:
    """Groups come out of polars in any order, which is not drawn from the seed."""
    found = _by_expressions(*args)
    return None if found is None else sorted(found, key=lambda row: row[:2])


async def _answers(*args: Any, **kwargs: Any) -> str:
    """A cluster that is there."""
    return CLUSTER_ID


def _read(
    requests: Sequence[Any],
    settings: Any,
    clock: Any,
    on_restored: Callable[[Any], None],
    is_wanted: Callable[[Any], bool],
) -> Iterator[bool]:
    """What the restoring thread does, cut into steps: between two of them anything else may happen."""
    life: Life = running[-1].owner
    random, process = life.world.random, life.process
    replays = [(request, Replay(request.store, windowed=request.windowed, begin=request.begin)) for request in requests]
    while replays:
        for pair in list(replays):
            request, replay = pair
            yield True
            if not is_wanted(request):
                replays.remove(pair)
                continue
            log = life.cluster.logs[request.topic, request.partition]
            limit = random.choice((1, 3, 10, 100))
            records = log.read(replay.position, limit)
            end = records[-1].offset + 1 if len(records) == limit else log.end
            changes = replay.take(records, end)
            request.records = replay.records
            request.store.write(changes)
            if replay.position >= request.end:
                replays.remove(pair)
                on_restored(request)
            if not process.alive:
                return


@dataclass(frozen=True)
class Chunk:
    """Some records of a changelog, as `ChangelogReader` hands them out."""

    found: Sequence[Stored]
    end: int
    high_watermark: int
    nothing_here: bool = False

    def records(self) -> Sequence[Stored]:
        return self.found


class SimulatedReader:
    """In the place of `ChangelogReader`, for reading back a part of a changelog."""

    def __init__(self, life: Life, positions: Mapping[Place, int]) -> None:
        self._life, self._positions = life, dict(positions)

    async def __aenter__(self) -> "SimulatedReader":
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def next(self, timeout_s: float) -> list[Chunk]:
        await asyncio.sleep(self._life.world.latency(0.002))
        chunks = []
        for place, position in self._positions.items():
            log = self._life.cluster.logs[place]
            limit = self._life.world.random.choice((1, 3, 100))
            found = log.read(position, limit)
            end = found[-1].offset + 1 if found else log.end
            chunks.append(Chunk(found, end, log.end, not found))
            self._positions[place] = end
        return chunks


def _reader(settings: Any, positions: Mapping[Place, int]) -> SimulatedReader:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return SimulatedReader(loop.owner, positions)


def for_good() -> None:
    """Replace, for the rest of this process, what no constructor takes."""
    runtime.kafka_answers = _answers  # type: ignore[assignment]
    runtime.REBALANCE_TIMEOUT_MS = int(REBALANCE_TIMEOUT_S * 1000)
    ownership.ChangelogReader = _reader  # type: ignore[misc,assignment]
    restore._read = _read  # type: ignore[assignment]
    checkpoints._WRITE_IN_THREAD_MIN = 5
    grouping._by_expressions = _sorted_groups
