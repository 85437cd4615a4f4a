"""What goes wrong, and when."""

from typing import TYPE_CHECKING

from tests.simulation.worker import Worker

if TYPE_CHECKING:
    from tests.simulation.simulation import Run


class Nemesis:
    """Strikes at random moments, with the faults of the scenario, until it has had its share."""

    def __init__(self, run: "Run") -> None:
        self.run, self.world = run, run.world
        self.faults = sorted(run.scenario.faults - {"poison", "gaps"})
        self.left = self.world.random.choice((0, 2, 4, 8)) if self.faults else 0
        self.gone: set[Worker] = set()
        self._calm = False
        self._latency_s = run.network.latency_s

    @property
    def over(self) -> bool:
        """Whether nothing more will go wrong."""
        return self.left == 0

    def is_gone(self, worker: Worker) -> bool:
        """Whether a host does not come back."""
        return worker in self.gone

    def calm(self) -> None:
        """Mend everything."""
        self._calm = True
        self.run.network.failing = 0.0
        self._quick()
        for worker in self.run.workers:
            worker.disk.full = False
            if worker.process is not None:
                worker.process.calm()

    def strike(self) -> None:
        """One fault now, the next one later."""
        if self._calm or self.left == 0:
            return
        self.left -= 1
        fault = self.world.random.choice(self.faults)
        self.world.note("fault", fault)
        getattr(self, f"_{fault}")(self.world.random.choice(self.run.workers))
        self.world.after(self.world.random.choice((0.01, 0.1, 0.3, 1.0)), self.strike)

    def again(self, worker: Worker) -> None:
        """Bring a host back after a while, if its process has ended."""
        random = self.world.random

        def start() -> None:
            if worker.alive:
                if not self._calm:
                    self.world.after(0.3, start)
            else:
                worker.start()

        self.world.after(random.choice((0.01, 0.3, 1.5)), start)

    def _crash(self, worker: Worker) -> None:
        random, process = self.world.random, worker.process
        if process is not None and process.alive:
            draw = random.random()
            if draw < 0.2:
                process.kill()
            elif draw < 0.5:
                process.crash_after_steps(random.choice((3, 30, 100)) * random.randint(1, 10))
            else:
                process.crash_at_effect(random.randint(0, 12), before=random.random() < 0.5)
        self.again(worker)

    def _disk(self, worker: Worker) -> None:
        if worker.process is not None:
            worker.process.kill()
        worker.disk.lose_all()
        self.again(worker)

    def _machine(self, worker: Worker) -> None:
        if worker.process is not None:
            worker.process.kill()
        worker.disk.lose_last()
        self.again(worker)

    def _rebalance(self, worker: Worker) -> None:
        self.run.group.rebalance()

    def _restart(self, worker: Worker) -> None:
        if worker.alive and worker.life is not None and worker.life.engine is not None:
            worker.life.stop()
        self.again(worker)

    def _send(self, worker: Worker) -> None:
        network = self.run.network
        network.failing = self.world.random.choice((0.05, 0.3))
        network.gaps = self.world.random.random() < 0.5
        self.world.after(self.world.random.random(), self._sending_works)
        for one in self.run.workers:
            self.again(one)

    def _sending_works(self) -> None:
        self.run.network.failing = 0.0

    def _slow(self, worker: Worker) -> None:
        self.run.network.latency_s = 0.1
        self.world.after(self.world.random.random(), self._quick)

    def _quick(self) -> None:
        self.run.network.latency_s = self._latency_s

    def _pause(self, worker: Worker) -> None:
        if worker.process is not None:
            worker.process.loop.paused_until = self.world.now + self.world.random.random() * 0.4

    def _sleep(self, worker: Worker) -> None:
        """A pause that the group does not wait out."""
        if worker.process is not None:
            worker.process.loop.paused_until = self.world.now + self.world.random.choice((0.7, 1.5, 4.0))

    def _cut(self, worker: Worker) -> None:
        """A host that reaches the other brokers, but not the coordinator."""
        if worker.life is not None:
            worker.life.cut_until = self.world.now + self.world.random.choice((0.3, 0.7, 1.5, 4.0))

    def _compact(self, worker: Worker) -> None:
        for _ in range(self.world.random.randint(1, 4)):
            self.run.cluster.compact_something()

    def _full(self, worker: Worker) -> None:
        worker.disk.full = True

        def space() -> None:
            worker.disk.full = False

        self.world.after(self.world.random.random(), space)
        self.again(worker)
