"""What topics should look like, as declared by the code that uses them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streamapp.settings import Settings

Cleanup = Literal["delete", "compact", "compact,delete"]

#: a record's framing (batch header, key, headers) on top of its value
FRAMING_BYTES = 64 << 10


@dataclass(frozen=True)
class TopicSpec:
    """One topic as it must be.

    Attributes:
        name: the topic's name.
        partitions: how many; never changes once it exists, because keys would move.
        replication: on how many brokers each partition is.
        cleanup: Kafka's `cleanup.policy`.
        retention_ms: how long records are kept, counted from their arrival; None for the broker's default, -1 for ever.
        config: further topic settings, in Kafka's names and as text.
    """

    name: str
    partitions: int
    replication: int = 1
    cleanup: Cleanup = "delete"
    retention_ms: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    def full_config(self) -> dict[str, str]:
        """Every topic setting that this declares, in Kafka's names."""
        config = {
            "cleanup.policy": self.cleanup,
            # retention by arrival: a broker deletes by record timestamp, and replayed history would vanish at once
            "message.timestamp.type": "LogAppendTime",
            "min.insync.replicas": "2" if self.replication >= 3 else "1",
        }
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        config.update(self.config)
        return config


def BUILTIN_TOPICS(settings: Settings) -> list[TopicSpec]:
    """The topics of the built-in application: trades, quotes, feed-status and dead-letters.

    `trades` and `quotes` are co-partitioned. `feed-status` has a single partition, so that a venue's state and the gaps
    of its symbols stay in one order.
    """

    def topic(name: str, partitions: int, retention_ms: int, largest_bytes: int) -> TopicSpec:
        return TopicSpec(
            name=name,
            partitions=partitions,
            replication=settings.replication_factor,
            retention_ms=retention_ms,
            config={"max.message.bytes": str(largest_bytes)},
        )

    largest = settings.max_record_bytes + FRAMING_BYTES
    return [
        topic("trades", settings.partitions, settings.topic_retention_ms, largest),
        topic("quotes", settings.partitions, settings.topic_retention_ms, largest),
        topic("feed-status", 1, settings.topic_retention_ms, largest),
        topic("dead-letters", settings.partitions, settings.dead_letter_retention_ms, largest_record_bytes(settings)),
    ]


def largest_record_bytes(settings: Settings) -> int:
    """The largest record that a producer may send: a dead letter with the base64 text of the largest accepted one."""
    return settings.max_record_bytes * 3 // 2 + 2 * FRAMING_BYTES
