"""`streamapp demo` over real processes: live numbers from the printed lines, and nothing left behind, however it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.processes import until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

#: what the whole way up may take here: a busy machine, and the first download of Kafka's jars
READY_TIMEOUT_S = 240
GONE_TIMEOUT_S = 30


class RunningDemo:
    """The demo as a person starts it, with what it has said so far."""

    def __init__(self, port: int, *options: str) -> None:
        environment = {**os.environ, "STREAMAPP_KAFKA_BROKERS": "127.0.0.1:1", "STREAMAPP_KAFKA_SECURITY": "sasl_tls"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamapp", "demo", "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.said: list[str] = []

    def until(self, beginning: str) -> None:
        """Read its output up to a line that begins so; a watchdog ends it where that never comes."""
        watchdog = threading.Timer(READY_TIMEOUT_S, self.process.kill)
        watchdog.start()
        try:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                self.said.append(line.rstrip())
                if line.startswith(beginning):
                    return
        finally:
            watchdog.cancel()
        pytest.fail(f"the demo ended before it said {beginning!r}: {self.said}")

    def rest(self) -> None:
        output, _ = self.process.communicate(timeout=60)
        self.said += output.splitlines()

    def family(self) -> list[psutil.Process]:
        """All that it has started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def directory(self) -> Path:
        return Path(next(line for line in self.said if line.startswith("logs: ")).removeprefix("logs: "))


@pytest.fixture
def started(free_port: int, request: pytest.FixtureRequest) -> Iterator[RunningDemo]:
    demo = RunningDemo(free_port, *request.param)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(60)
        if demo.process.stdout is not None:
            demo.process.stdout.close()


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("started", [("--duration", "5")], indirect=True)
def test_demo_with_a_duration_shows_live_numbers_and_exits_clean(started: RunningDemo) -> None:
    started.until("Stops by itself")
    family = started.family()
    assert len(family) >= 6, "a broker, a venue, a bridge and a worker, each under its launcher"

    addresses = re.findall(r"curl -s '([^']+)'", "\n".join(started.said))
    assert len(addresses) == 3
    # a worker that has just started hears of the feed some moments later, as its topic may have had no leader yet; and of
    # the two symbols that are shown one may not have been traded yet

    def known() -> bool:
        candle, latest = ask(addresses[0]), ask(addresses[1])
        return bool(candle["freshness"]["feed"]) and all(item["value"] for item in latest["items"])

    until("the feed and both symbols to be known", known, timeout_s=4, hint=lambda: started.said[-1])
    candle, latest, top = (ask(address) for address in addresses)
    assert candle["value"]["count"] > 0
    assert candle["freshness"]["feed"]["connected"] is True
    assert all(item["value"]["price"] > 0 for item in latest["items"])
    assert top["items"][0]["value"]["volume"] > 0
    dashboard = next(line for line in started.said if line.startswith("dashboard: ")).removeprefix("dashboard: ")
    with urllib.request.urlopen(dashboard, timeout=10) as page:
        assert page.status == 200

    started.rest()
    assert started.process.returncode == 0, started.said
    assert psutil.wait_procs(family, timeout=GONE_TIMEOUT_S)[1] == []
    assert not started.directory.exists()


@pytest.mark.parametrize("started", [()], indirect=True)
def test_demo_names_the_process_that_died_and_stops_the_rest(started: RunningDemo) -> None:
    started.until("bridge    ready")
    family = started.family()
    # the bridge's launcher, whose end is the bridge's end
    bridge = next(
        process for process in family if "bridge" in process.cmdline() and "launcher.py" in str(process.cmdline())
    )
    bridge.kill()
    started.rest()
    assert started.process.returncode == 1, started.said
    assert "streamapp: the bridge ended by itself, code -9" in started.said[-1]
    assert psutil.wait_procs(family, timeout=GONE_TIMEOUT_S)[1] == []
    log = started.directory / "bridge.log"
    assert log.exists(), "the log of what died is kept"
    shutil.rmtree(started.directory)


@pytest.mark.parametrize("started", [()], indirect=True)
def test_demo_killed_by_sigkill_takes_every_process_along(started: RunningDemo) -> None:
    started.until("simulator ready")
    family = started.family()
    assert family
    os.kill(started.process.pid, signal.SIGKILL)
    started.rest()
    assert psutil.wait_procs(family, timeout=GONE_TIMEOUT_S)[1] == []
    # nobody is left who could remove it
    shutil.rmtree(started.directory)


@pytest.mark.parametrize("started", [()], indirect=True)
def test_demo_stopped_while_kafka_starts_leaves_nothing(started: RunningDemo) -> None:
    started.until("logs: ")
    started.process.terminate()
    family = started.family()
    started.rest()
    assert started.process.returncode == 0, started.said
    assert psutil.wait_procs(family, timeout=GONE_TIMEOUT_S)[1] == []
    assert not started.directory.exists()


def test_demo_on_a_taken_port_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = RunningDemo(port)
        demo.rest()
    assert demo.process.returncode == 1
    assert len(demo.said) == 1
    assert f"expected port {port} to be free" in demo.said[0]
    assert "streamapp demo --port" in demo.said[0]
