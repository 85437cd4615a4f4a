from streamapp.kafka.topics import BUILTIN_TOPICS, FRAMING_BYTES, TopicSpec, largest_record_bytes
from streamapp.settings import Settings


def test_builtin_topics_keep_records_by_arrival():
    specs = {spec.name: spec for spec in BUILTIN_TOPICS(Settings(partitions=6))}
    assert set(specs) == {"trades", "quotes", "feed-status", "dead-letters"}
    assert {spec.full_config()["message.timestamp.type"] for spec in specs.values()} == {"LogAppendTime"}
    assert specs["trades"].partitions == specs["quotes"].partitions == 6


def test_builtin_dead_letters_hold_the_base64_of_the_largest_record():
    settings = Settings(max_record_bytes=3_000_000)
    spec = next(spec for spec in BUILTIN_TOPICS(settings) if spec.name == "dead-letters")
    assert int(spec.config["max.message.bytes"]) >= 4_000_000 + FRAMING_BYTES
    assert largest_record_bytes(settings) <= int(spec.config["max.message.bytes"])


def test_topic_config_asks_for_two_replicas_in_sync_only_where_there_are_three():
    assert TopicSpec("t", 1, replication=1).full_config()["min.insync.replicas"] == "1"
    assert TopicSpec("t", 1, replication=3).full_config()["min.insync.replicas"] == "2"


def test_topic_config_of_the_caller_wins():
    spec = TopicSpec("t", 1, cleanup="compact", config={"message.timestamp.type": "CreateTime"})
    assert spec.full_config()["message.timestamp.type"] == "CreateTime"
    assert spec.full_config()["cleanup.policy"] == "compact"
    assert "retention.ms" not in spec.full_config()
