"""What goes on beside a fault: trades that keep coming, and readers that never stop asking."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote

from streamapp.kafka.partitioner import partition_for
from tests.faults.events import SYMBOLS, VENUES
from tests.faults.world import FaultWorker, World

_PAUSE_S = 0.05


class Background:
    """A thread that repeats one action until its context ends; what it raised comes out there."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._problem: BaseException | None = None

    def step(self) -> None:
        """The action."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.step()
        except BaseException as problem:
            self._problem = problem

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._problem is not None and kind is None:
            raise self._problem


class Feed(Background):
    """Produces trades all the time.

    Args:
        world: where to.
        portion: at a time; about ten or twenty times a second.
    """

    def __init__(self, world: World, portion: int = 40) -> None:
        super().__init__()
        self._world = world
        self._portion = portion

    def step(self) -> None:
        """One portion."""
        self._world.produce(self._portion)
        self._stop.wait(_PAUSE_S)


@dataclass(frozen=True)
class Answer:
    """One read that a worker answered by itself; times are of the monotonic clock."""

    partition: int
    worker: str
    sent: float
    received: float
    count: int


class Readers(Background):
    """Asks every worker for one key of each partition, again and again: to be answered there or refused.

    Args:
        workers: all that may ever run; one that does not answer is passed over.
        partitions: of the source.
        refuse_within_s: how long a read may hang.
    """

    def __init__(self, workers: Sequence[FaultWorker], partitions: int, timeout_s: float = 2.0) -> None:
        super().__init__()
        self._workers = workers
        self._timeout_s = timeout_s
        keys = [f"{venue}:{symbol}" for venue in VENUES for symbol in SYMBOLS]
        self.keys = {partition_for(key.encode(), partitions): key for key in reversed(keys)}
        self.answers: list[Answer] = []
        self.asked = 0
        self._last: dict[int, float] = {}
        self.longest_s: dict[int, float] = {}  # per partition, the longest time that nobody answered for it

    def step(self) -> None:
        """One round."""
        for partition, key in self.keys.items():
            for worker in self._workers:
                answer = self.ask(worker, partition, key)
                if answer is not None:
                    self._note(answer)
        self._stop.wait(0.01)

    def ask(self, worker: FaultWorker, partition: int, key: str) -> Answer | None:
        """One read; None where it is refused, or nobody is there."""
        if not worker.running:
            return None
        sent = time.monotonic()
        self.asked += 1
        try:
            status, body = worker.ask_here(f"/v1/tables/newest/keys/{quote(key, safe=':')}", self._timeout_s)
        except (OSError, ValueError):
            return None
        if status != 200:
            return None
        return Answer(partition, worker.name, sent, time.monotonic(), int(body["value"]["count"]))

    def _note(self, answer: Answer) -> None:
        before = self._last.get(answer.partition)
        if before is not None:
            self.longest_s[answer.partition] = max(self.longest_s.get(answer.partition, 0.0), answer.received - before)
        self._last[answer.partition] = answer.received
        self.answers.append(answer)

    def steps_back(self) -> list[str]:
        """Answers that show less than one that had been received before they were asked for."""
        found = []
        for partition in self.keys:
            best: Answer | None = None
            for answer in sorted((a for a in self.answers if a.partition == partition), key=lambda a: a.received):
                if best is not None and answer.sent > best.received and answer.count < best.count:
                    found.append(f"partition {partition}: {best}, then {answer}")
                if best is None or answer.count > best.count:
                    best = answer
        return found

    def two_owners(self, within_s: float = 1.0) -> list[str]:
        """Partitions for which two workers took turns: A, B, A and B again, all within the time."""
        found = []
        for partition in self.keys:
            turns: list[Answer] = []
            for answer in (a for a in self.answers if a.partition == partition):
                if not turns or turns[-1].worker != answer.worker:
                    turns.append(answer)
                    last = turns[-4:]
                    one = len(last) == 4 and last[0].worker == last[2].worker and last[1].worker == last[3].worker
                    if one and last[3].sent - last[0].received < within_s:
                        found.append(f"partition {partition}: {last}")
        return found
