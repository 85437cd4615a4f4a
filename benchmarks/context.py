"""What every measurement is given: the broker, a folder, how large to be, and somewhere to report to."""

import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import topics
from benchmarks.processes import ProcessTree, Program
from benchmarks.sizes import Sizes


@dataclass
class Context:
    """The surroundings of one part.

    Attributes:
        brokers: `host:port` of the embedded Kafka.
        broker: its processes.
        folder: for logs and state, removed after the run.
        environments: where engines are installed, kept between runs.
        sizes: how large to be.
        engines: which engines to compare; empty: all.
        errors, skipped: one line for everything that failed, or that this machine cannot do.
    """

    brokers: str
    broker: ProcessTree
    folder: Path
    environments: Path
    sizes: Sizes
    engines: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    _names: int = 0

    def name(self, stem: str) -> str:
        """A name that nothing else in this run has: for topics, groups, folders."""
        self._names += 1
        return f"{stem}-{self._names}-{int(time.time())}"

    def steady_load(
        self, topic: str, rate: float, seconds: float, *, keys: int = 0, linger_ms: int | None = None
    ) -> Program:
        """A program that sends trades at a steady rate, not started yet; see `benchmarks.steady` for what they are.

        Args:
            topic: where to.
            rate: events/s.
            seconds: for how long, where nobody ends it earlier.
            keys: instruments that trade equally often; 0: some trade often and most of them seldom.
            linger_ms: how long a record may wait for company; None: what suits the rate.
        """
        linger = [] if linger_ms is None else [str(linger_ms)]
        return Program(
            self.name("load"),
            [
                *(sys.executable, "-m", "benchmarks.steady"),
                *(self.brokers, topic, str(rate), str(seconds), str(keys), *linger),
            ],
            self.folder / "senders",
        )

    def say(self, line: str) -> None:
        """Progress, for the person who waits."""
        print(f"  {line}", flush=True)

    def fail(self, line: str) -> None:
        """A measurement failed; the others go on, and the run ends with code 1."""
        self.errors.append(line)
        self.say(f"FAILED {line}")

    def skip(self, line: str) -> None:
        """A measurement that this machine cannot do."""
        if line not in self.skipped:
            self.skipped.append(line)
            self.say(f"skipped {line}")

    def broker_cpu_seconds(self) -> float:
        """User and system time of the broker so far."""
        return self.broker.cpu_seconds()

    async def topic(self, stem: str) -> str:
        """A new, empty topic."""
        name = self.name(stem)
        await asyncio.to_thread(topics.create, self.brokers, name)
        return name

    async def drop(self, *names: str) -> None:
        """Delete topics; one that cannot be deleted only costs disk."""
        try:
            await asyncio.to_thread(topics.delete, self.brokers, names)
        except Exception as problem:
            self.say(f"left behind {', '.join(names)}: {problem}")
