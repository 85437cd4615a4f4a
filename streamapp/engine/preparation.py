"""Before anything is consumed: every topic that the app needs is there, and the tables know their identities."""

from collections.abc import Mapping, Sequence

from streamapp.engine.forwarding import check_room
from streamapp.engine.tables import RunningTable
from streamapp.errors import ConfigurationError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.topics import BUILTIN_TOPICS, FRAMING_BYTES, TopicSpec
from streamapp.settings import Settings

#: topics that every worker writes to or reads, whatever its tables
_ALWAYS = ("dead-letters", "feed-status")


async def prepare_topics(
    admin: KafkaAdmin, settings: Settings, tables: Sequence[RunningTable], declared: Mapping[str, int]
) -> None:
    """Create what is missing, and note in each table how many partitions it has and which topics its offsets are of.

    A source that exists is taken as it is; changelogs, final, late and re-key topics have as many partitions as it has.

    Args:
        admin: the cluster.
        settings: partitions and replication of what is created.
        tables: in order of declaration; filled in.
        declared: further topics that the app uses (its agents'), with the partitions that they get if they are created.

    Raises:
        ConfigurationError: sources of one table differ in partitions, tables feed on each other in a circle, or a source has
            more re-keyed tables than a commit has room for.
        TopicMismatchError: a topic of ours exists with another number of partitions.
    """
    builtin = {spec.name: spec for spec in BUILTIN_TOPICS(settings)}
    ours = {table.final_topic for table in tables}
    sources = {source.topic for table in tables for source in table.definition.sources}
    external = sorted((sources | set(declared) | set(_ALWAYS)) - ours)
    found = await admin.ensure_topics(
        [_external_topic(settings, name, builtin, declared) for name in external], as_found=True
    )
    counts = {name: topic.partitions for name, topic in found.items()}
    found |= await admin.ensure_topics(_internal_topics(settings, tables, counts))
    for table in tables:
        table.topic_ids = tuple(found[topic].topic_id for topic in table.consumed_topics)
        table.changelog_id = found[table.changelog_topic].topic_id
    check_room(tables)


def _external_topic(
    settings: Settings, name: str, builtin: Mapping[str, TopicSpec], declared: Mapping[str, int]
) -> TopicSpec:
    """A source as it is made where nobody has made it yet."""
    return builtin.get(name) or TopicSpec(
        name,
        declared.get(name, settings.partitions),
        settings.replication_factor,
        retention_ms=settings.topic_retention_ms,
    )


def _internal_topics(settings: Settings, tables: Sequence[RunningTable], counts: dict[str, int]) -> list[TopicSpec]:
    """The topics of all tables; a table whose source is another table's final topic comes after it."""
    waiting = list(tables)
    specs: list[TopicSpec] = []
    while waiting:
        ready = [table for table in waiting if all(s.topic in counts for s in table.definition.sources)]
        if not ready:
            names = ", ".join(table.name for table in waiting)
            raise ConfigurationError(f"tables {names}: their sources are each other's final topics; break the circle")
        for table in ready:
            waiting.remove(table)
            specs += _table_topics(settings, table, counts)
    return specs


def _table_topics(settings: Settings, table: RunningTable, counts: dict[str, int]) -> list[TopicSpec]:
    """What a table needs beside its sources, with as many partitions as they have."""
    sources = {source.topic: counts[source.topic] for source in table.definition.sources}
    if len(set(sources.values())) != 1:
        listed = ", ".join(f"{topic} has {count}" for topic, count in sources.items())
        raise ConfigurationError(
            f"table {table.name}: its sources must have the same number of partitions, but {listed}"
        )
    count = next(iter(sources.values()))
    table.partitions = count
    table.origins = count if table.definition.rekey is not None else len(sources)
    largest = {"max.message.bytes": str(2 * settings.max_record_bytes + FRAMING_BYTES)}
    # no compaction for a while after a write: a value overwritten by a stale worker can still be repaired
    lag_ms = settings.changelog_compaction_lag_ms
    compaction = {"min.compaction.lag.ms": str(lag_ms), "segment.ms": "3600000", **largest}
    replication = settings.replication_factor
    specs = [
        TopicSpec(table.changelog_topic, count, replication, "compact", None, compaction),
        TopicSpec(table.late_topic, count, replication, "delete", settings.topic_retention_ms, largest),
    ]
    if table.definition.window is not None:
        specs.append(TopicSpec(table.final_topic, count, replication, "delete", settings.topic_retention_ms, largest))
        counts[table.final_topic] = count
    if table.definition.rekey is not None:
        specs.append(TopicSpec(table.rekey_topic, count, replication, "delete", settings.topic_retention_ms, largest))
    return specs
