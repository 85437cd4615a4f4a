"""`streamapp demo`: everything at once, on this machine, with nothing left behind."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import aiohttp
import typer

from streamapp.cli.processes import ChildProcess, last_lines
from streamapp.clock import Clock, SystemClock
from streamapp.errors import ConfigurationError, ProcessError, StreamAppError
from streamapp.local.broker import EmbeddedKafka
from streamapp.local.jars import KAFKA_VERSION, is_cached
from streamapp.local.probe import owner_of

Answer = TypeVar("Answer")

HOST = "127.0.0.1"
#: bound on each step becoming ready, downloads apart; a loaded machine needs many times what an idle one does
_READY_TIMEOUT_S = 120.0
_ASK_EVERY_S = 0.1
_ONE_ANSWER_TIMEOUT_S = 5.0
#: commands that only make sense with the program itself on the path
_STREAMAPP = (sys.executable, "-m", "streamapp")
_WORKER = (sys.executable, "-m", "faust", "-A", "streamapp.worker", "worker", "-l", "info")


def demo(
    port: Annotated[int, typer.Option(help="The dashboard and the API, on 127.0.0.1.", min=1, max=65535)] = 6066,
    duration: Annotated[
        float | None,
        typer.Option(help="Stop after this many seconds from the first candle on; default: at Ctrl-C.", min=0),
    ] = None,
    kafka_port: Annotated[int, typer.Option(help="Kafka's port; 0 picks a free one.", min=0, max=65535)] = 0,
    simulator_port: Annotated[int, typer.Option(help="The venue's port; 0 picks a free one.", min=0, max=65535)] = 0,
    symbols: Annotated[int, typer.Option(help="How many instruments the venue has.", min=1, max=1000)] = 5,
    rate: Annotated[float, typer.Option(help="Trades per second, all instruments together.", min=0.1)] = 100.0,
) -> None:
    """Run an embedded Kafka, a simulated venue, the bridge and one worker, until Ctrl-C or SIGTERM.

    Prints the dashboard's address and three lines to try once the first candle is there. Uses a temporary folder and
    no setting of the environment or of a streamapp.toml, so it never touches another Kafka or other state.

    Example: streamapp demo --port 6066 --duration 60
    """
    demonstration = Demo(port, duration, kafka_port, simulator_port, symbols, rate)
    asyncio.run(demonstration.run())


class Demo:
    """The processes of one demonstration, and what is said about them.

    Args:
        port: of the worker's web server.
        duration_s: how long to run after the first candle; None: until a signal.
        kafka_port: 0 picks a free one.
        simulator_port: 0 picks a free one.
        symbols: how many instruments.
        rate: trades per second.
        clock: measures and bounds.
    """

    def __init__(
        self,
        port: int,
        duration_s: float | None = None,
        kafka_port: int = 0,
        simulator_port: int = 0,
        symbols: int = 5,
        rate: float = 100.0,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._port = port
        self._duration_s = duration_s
        self._simulator_port = simulator_port
        self._symbols = symbols
        self._rate = rate
        self._clock = clock or SystemClock()
        self._began_ms = self._clock.monotonic_ms()
        self._kafka = EmbeddedKafka(port=kafka_port)
        self._starting: asyncio.Task[None] | None = None
        self._children: list[ChildProcess] = []
        self._watches: set[asyncio.Task[None]] = set()
        self._directory = Path()
        self._failed: asyncio.Future[None]

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return f"http://{HOST}:{self._port}"

    async def run(self) -> None:
        """Start everything, wait for the end, stop everything.

        Raises:
            ConfigurationError: the port is taken.
            ProcessError: a process ended by itself or did not become ready; its log is kept, its last lines printed.
            EmbeddedKafkaError: Kafka cannot be started.
        """
        check_free(self._port)
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        self._directory = Path(tempfile.mkdtemp(prefix="streamapp-demo-"))
        story = asyncio.create_task(self._story())
        stop = asyncio.create_task(stopped.wait())
        problem: StreamAppError | None = None
        try:
            ends: set[asyncio.Future[Any]] = {story, stop, self._failed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            if story.done():
                story.result()
        except StreamAppError as raised:
            problem = raised
            raise
        finally:
            _say("stopping")
            stop.cancel()
            await self._stop(story)
            if isinstance(problem, ProcessError):
                self._report(problem)
            else:
                shutil.rmtree(self._directory, ignore_errors=True)
            self._failed.cancel()
        _say("stopped; nothing is left running")

    # --- the way up --------------------------------------------------------------------------------------------------

    async def _story(self) -> None:
        """Start in the order of the data's way, tell what is there, then wait for the duration."""
        _say(f"logs: {self._directory}")
        if not is_cached():
            _say(f"fetching Kafka {KAFKA_VERSION} (44 MB, once)")
        self._starting = asyncio.create_task(self._kafka.start())
        await asyncio.shield(self._starting)
        self._watch(self._kafka_ended())
        self._tell("kafka", f"{self._kafka.bootstrap}")

        simulator = await self._child(
            "simulator",
            *(*_STREAMAPP, "simulate", "--venue", "coinbase", "--port", str(self._simulator_port)),
            *("--symbols", str(self._symbols), "--rate", str(self._rate)),
        )
        said = await simulator.line_of_log("listening on ", _READY_TIMEOUT_S)
        venue_url = said.removeprefix("listening on ").strip()
        self._tell("simulator", venue_url)

        worker = await self._child("worker", *_WORKER, "--web-port", str(self._port))
        bridge = await self._child("bridge", *_STREAMAPP, "bridge", "--feed", "coinbase", "--url", venue_url)
        timeout = aiohttp.ClientTimeout(total=_ONE_ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await bridge.line_of_log("feed coinbase", _READY_TIMEOUT_S)
            self._tell("bridge", "forwards the venue's trades and quotes")
            await self._until(worker, "be ready", lambda: self._ready(session))
            self._tell("worker", self.url)
            keys = await self._until(worker, "show a candle", lambda: self._keys_with_candles(session))
            candle = await self._get(session, f"/v1/tables/candles_1m/keys/{quote(keys[0], safe=':')}")
        seconds = (self._clock.monotonic_ms() - self._began_ms) / 1000
        _say(f"first candle after {seconds:.1f} s: {keys[0]} close {candle['value']['close']}")
        self._invite(keys)
        # without a duration, for ever: a signal or a failure ends it
        await asyncio.wait({self._failed}, timeout=self._duration_s)

    async def _child(self, name: str, *command: str) -> ChildProcess:
        child = ChildProcess(name, command, self._directory, self._environment(), clock=self._clock)
        await child.start()
        self._children.append(child)
        self._watch(self._child_ended(child))
        return child

    def _environment(self) -> dict[str, str]:
        return demo_environment(os.environ, self._kafka.bootstrap, self._directory)

    async def _until(self, child: ChildProcess, expected: str, ask: Callable[[], Awaitable[Answer | None]]) -> Answer:
        """Ask until there is an answer."""
        deadline_ms = self._clock.monotonic_ms() + int(_READY_TIMEOUT_S * 1000)
        while self._clock.monotonic_ms() < deadline_ms:
            try:
                answer = await ask()
            except (aiohttp.ClientError, TimeoutError):
                answer = None
            if answer is not None:
                return answer
            await asyncio.sleep(_ASK_EVERY_S)
        raise ProcessError(
            child.name,
            child.log_file,
            f"expected the {child.name} to {expected} within {_READY_TIMEOUT_S:.0f} s; see {child.log_file}",
        )

    async def _ready(self, session: aiohttp.ClientSession) -> bool | None:
        async with session.get(f"{self.url}/health/ready") as answer:
            return True if answer.status == 200 else None

    async def _keys_with_candles(self, session: aiohttp.ClientSession) -> list[str] | None:
        found = await self._get(session, "/v1/tables/candles_1m/keys?limit=2")
        return found["items"] or None

    async def _get(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        async with session.get(self.url + path, raise_for_status=True) as answer:
            document: dict[str, Any] = await answer.json()
            return document

    # --- the way down ------------------------------------------------------------------------------------------------

    def _watch(self, ending: Awaitable[None]) -> None:
        self._watches.add(asyncio.ensure_future(ending))

    async def _child_ended(self, child: ChildProcess) -> None:
        code = await child.wait()
        self._fail(
            ProcessError(
                child.name, child.log_file, f"the {child.name} ended by itself, code {code}; see {child.log_file}"
            )
        )

    async def _kafka_ended(self) -> None:
        code = await self._kafka.wait()
        log_file = self._directory / "kafka.log"
        if self._kafka.log_file is not None and self._kafka.log_file.exists():
            # the broker's own folder goes with it
            shutil.copyfile(self._kafka.log_file, log_file)
        self._fail(ProcessError("kafka", log_file, f"Kafka ended by itself, code {code}; see {log_file}"))

    def _fail(self, problem: ProcessError) -> None:
        if not self._failed.done():
            self._failed.set_exception(problem)

    async def _stop(self, story: asyncio.Task[None]) -> None:
        """Sources first, Kafka last, so that everybody can write down what they still hold."""
        for task in self._watches:
            task.cancel()
        story.cancel()
        # a start of Kafka under way cannot be interrupted, but it is bounded
        starting = [self._starting] if self._starting is not None else []
        await asyncio.gather(story, *starting, *self._watches, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children))
        await self._kafka.stop()

    def _report(self, problem: ProcessError) -> None:
        lines = last_lines(problem.log_file)
        if lines:
            typer.echo(f"the last lines of {problem.log_file}:", err=True)
            for line in lines:
                typer.echo(f"  {line}", err=True)

    # --- what is said ------------------------------------------------------------------------------------------------

    def _tell(self, name: str, detail: str) -> None:
        seconds = (self._clock.monotonic_ms() - self._began_ms) / 1000
        _say(f"{name:<9} ready after {seconds:5.1f} s  {detail}")

    def _invite(self, keys: list[str]) -> None:
        tables = f"{self.url}/v1/tables"
        _say("")
        _say(f"dashboard: {self.url}/")
        _say("")
        _say(f"  curl -s '{tables}/candles_1m/keys/{keys[0]}'")
        _say(f"  curl -s '{tables}/latest/values?keys={','.join(keys)}'")
        _say(f"  curl -s '{tables}/candles_1m/top?by=volume&order=desc&limit=3'")
        _say("")
        _say("Ctrl-C stops it." if self._duration_s is None else f"Stops by itself after {self._duration_s:g} s.")


def check_free(port: int) -> None:
    """See that nobody listens on a port of loopback.

    Raises:
        ConfigurationError: somebody does; the message says who, where that can be seen, and what to do.
    """
    with socket.socket() as probe:
        # as servers do: connections of a server that has just ended do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            other = port + 1 if port < 65_535 else port - 1
            raise ConfigurationError(
                f"expected port {port} to be free, but {owner_of(port) or 'another process'} listens there; "
                f"stop it, or choose another port: streamapp demo --port {other}"
            ) from None


def demo_environment(inherited: Mapping[str, str], brokers: str, directory: Path) -> dict[str, str]:
    """The environment of the demo's processes: the inherited one, without anybody's settings of streamapp."""
    own = {name: value for name, value in inherited.items() if not name.startswith("STREAMAPP_")}
    return {
        **own,
        "STREAMAPP_KAFKA_BROKERS": brokers,
        "STREAMAPP_DATA_DIR": str(directory / "state"),
        "PYTHONUNBUFFERED": "1",
    }


def _say(line: str) -> None:
    print(line, flush=True)
