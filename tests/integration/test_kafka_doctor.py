import uuid

import pytest

from streamapp.cli import findings
from streamapp.cli.findings import check_cluster, failures
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.topics import BUILTIN_TOPICS, TopicSpec
from streamapp.settings import Settings

pytestmark = pytest.mark.integration


async def test_cluster_with_the_declared_topics_is_ok(kafka):
    settings = Settings(kafka_brokers=kafka)
    await KafkaAdmin(settings).ensure_topics(BUILTIN_TOPICS(settings))
    report = await check_cluster(settings)
    assert {finding.status for finding in report} == {"ok"}
    assert "4.0 or newer" in report[0].found


async def test_cluster_with_another_topic_than_declared_fails(kafka, monkeypatch):
    settings = Settings(kafka_brokers=kafka, replication_factor=3)
    name = f"t-{uuid.uuid4().hex[:12]}"
    await KafkaAdmin(settings).ensure_topics([TopicSpec(name, 2)])
    monkeypatch.setattr(findings, "BUILTIN_TOPICS", lambda _: [TopicSpec(name, 4)])
    assert failures(await check_cluster(settings)) == ["replication", f"topic {name}"]
