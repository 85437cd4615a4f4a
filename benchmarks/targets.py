"""What the figures should reach, and where in the results each of them is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.engines import OURS
from benchmarks.results import Results


@dataclass(frozen=True)
class Target:
    """One bound.

    Attributes:
        name: what is bounded.
        bound: the bound itself.
        find: the measured figure; None, or a KeyError, where the run has none.
        unit: of both.
        at_least: whether more is better.
    """

    name: str
    bound: float
    find: Callable[[Results], float | None]
    unit: str = ""
    at_least: bool = True

    def value(self, results: Results) -> float | None:
        """The measured figure; None where this run has none."""
        try:
            return self.find(results)
        except (KeyError, ZeroDivisionError):
            return None

    def met(self, value: float) -> bool:
        """Whether a figure is as wanted."""
        return value >= self.bound if self.at_least else value <= self.bound


def reference_rate(throughput: dict[str, Any]) -> float | None:
    """Events/s of Kafka Streams at its better number of threads; None where it was not measured."""
    rates = [
        content["events_per_s"]["median"]
        for name, content in throughput.get("engines", {}).items()
        if name.startswith("Kafka Streams")
    ]
    return max(rates, default=None)


def _ratio(peer: str | None) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        figures = results.figures("throughput")
        ours = figures["engines"][OURS]["events_per_s"]["median"]
        other = reference_rate(figures) if peer is None else figures["engines"][peer]["events_per_s"]["median"]
        return ours / other if other else None

    return find


def _at(part: str, *path: str) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        found: Any = results.figures(part)
        for name in path:
            found = found[name]
        return float(found)

    return find


def _idle_reads(results: Results) -> float:
    figures = results.figures("reads")
    return 100 * float(figures["idle"]["requests_per_s"]) / float(figures["bare"]["requests_per_s"])


def _worst_tools(figure: str) -> Callable[[Results], float | None]:
    """Of both revisions of the protocol, while events come in."""

    def find(results: Results) -> float | None:
        figures = results.figures("tools")
        worst = [float(content[figure]) for name, content in figures.items() if name.startswith("loaded")]
        return max(worst, default=None)

    return find


def _agent(results: Results) -> float:
    figures = results.figures("steps")
    return float(figures["agent"]["events_per_s"]) / float(figures["stock_agent"]["events_per_s"])


def _restore(figure: str) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        runs = results.figures("recovery")["runs"]
        ours, other = runs["lost"][figure], runs["kafka_streams_lost"][figure]
        return ours / other if ours is not None and other else None

    return find


def _memory(results: Results) -> float:
    """Scaled to 1 M windows, for the shorter profiles."""
    figures = results.figures("memory")
    return float(figures["idle_mib"] + figures["settled_bytes_per_window"] * 1e6 / (1 << 20))


TARGETS = (
    Target("windowed aggregation to Kafka Streams' better", 2.0, _ratio(None), "x"),
    Target("... to Quix Streams", 15.0, _ratio("Quix Streams"), "x"),
    Target("... to plain Faust", 150.0, _ratio("plain Faust"), "x"),
    Target("a user's own step", 300_000, _at("steps", "fold", "events_per_s"), "events/s"),
    Target("an agent to stock Faust's", 5.0, _agent, "x"),
    Target("event to HTTP at 5,000 events/s, p99", 15.0, _at("latency", "http_5000", "p99_ms"), "ms", False),
    Target("event to HTTP at 20,000 events/s, p99", 25.0, _at("latency", "http_20000", "p99_ms"), "ms", False),
    Target("point reads while events come in, p99", 10.0, _at("reads", "paced_loaded", "p99_ms"), "ms", False),
    Target("tools/call at 20,000 events/s, p50", 5.0, _worst_tools("p50_ms"), "ms", False),
    Target("tools/call at 20,000 events/s, p99", 20.0, _worst_tools("p99_ms"), "ms", False),
    Target("event streams, the reading ones' delay, p99", 250.0, _at("subscribers", "delay", "p99_ms"), "ms", False),
    Target("throughput with event streams to without", 0.9, _at("subscribers", "throughput_ratio"), "x"),
    Target("idle point reads of bare aiohttp's", 60.0, _idle_reads, "%"),
    Target("lost disk, start to ready, to Kafka Streams'", 1.0, _restore("ready_s"), "x", False),
    Target("lost disk, restore phase, to Kafka Streams'", 1.0, _restore("restore_s"), "x", False),
    Target("restart on an intact disk, clean", 2.0, _at("recovery", "runs", "clean", "ready_s"), "s", False),
    Target("restart on an intact disk, after kill -9", 2.0, _at("recovery", "runs", "killed", "ready_s"), "s", False),
    Target("keys of a killed worker beyond its session", 2.0, _at("takeover", "beyond_session_s"), "s", False),
    Target("bridge", 50_000, _at("bridge", "acknowledged_frames_per_s"), "frames/s"),
    Target("1 M live windows, resident", 400.0, _memory, "MiB", False),
)
