"""What `streamapp doctor` looks at; each check says what it found and what to do about it."""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from streamapp.errors import EmbeddedKafkaError, KafkaError
from streamapp.kafka.admin import KafkaAdmin, TopicDescription
from streamapp.kafka.topics import BUILTIN_TOPICS, TopicSpec
from streamapp.local.jars import KAFKA_VERSION, is_cached
from streamapp.local.java import find_java
from streamapp.local.probe import listens, owner_of
from streamapp.settings import Settings

Status = Literal["ok", "warn", "fail"]

#: the engine replaces private members of exactly this one
FAUST_VERSION = "0.15.3"
_PYTHON = (3, 11)
_PACKAGES = (
    ("mode-streaming", "Faust's services"),
    ("aiokafka", "Faust's Kafka client"),
    ("cramjam", "aiokafka cannot read lz4 without it"),
    ("confluent-kafka", "our producers and admin requests"),
    ("rocksdict", "the tables' local state"),
    ("aiohttp", "web server and feeds"),
    ("polars", "vectorised batches"),
    ("pydantic", "records and settings"),
)
_DISK_FAIL_BYTES = 1 << 30
_DISK_WARN_BYTES = 5 << 30
#: a look, not a wait: a broker that takes longer than this is reported as absent
_PATIENCE_MS = 5_000
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: `ok`; `warn`: works, but look at it; `fail`: will not work.
        check: what was looked at.
        found: what is there.
        advice: what to do; empty where nothing is to do.
    """

    status: Status
    check: str
    found: str
    advice: str = ""


async def examine(settings: Settings, web_port: int) -> list[Finding]:
    """Run every check; the broker's only once it answers. Takes seconds at most."""
    findings = [check_python(), *check_packages(), *await asyncio.to_thread(check_java)]
    patient = settings.model_copy(
        update={"kafka_request_timeout_ms": min(settings.kafka_request_timeout_ms, _PATIENCE_MS)}
    )
    cluster = await check_cluster(patient)
    findings += cluster
    findings.append(check_disk(settings.data_dir))
    findings += await asyncio.to_thread(check_ports, settings, web_port, not failures(cluster[:1]))
    return findings


def check_python() -> Finding:
    """Whether this Python is one that the package supports."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= _PYTHON:
        return Finding("ok", "Python", found)
    return Finding("fail", "Python", found, "install Python 3.11 or newer")


def check_packages() -> list[Finding]:
    """Whether Faust is exactly the version that the engine was written for, and the rest is there."""
    faust = _installed("faust-streaming")
    findings = [
        Finding("ok", "faust-streaming", faust)
        if faust == FAUST_VERSION
        else Finding(
            "fail",
            "faust-streaming",
            faust or "not installed",
            f"pip install faust-streaming=={FAUST_VERSION}: the engine relies on its internals",
        )
    ]
    present = []
    for name, purpose in _PACKAGES:
        found = _installed(name)
        if found is None:
            findings.append(Finding("fail", name, "not installed", f"pip install {name} ({purpose})"))
        else:
            present.append(f"{name} {found}")
    findings.append(Finding("ok", "packages", ", ".join(present)))
    return findings


def check_java() -> list[Finding]:
    """Whether the embedded Kafka could run; a warning at most, because another Kafka does as well."""
    try:
        java = find_java()
        cached = is_cached()
    except EmbeddedKafkaError as problem:
        return [Finding("warn", "embedded Kafka", "cannot run", str(problem))]
    jars = "jars are cached" if cached else "44 MB of jars are fetched at the first start"
    return [Finding("ok", "embedded Kafka", f"{KAFKA_VERSION} on Java {java.version} ({java.origin}); {jars}")]


async def check_cluster(settings: Settings) -> list[Finding]:
    """Broker, replication and topics."""
    where = f"{settings.kafka_brokers} ({settings.kafka_security})"
    admin = KafkaAdmin(settings)
    try:
        cluster, brokers = await admin.cluster_id(), await admin.broker_count()
        topics = await admin.describe_topics([spec.name for spec in BUILTIN_TOPICS(settings)])
    except KafkaError as problem:
        return [Finding("fail", "Kafka", f"no answer from {where}", str(problem))]
    except Exception as problem:
        # a setting that the client library itself refuses, for example an unreadable certificate
        return [Finding("fail", "Kafka", f"cannot connect to {where}", " ".join(str(problem).split()))]
    findings = [await _check_version(settings, f"{where}, cluster {cluster}, {brokers} broker(s)")]
    findings.append(_check_replication(settings.replication_factor, brokers))
    findings += [check_topic(spec, topics[spec.name]) for spec in BUILTIN_TOPICS(settings)]
    return findings


def check_topic(spec: TopicSpec, topic: TopicDescription | None) -> Finding:
    """Whether a topic is as declared."""
    check = f"topic {spec.name}"
    if topic is None:
        return Finding("warn", check, "absent", f"the bridge or a worker creates it ({spec.partitions} partitions)")
    found = f"{topic.partitions} partitions, {topic.replication} replica(s)"
    if topic.leaderless:
        return Finding("fail", check, f"{topic.leaderless} partitions without a leader", "start the missing brokers")
    if topic.partitions != spec.partitions:
        advice = f"expected {spec.partitions}: set STREAMAPP_PARTITIONS={topic.partitions}, or use a new topic"
        if spec.name == "feed-status":
            advice = f"expected {spec.partitions}: delete the topic, it is created anew"
        return Finding("fail", check, found, advice)
    declared = spec.full_config()
    different = {name: topic.config[name] for name, value in declared.items() if topic.config.get(name, value) != value}
    if topic.replication < spec.replication:
        return Finding("warn", check, found, f"expected {spec.replication} replicas: reassign its partitions")
    if not different:
        retention = topic.config.get("retention.ms")
        return Finding("ok", check, f"{found}, retention.ms={retention}, {topic.config.get('message.timestamp.type')}")
    # by record timestamp a broker deletes replayed history within minutes; a policy of compaction loses trades
    harmful = {"message.timestamp.type", "cleanup.policy"} & set(different)
    changes = ",".join(f"{name}={declared[name]}" for name in different)
    return Finding(
        "fail" if harmful else "warn",
        check,
        ", ".join(f"{name}={value}" for name, value in different.items()),
        f"kafka-configs --alter --topic {spec.name} --add-config {changes}",
    )


def check_disk(data_dir: Path) -> Finding:
    """Whether the state's folder can be written and has room."""
    folder = data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("fail", "data_dir", f"{data_dir}: not writable", "set STREAMAPP_DATA_DIR to a folder of yours")
    free = shutil.disk_usage(folder).free
    found = f"{data_dir}: {free / (1 << 30):.1f} GiB free"
    if free < _DISK_FAIL_BYTES:
        return Finding("fail", "data_dir", found, "free some space, or set STREAMAPP_DATA_DIR")
    if free < _DISK_WARN_BYTES:
        return Finding("warn", "data_dir", found, "tables and their compaction may need several GiB")
    return Finding("ok", "data_dir", found)


def check_ports(settings: Settings, web_port: int, kafka_answers: bool) -> list[Finding]:
    """Whether the ports that are going to be bound on this machine are free, or who has them."""
    kafka_ports = {
        int(port)
        for host, _, port in (address.rpartition(":") for address in settings.broker_list)
        if host in _LOOPBACK and port.isdigit()
    }
    findings = []
    for port in sorted(kafka_ports):
        check = f"port {port} (Kafka)"
        if not listens(port):
            findings.append(Finding("ok", check, "free: `streamapp kafka` and `streamapp demo` can use it"))
        elif kafka_answers:
            findings.append(Finding("ok", check, f"used by {_whom(port)}"))
        else:
            advice = "stop it, or run Kafka elsewhere: streamapp kafka --port N, STREAMAPP_KAFKA_BROKERS=127.0.0.1:N"
            findings.append(Finding("fail", check, f"used by {_whom(port)}, which does not answer as Kafka", advice))
    if listens(web_port):
        findings.append(
            Finding(
                "warn",
                f"port {web_port} (HTTP)",
                f"used by {_whom(web_port)}",
                "fine if that is your worker; else stop it, or start with another --web-port (demo: --port)",
            )
        )
    else:
        findings.append(Finding("ok", f"port {web_port} (HTTP)", "free"))
    return findings


def failures(findings: Sequence[Finding]) -> list[str]:
    """The names of the checks that failed."""
    return [finding.check for finding in findings if finding.status == "fail"]


async def _check_version(settings: Settings, found: str) -> Finding:
    # only a broker's range of request versions tells its age; it has no request for its release
    try:
        ranges = await _api_versions(settings)
    except Exception as problem:
        return Finding("warn", "Kafka", found, f"its version could not be asked: {' '.join(str(problem).split())}")
    metadata_max = ranges.get(3, (0, 0))[1]
    fetch_min = ranges.get(1, (0, 0))[0]
    if fetch_min >= 4:
        return Finding("ok", "Kafka", f"{found}, version 4.0 or newer")
    if metadata_max >= 12:
        return Finding("ok", "Kafka", f"{found}, version 3.x")
    return Finding("fail", "Kafka", f"{found}, version 3.0 or older", "upgrade it: topics need identities (Kafka 3.1)")


async def _api_versions(settings: Settings) -> dict[int, tuple[int, int]]:
    """Request -> (oldest, newest version) of the first broker."""
    from aiokafka.conn import create_conn
    from aiokafka.protocol.admin import ApiVersionRequest
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    from streamapp.kafka.config import faust_broker_options

    host, _, port = settings.broker_list[0].rpartition(":")
    auth = credentials_to_aiokafka_auth(faust_broker_options(settings).get("broker_credentials"))
    timeout_ms = settings.kafka_request_timeout_ms
    async with asyncio.timeout(timeout_ms / 1000):
        connection = await create_conn(host, int(port), request_timeout_ms=timeout_ms, **auth)
        try:
            answer = await connection.send(ApiVersionRequest())
        finally:
            connection.close()
    return {key: (oldest, newest) for key, oldest, newest in answer.api_versions}


def _check_replication(replication: int, brokers: int) -> Finding:
    found = f"factor {replication}, {brokers} broker(s)"
    if replication > brokers:
        return Finding("fail", "replication", found, f"set STREAMAPP_REPLICATION_FACTOR to {brokers} at most")
    if brokers >= 3 > replication:
        return Finding("warn", "replication", found, "set STREAMAPP_REPLICATION_FACTOR=3: a lost broker loses records")
    return Finding("ok", "replication", found)


def _whom(port: int) -> str:
    return owner_of(port) or "a process that this user cannot see"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
