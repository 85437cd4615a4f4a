"""One seed: a scenario, a schedule, faults, and the verdict."""

import random
from dataclasses import dataclass
from random import Random
from typing import Any

from streamapp.settings import Settings
from streamapp.state import lanes
from streamapp.state.definition import TableDefinition
from tests.simulation import worker as workers
from tests.simulation.clients import Network
from tests.simulation.cluster import Cluster
from tests.simulation.group import SESSION_TIMEOUT_S, Group
from tests.simulation.nemesis import Nemesis
from tests.simulation.oracle import Oracle, at_rest
from tests.simulation.worker import Worker
from tests.simulation.workload import MAX_FUTURE_MS, MAX_RECORD_BYTES, Records, Scenario, scenario_of
from tests.simulation.world import Stuck, World

_SETTINGS: dict[tuple[Any, ...], Settings] = {}


@dataclass(frozen=True)
class Verdict:
    """What became of a seed.

    Attributes:
        problems: what did not hold; empty where all did.
        digest: the hash of everything that happened.
    """

    seed: int
    scenario: str
    problems: list[str]
    digest: str
    steps: int
    simulated_s: float
    trace: list[str] | None


def simulate(seed: int, *, records: int | None = None, keep_trace: bool = False) -> Verdict:
    """Run one seed.

    Args:
        records: run the same seed over so many records instead of what it draws.
        keep_trace: keep the lines of the trace, for people.
    """
    workers.for_good()
    random.seed(seed)  # the engine's own jitter
    world = World(seed, keep_trace=keep_trace)
    drawn = scenario_of(seed)
    if records is not None:
        drawn.records = records
    run = Run(world, drawn)
    try:
        run.all()
    except Stuck as problem:
        world.violations.append(f"stuck at {world.now:.3f} s: {problem}")
    finally:
        run.end()
    return Verdict(seed, drawn.describe(), world.violations, world.digest, world.steps, world.now, world.trace)


class Run:
    """The parts of one simulation, wired."""

    def __init__(self, world: World, drawn: Scenario) -> None:
        self.world, self.scenario = world, drawn
        draw = world.random
        lanes.ARRAYS_MIN_RECORDS = lanes.EXPRESSIONS_MIN_MERGES = draw.choice((3, 192, 192))
        self.cluster = Cluster(world)
        for topic in drawn.sources:
            self.cluster.create(topic, drawn.partitions)
        self.oracle = Oracle(self.cluster, drawn)
        self.group = Group(self.cluster, drawn.partitions, self._topics, self.oracle.committing)
        self.network = Network(latency_s=draw.choice((0.0005, 0.002, 0.01)), lands_late=draw.random() < 0.3)
        settings = _settings(draw, drawn)
        # checkpoints are slow here, and some of them pass before the partitions of a re-keyed table are told the rest
        rekeyed = any(table.rekey and table.window for table in drawn.tables)
        looks_ms = 12 * (max(settings.commit_interval_ms, settings.rekey_marker_interval_ms) + 200) if rekeyed else 0
        self._quiet_s = (3 * settings.commit_interval_ms + settings.idle_timeout_ms + looks_ms) / 1000 + 0.1
        self.workers = [
            Worker(f"w{index}", self.cluster, self.group, self.network, settings, self._first_tables())
            for index in range(drawn.workers)
        ]
        self.nemesis = Nemesis(self)
        self.left = drawn.records
        self._resting = False
        self._makers = [Records(draw, topic, "poison" in drawn.faults) for topic in drawn.sources]

    def _topics(self) -> list[str]:
        rekeyed = {f"{workers.APP_ID}-{table.name}-rekey" for table in self.scenario.tables if table.rekey}
        sources = {source.topic for table in self.scenario.tables for source in table.sources}
        return sorted(sources | (rekeyed & self.cluster.partitions.keys()))

    def _first_tables(self) -> list[TableDefinition]:
        """What a worker knows of at first."""
        return [table for table in self.scenario.tables if not (self.scenario.old_group and table.rekey)]

    def _age(self) -> None:
        """Let the group have come some way before anything runs here: its agents, or tables that are gone, did."""
        self._append(self.left // 2)
        for place, log in self.cluster.logs.items():
            self.cluster.committed[place] = self.world.random.randint(0, log.end)

    def _upgrade(self, worker: Worker) -> None:
        """Start a worker with all tables from now on, as a rolling restart does."""
        worker.definitions = self.scenario.tables
        self.world.note("upgrade", worker.name)
        if worker.alive and worker.life is not None and worker.life.engine is not None:
            worker.life.stop()
        self.nemesis.again(worker)

    @property
    def _upgraded(self) -> bool:
        return not self.scenario.old_group or all(one.definitions is self.scenario.tables for one in self.workers)

    def all(self) -> None:
        """Records and faults for a while; then rest, and the verdict; then the same from the changelogs alone."""
        world = self.world
        if self.scenario.old_group:
            self._age()
        self._produce()
        if len(self.workers) > 1:
            world.after(0.1, self._probe)
        for worker in self.workers:
            world.after(world.random.random() * 0.2, worker.start)
            if self.scenario.old_group:
                world.after(world.random.random() * 3, self._upgrade, worker)
        world.after(0.1, self.nemesis.strike)
        world.run(lambda: self.left == 0 and self.nemesis.over and self._upgraded, limit_s=200)
        self._rest("at rest")
        if world.violations or world.seed % 3:
            return
        self._lose_everything()
        self._rest("from the changelogs alone")

    def _produce(self) -> None:
        """Append a few records, and more later."""
        random = self.world.random
        self._append(min(self.left, random.choice((1, 2, 5, 20))))
        if self.left:
            self.world.after(random.choice((0.001, 0.03, 0.1, 0.3)), self._produce)

    def _append(self, count: int) -> None:
        random = self.world.random
        for _ in range(count):
            maker = random.choice(self._makers)
            topic = maker.topic
            made, key, value = maker.next(self.cluster)
            place = (topic, made.partition)
            self.oracle.made.setdefault(place, []).append(made)
            self.cluster.append(place, key, value, timestamp=made.timestamp)
            if "gaps" in self.scenario.faults and random.random() < 0.1:
                self.cluster.logs[place].end += random.randint(1, 3)
            self.left -= 1

    def _probe(self) -> None:
        """Look who would answer a read now."""
        lives = [worker.life for worker in self.workers if worker.alive and worker.life is not None]
        self.oracle.answering(lives, self.group.owes)
        self.world.after(0.02, self._probe)

    def _rest(self, label: str) -> None:
        """Let everything come to rest without faults, and judge."""
        self.nemesis.calm()
        world = self.world
        self._resting = True
        self.cluster.last_change = world.now
        self._revive()
        places = [(topic, partition) for topic in self._topics() for partition in range(self.scenario.partitions)]

        def resting() -> bool:
            if any(life.is_silent() or life.on_its_way for life in self.group.members):
                self.cluster.last_change = world.now  # what is paused, or late, has not done its part yet
                return False
            return (
                self.group.stable
                and all(worker.alive for worker in self.workers if not self.nemesis.is_gone(worker))
                and all(life.generation == self.group.generation for life in self.group.members)
                and at_rest(self.cluster, places, self.group.owners)
                # what a checkpoint leaves over (that final records are out, expired windows) takes further ones; a slow one
                # is no rest, as windows are closed between them
                and all(
                    life.checkpointed_s > self.cluster.last_change + self._quiet_s
                    for life in self.group.owners.values()
                )
            )

        world.run(resting, limit_s=100)
        self._resting = False
        if not world.violations:
            self.oracle.check(self.group.owners, label)

    def _revive(self) -> None:
        """Start what has ended, for as long as everything is to come to rest."""
        if self._resting:
            for worker in self.workers:
                if not self.nemesis.is_gone(worker):
                    worker.start()
            self.world.after(0.2, self._revive)

    def _lose_everything(self) -> None:
        for worker in self.workers:
            if worker.process is not None:
                worker.process.kill()
            if self.world.chance(0.8):
                worker.disk.lose_all()
        for place in self.cluster.logs:
            if place[0] in self.cluster.compacted and self.world.chance(0.7):
                self.cluster.compact_all(place)
        for worker in self.workers[1:]:
            self.nemesis.gone.add(worker)

    def end(self) -> None:
        """Let go of what is left."""
        for worker in self.workers:
            if worker.process is not None:
                worker.process.kill()


def _settings(draw: Random, drawn: Scenario) -> Settings:
    chosen = (
        draw.choice((50, 100, 250)),  # commit interval
        draw.choice((2, 20, 10_000)),  # cached windows
        draw.choice((1, 1_000_000)),  # cached bytes
        draw.choice((4, 1_000)),  # queued records
        200 if drawn.idle else 0,
    )
    found = _SETTINGS.get(chosen)
    if found is None:
        interval, entries, size, queued, idle = chosen
        found = _SETTINGS[chosen] = Settings(
            commit_interval_ms=interval,
            cache_max_entries=entries,
            cache_max_bytes=size,
            batch_queue_max_records=queued,
            max_future_ms=MAX_FUTURE_MS,
            max_record_bytes=MAX_RECORD_BYTES,
            flush_timeout_ms=5_000,
            idle_timeout_ms=idle,
            rekey_marker_interval_ms=20,
            kafka_session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
            lease_margin_ms=200,
            changelog_watch_ms=100,
        )
    return found
