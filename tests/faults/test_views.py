"""Fault 13: clients that are slow, greedy or many, while the tables go on and readers want their answers."""

import contextlib
import json
import random
import socket
import time
from collections.abc import Sequence

import psutil

from tests.fakes.ports import HOST
from tests.fakes.processes import until
from tests.faults.lab import Lab, fault
from tests.faults.tables import MINUTES, NEWEST
from tests.faults.watch import Background, Feed
from tests.faults.world import FaultWorker

IDLE_MS = 2_000
SLOW, FLOOD, STREAMS = 60, 250, 40
#: against an attacked worker: this, or on a busy machine this many times what it is without the attack
P99_MAX_S, P99_MAX_TIMES = 5.0, 60
ANSWER_MAX_S = 20.0
LAG_MAX = 20_000
GROWTH_MAX_BYTES = 160 << 20


class _Reader(Background):
    """A well-behaved client; how long each of its reads took."""

    def __init__(self, worker: FaultWorker, key: str) -> None:
        super().__init__()
        self._worker = worker
        self._path = f"/v1/tables/newest/keys/{key}"
        self.seconds: list[float] = []
        self.lag = 0

    def step(self) -> None:
        began = time.monotonic()
        status, body = self._worker.ask(self._path)
        assert status == 200, body
        self.seconds.append(time.monotonic() - began)
        self.lag = max(self.lag, body["freshness"]["lag"] or 0)
        self._stop.wait(0.01)

    def p99(self) -> float:
        return sorted(self.seconds)[len(self.seconds) * 99 // 100]


def _open(worker: FaultWorker, first: bytes = b"") -> socket.socket:
    connection = socket.create_connection((HOST, worker.port), 10)
    connection.settimeout(10)
    if first:
        connection.sendall(first)
    return connection


def _status(worker: FaultWorker, request: bytes) -> int:
    """The status of the answer to these bytes; 0 where the connection is closed without one, -1 where nothing comes."""
    with _open(worker) as connection, contextlib.suppress(ConnectionError):
        try:
            connection.settimeout(ANSWER_MAX_S)
            connection.sendall(request)
            head = connection.recv(64)
        except TimeoutError:
            return -1
        return int(head.split()[1]) if head.startswith(b"HTTP/") else 0
    return 0


def _post(body: bytes) -> bytes:
    return (
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (
            len(body),
            body,
        )
    )


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _hostile(draw: random.Random) -> dict[str, bytes]:
    """Requests that must be refused, by what is wrong with them."""
    deep = 10 ** draw.randint(3, 4)
    return {
        "deep arrays": _post(b'{"token":' + b"[" * deep + b"]" * deep + b"}"),
        "deep objects": _post(b'{"a":' * deep + b"1" + b"}" * deep),
        "deep and cut off": _post(b"[" * deep),
        "a body too large": _post(b'{"token": "' + b"x" * 200_000 + b'"}'),
        "a huge number": _post(b'{"token": 1' + b"0" * 5_000 + b"}"),
        "no JSON": _post(b"\x00\xff" * 100),
        "a long address": _get("/v1/tables/newest/values?keys=" + "k" * 7_000),
        "a longer one": _get("/v1/tables/newest/keys/" + "k" * 60_000),
        "many headers": b"GET /v1/tables HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 5_000 + b"\r\n",
        "a long header": b"GET /v1/tables HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 60_000 + b"\r\n\r\n",
        "no HTTP": bytes(draw.randrange(256) for _ in range(2_000)) + b"\r\n\r\n",
        "two lengths": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        "a foreign host": b"GET /v1/tables HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "a page without bound": _get("/v1/tables/newest/keys?limit=100000000"),
        "a traversal": _get("/static/..%2f..%2f..%2fetc/passwd"),
    }


def _until_closed(connections: Sequence[socket.socket], limit_s: float) -> int:
    """How many of them the server has closed in time."""
    closed = 0
    deadline = time.monotonic() + limit_s
    for connection in connections:
        connection.settimeout(max(0.05, deadline - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            try:
                while connection.recv(65_536):
                    pass
            except ConnectionError:
                pass
            closed += 1
    return closed


@fault(13, "slow, greedy and very many clients")
def test_hostile_clients(lab: Lab) -> None:
    draw = random.Random(f"clients-{lab.seed}")
    env = {"STREAMAPP_HTTP_IDLE_TIMEOUT_MS": str(IDLE_MS), "STREAMAPP_SSE_WRITE_TIMEOUT_MS": "2000"}
    with lab.world(shapes=(MINUTES, NEWEST), env=env) as world:
        worker = world.worker()
        world.produce(2_000)
        worker.start().until_ready()
        world.settle()
        process = psutil.Process(worker.pid)
        key = worker.keys("newest")[0]
        with Feed(world, 60):
            with _Reader(worker, key) as calm:
                time.sleep(2.0)
            memory, files = process.memory_info().rss, process.num_fds()
            with _Reader(worker, key) as attacked, contextlib.ExitStack() as stack:
                crowd = [stack.enter_context(_open(worker)) for _ in range(FLOOD)]
                slow = [stack.enter_context(_open(worker, b"GET /v1/tables HTTP/1.1\r\n")) for _ in range(SLOW)]
                streams = [
                    stack.enter_context(_open(worker, _get("/v1/tables/newest/changes"))) for _ in range(STREAMS)
                ]
                began = time.monotonic()
                answers: dict[str, int] = {}
                while time.monotonic() - began < 1.5 * IDLE_MS / 1000:
                    for connection in slow:  # a byte of a header now and then, never a whole one
                        with contextlib.suppress(OSError):
                            connection.sendall(b"X")
                    for what, request in _hostile(draw).items():
                        answers[what] = _status(worker, request)
                closed = _until_closed(crowd + slow, 10 * IDLE_MS / 1000)
                grown = process.memory_info().rss - memory
                del streams
            until("connections to be let go", lambda: process.num_fds() <= files + 20, hint=world.hint)
        world.settle()
        world.figures.update(
            p99_calm_ms=round(calm.p99() * 1000, 1),
            p99_attacked_ms=round(attacked.p99() * 1000, 1),
            reads=len(attacked.seconds),
            lag_max=attacked.lag,
            closed=f"{closed}/{FLOOD + SLOW}",
            grown_mib=grown >> 20,
        )
        world.verify()
    wrong = {what: status for what, status in answers.items() if not (status == 0 or 400 <= status < 500)}
    assert wrong == {}, json.dumps(answers)
    assert closed == FLOOD + SLOW, "whoever sends no whole request is cut off"
    assert attacked.p99() < max(P99_MAX_S, P99_MAX_TIMES * calm.p99())
    assert attacked.lag < LAG_MAX
    assert grown < GROWTH_MAX_BYTES
