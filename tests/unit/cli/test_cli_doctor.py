import os
import socket
import subprocess
import sys

import pytest

from streamapp.cli import findings
from streamapp.cli.findings import check_disk, check_packages, check_ports, check_topic, examine, failures
from streamapp.cli.main import run
from streamapp.kafka.admin import TopicDescription
from streamapp.kafka.topics import TopicSpec
from streamapp.settings import Settings

SPEC = TopicSpec("trades", 4, retention_ms=1000)


def topic(partitions=4, replication=1, leaderless=0, **config):
    return TopicDescription("trades", "id", partitions, replication, leaderless, {**SPEC.full_config(), **config})


def test_topic_as_declared_is_ok():
    assert check_topic(SPEC, topic()).status == "ok"


def test_topic_that_is_absent_is_a_warning():
    assert check_topic(SPEC, None).status == "warn"


@pytest.mark.parametrize(
    ("found", "status", "advice"),
    [
        (topic(partitions=8), "fail", "STREAMAPP_PARTITIONS=8"),
        (topic(leaderless=1), "fail", "brokers"),
        (topic(**{"message.timestamp.type": "CreateTime"}), "fail", "message.timestamp.type=LogAppendTime"),
        (topic(**{"cleanup.policy": "compact"}), "fail", "cleanup.policy=delete"),
        (topic(**{"retention.ms": "5"}), "warn", "retention.ms=1000"),
    ],
)
def test_topic_that_differs_says_how_to_mend_it(found, status, advice):
    finding = check_topic(SPEC, found)
    assert finding.status == status
    assert advice in finding.advice


def test_packages_want_exactly_one_faust(monkeypatch):
    monkeypatch.setattr(findings, "_installed", lambda name: None if name == "cramjam" else "0.15.4")
    assert failures(check_packages()) == ["faust-streaming", "cramjam"]


def test_disk_of_a_folder_that_does_not_exist_yet_is_its_parents(tmp_path):
    assert "GiB free" in check_disk(tmp_path / "a" / "b").found


def test_disk_that_is_nearly_full_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(findings, "_DISK_FAIL_BYTES", 1 << 62)
    assert check_disk(tmp_path).status == "fail"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_disk_that_is_read_only_fails(tmp_path):
    tmp_path.chmod(0o500)
    assert check_disk(tmp_path / "state").status == "fail"


def test_ports_say_who_uses_them(free_port):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        settings = Settings(kafka_brokers=f"127.0.0.1:{taken},elsewhere:9092")
        kafka, web = check_ports(settings, free_port, kafka_answers=False)
        assert kafka.status == "fail"
        assert str(os.getpid()) in kafka.found
        assert (web.status, web.found) == ("ok", "free")
        assert check_ports(settings, taken, kafka_answers=True)[1].status == "warn"


async def test_examination_without_a_broker_fails_there_only(free_port):
    report = await examine(Settings(kafka_brokers=f"127.0.0.1:{free_port}", kafka_request_timeout_ms=300), free_port)
    assert failures(report) == ["Kafka"]


def test_doctor_exits_one_and_names_what_failed(monkeypatch, capsys, free_port):
    monkeypatch.setenv("STREAMAPP_KAFKA_BROKERS", f"127.0.0.1:{free_port}")
    monkeypatch.setenv("STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS", "300")
    monkeypatch.setattr("sys.argv", ["streamapp", "doctor", "--port", str(free_port)])
    with pytest.raises(SystemExit) as stopped:
        run()
    output, errors = capsys.readouterr()
    assert stopped.value.code == 1
    assert errors.splitlines() == [f"streamapp: 1 of {output.count(' ok ') + 1} checks failed: Kafka"]
    assert "streamapp kafka" in output
    assert "\x1b[" not in output


def test_doctor_keeps_to_itself_what_the_client_says_of_a_kafka_that_is_away():
    code = """
import logging
from streamapp.cli import doctor

async def examine(*_):
    logging.getLogger("streamapp.kafka.admin").error("FAIL: connection refused")
    return []

doctor.examine = examine
doctor.doctor(6066)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
