"""Building a table anew from its source: the changelog starts over, and every worker drops what it had of the old one."""

import asyncio
import shutil
from pathlib import Path

from streamapp.engine.tables import changelog_topic
from streamapp.errors import ConfigurationError, StateError
from streamapp.kafka.admin import KafkaAdmin, TopicDescription
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.kafka.topics import TopicSpec
from streamapp.settings import Settings
from streamapp.state.replay import REBUILD_KEY

_SUFFIX = "-changelog"
_KEPT_CONFIG = ("max.message.bytes", "min.compaction.lag.ms", "segment.ms")


async def rebuild_table(settings: Settings, app_id: str, table: str) -> str:
    """Forget a table's state, so that the workers build it again from what its source topics still hold.

    All workers of the app must be stopped. Local state on this machine is deleted; other machines drop theirs when they
    find the mark that is left in the new changelog. Final and late records of the rebuilt windows are sent again, under
    the ids that they had.

    Returns:
        What was done, in one line.

    Raises:
        StateError: workers of the app are running.
        ConfigurationError: there is no such table.
        KafkaError: the cluster refused, or did not answer.
    """
    admin = KafkaAdmin(settings)
    topic = changelog_topic(app_id, table)
    rekey = f"{app_id}-{table}-rekey"
    found = await admin.describe_topics([topic, rekey])
    old = found[topic]
    if old is None:
        raise ConfigurationError(
            f"there is no table {table!r} in the app {app_id!r}: no topic {topic}; check the name, --app and the brokers"
        )
    members = await admin.group_members(app_id)
    if members:
        raise StateError(
            table, None, f"{members} workers of {app_id} are running: stop them all, rebuild, and start them again"
        )
    specs = [_again(description) for description in (old, found[rekey]) if description is not None]
    await admin.delete_topics([spec.name for spec in specs])
    await admin.ensure_topics(specs)
    producer = DurableProducer(settings, client_id="streamapp-rebuild")
    await producer.start()
    try:
        await producer.send_all(
            [OutMessage(topic, REBUILD_KEY, b"{}", partition) for partition in range(old.partitions)]
        )
    finally:
        await producer.stop()
    removed = await asyncio.to_thread(_remove_local, settings.data_dir / app_id, table)
    return (
        f"table {table} of {app_id}: {old.partitions} partitions start over, {removed} local copies deleted; "
        "it is built again from its source when a worker starts"
    )


def _again(description: TopicDescription) -> TopicSpec:
    """The same topic once more."""
    name, config = description.name, description.config
    retention = config.get("retention.ms")
    return TopicSpec(
        name,
        description.partitions,
        description.replication,
        "compact" if name.endswith(_SUFFIX) else "delete",
        int(retention) if retention is not None and not name.endswith(_SUFFIX) else None,
        {key: config[key] for key in _KEPT_CONFIG if key in config},
    )


def _remove_local(app_dir: Path, table: str) -> int:
    folders = [folder for folder in app_dir.glob(f"worker-*/tables/{table}") if folder.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)
