"""The engines of the comparison: how to run each of them over a topic once."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import environments
from benchmarks.context import Context
from benchmarks.environments import PEERS
from benchmarks.processes import Program, ProgramError
from benchmarks.sizes import Sizes
from benchmarks.worker import Worker

OURS = "streamapp"
#: the same without its native decoder
OURS_PURE = "streamapp, Python only"
_RUN_TIMEOUT_S = 240.0
#: how far a candle's count may be from the number of trades: not at all
_CHECKED_SYMBOLS = 20


@dataclass(frozen=True)
class Run:
    """One engine, once over the topic.

    Attributes:
        events_per_s: from the first event to the last.
        cpu_s_per_million: processor seconds of the engine's process tree per million events, in that time.
        broker_cpu_s_per_million: the broker's, in the same time.
    """

    events_per_s: float
    cpu_s_per_million: float
    broker_cpu_s_per_million: float


@dataclass(frozen=True)
class Engine:
    """One line of the comparison.

    Attributes:
        name: as in the table.
        durable: what of its state is durable.
        events: how many events it gets in a profile.
        command: the program, which may have to be installed first; None for this project.
        threads: for engines that take a number.
        settings: of this project's worker.
    """

    name: str
    durable: str
    events: Callable[[Sizes], int]
    command: Callable[[Context], list[str]] | None = None
    threads: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


def _python(engine: str, *arguments: str) -> Callable[[Context], list[str]]:
    return lambda context: [environments.python_of(engine, context.environments), *arguments]


def _kafka_streams(main: str) -> Callable[[Context], list[str]]:
    return lambda context: [*environments.kafka_streams(context.environments), f"bench.{main}"]


_WORKER = ("worker", "-l", "warn", "--without-web")

ENGINES = (
    Engine(OURS, "changelog, RocksDB", lambda sizes: sizes.trades),
    Engine(OURS_PURE, "changelog, RocksDB", lambda sizes: sizes.trades, settings={"STREAMAPP_NATIVE": "off"}),
    Engine("Kafka Streams, 1 thread", "changelog, RocksDB", lambda sizes: sizes.trades, _kafka_streams("Throughput")),
    Engine(
        "Kafka Streams, 2 threads", "changelog, RocksDB", lambda sizes: sizes.trades, _kafka_streams("Throughput"), 2
    ),
    Engine("Pathway", "none", lambda sizes: sizes.trades_fast, _python("pathway", str(PEERS / "pathway_flow.py"))),
    Engine(
        "Bytewax",
        "none",
        lambda sizes: sizes.trades_fast,
        _python("bytewax", "-m", "bytewax.run", f"{PEERS / 'bytewax_flow.py'}:flow"),
    ),
    Engine(
        "Quix Streams",
        "changelog, RocksDB",
        lambda sizes: sizes.trades_quix,
        _python("quix", str(PEERS / "quix_window.py")),
    ),
    Engine(
        "plain Faust",
        "changelog, RocksDB",
        lambda sizes: sizes.trades_faust,
        _python("faust", str(PEERS / "faust_table.py"), *_WORKER),
    ),
)


def peer_environment(context: Context, topic: str, events: int, threads: int = 1) -> dict[str, str]:
    """What a peer's program reads from its environment."""
    group = context.name("peer")
    state = context.folder / group
    state.mkdir(parents=True)
    return {
        "BENCH_BROKERS": context.brokers,
        "BENCH_TOPIC": topic,
        "BENCH_EVENTS": str(events),
        "BENCH_GROUP": group,
        "BENCH_STATE": str(state),
        "BENCH_THREADS": str(threads),
        "PYTHONPATH": str(PEERS),
    }


async def run_peer(context: Context, name: str, command: list[str], environment: dict[str, str]) -> Run:
    """Run a peer's program from its first event to its last.

    Raises:
        ProgramError: it ended or stood still before.
    """
    program = Program(environment["BENCH_GROUP"], command, context.folder / "peers", environment)
    await program.start()
    try:
        await program.mark("first", _RUN_TIMEOUT_S)
        cpu, broker = program.tree.cpu_seconds(), context.broker_cpu_seconds()
        done = await program.mark("done", _RUN_TIMEOUT_S)
        cpu, broker = program.tree.cpu_seconds() - cpu, context.broker_cpu_seconds() - broker
        return _run_of(done.content, cpu, broker)
    except ProgramError as problem:
        raise ProgramError(f"{name}: {problem}") from None
    finally:
        await program.stop(hard=True)


def _run_of(done: dict[str, Any], cpu_s: float, broker_cpu_s: float) -> Run:
    events, seconds = done["events"], done["seconds"]
    if events <= 0 or seconds <= 0:
        raise ProgramError(f"{events} events in {seconds} s tell nothing: give it more of them")
    return Run(events / seconds, cpu_s * 1e6 / events, broker_cpu_s * 1e6 / events)


async def run_worker(
    context: Context,
    app: str,
    topic: str,
    events: int,
    expected: dict[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Run:
    """Run a worker of this project over all of a topic.

    Args:
        context: where.
        app: the module of `benchmarks.apps`; its table is `candles`.
        topic: where the events are.
        events: how many there are.
        expected: trades per symbol; some of the candles are then read over HTTP and must count exactly these.
        settings: of the worker, as environment variables.

    Raises:
        ProgramError: it ended, stood still, or counted wrongly.
    """
    worker = Worker(context, app, topic, app_id=context.name("ours"), environment=settings)
    await worker.start()
    try:
        first, last = await worker.first_and_last(events, _RUN_TIMEOUT_S)
        if expected is not None:
            await check_counts(worker, expected)
        counted, seconds = last.count - first.count, last.at - first.at
        if counted <= 0:
            raise ProgramError("all events were applied before the first look: give it more of them")
        return Run(
            counted / seconds,
            (last.cpu_s - first.cpu_s) * 1e6 / counted,
            (last.broker_cpu_s - first.broker_cpu_s) * 1e6 / counted,
        )
    finally:
        await worker.stop(hard=True)


async def check_counts(worker: Worker, expected: dict[str, int]) -> None:
    """The candles of some symbols, as read over HTTP, hold every trade once.

    Raises:
        ProgramError: they do not.
    """
    names = sorted(expected, key=lambda name: -expected[name])
    for name in names[:: max(1, len(names) // _CHECKED_SYMBOLS)]:
        found = await count_of(worker, name)
        if found != expected[name]:
            raise ProgramError(f"wrong result: expected {expected[name]} trades of {name}, got {found}")


async def count_of(worker: Worker, name: str) -> int:
    """How many trades all windows of a symbol hold."""
    total, cursor = 0, ""
    now_ms = time.time_ns() // 1_000_000
    while True:
        page = await worker.read(
            f"/v1/tables/candles/keys/{name}/windows?from=0&to={now_ms + 3_600_000}&limit=1000{cursor}"
        )
        total += sum(int(item["value"]["count"]) for item in page["items"])
        if not page.get("cursor"):
            return total
        cursor = f"&cursor={page['cursor']}"


async def prepare(context: Context, engine: Engine) -> list[str] | None:
    """Install an engine where needed; its command, or None where this machine cannot have it."""
    assert engine.command is not None
    try:
        return await asyncio.to_thread(engine.command, context)
    except environments.UnavailableError as problem:
        context.skip(f"{engine.name}: {problem}")
        return None
