"""Whether a restored partition may go on: the offsets that it holds must mean what they meant.

An offset only has a meaning on the topic, in the cluster, that it came from. Each check stops the worker with a message
that says what was found and which command mends it; none of them skips or repeats records silently.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from streamapp.engine.forwarding import Forwarded, decode
from streamapp.engine.rekeying import ForwardTap, RekeyedTap
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.engine.tap import Tap
from streamapp.errors import SourceChangedError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.state.entry import Checkpoint
from streamapp.state.store import IDENTITY_KEY, WriteSet


@dataclass(frozen=True)
class SourceBounds:
    """What the broker says of a source partition.

    Attributes:
        begin: its first offset.
        end: its next offset.
        committed: where the group is; None: nowhere.
        forwarded: how far re-keyed tables have come, by name.
    """

    begin: int
    end: int
    committed: int | None
    forwarded: Mapping[str, Forwarded] = field(default_factory=dict)


async def source_bounds(
    admin: KafkaAdmin, group: str, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], SourceBounds]:
    """What the broker says of these source partitions; each answer is of some moment between question and return.

    Raises:
        KafkaError: the cluster did not answer.
    """
    wanted = list(places)
    begins, ends, committed = await asyncio.gather(
        admin.begin_offsets(wanted), admin.end_offsets(wanted), admin.commits(group, wanted)
    )
    found: dict[tuple[str, int], SourceBounds] = {}
    for place in wanted:
        commit = committed[place]
        position, told = (None, "") if commit is None else (commit.offset, commit.metadata)
        found[place] = SourceBounds(begins[place], ends[place], position, decode(told))
    return found


def check_store(live: LivePartition, cluster_id: str) -> None:
    """The local files must belong to this cluster's changelog of the table; a new store is marked as such.

    Raises:
        SourceChangedError: they were written against another cluster or a deleted changelog.
    """
    table = live.table
    mine = f"{cluster_id}/{table.changelog_id}".encode()
    found = live.store.get(IDENTITY_KEY)
    if found is None:
        live.store.write(WriteSet([(IDENTITY_KEY, mine)]))
    elif found != mine:
        was, now = found.decode(), mine.decode()
        raise SourceChangedError(
            table.name,
            live.partition,
            f"table {table.name}: the local state belongs to another changelog (cluster/topic {was}, here {now}): "
            f"the cluster or the topic {table.changelog_topic} was replaced. If that is meant: "
            f"streamapp tables rebuild {table.name}",
        )


def check_checkpoint(
    table: RunningTable,
    partition: int,
    checkpoint: Checkpoint,
    cluster_id: str,
    bounds: Mapping[str, SourceBounds],
) -> None:
    """The checkpoint's offsets must be of these very topics, and still be continued by them.

    Raises:
        SourceChangedError: a source was re-created or cut, records between were deleted, or the group was rewound.
    """

    def stop(what: str) -> SourceChangedError:
        return SourceChangedError(
            table.name,
            partition,
            f"table {table.name}, partition {partition}: {what}; streamapp tables rebuild {table.name}",
        )

    if checkpoint.cluster_id != cluster_id:
        raise stop(f"its checkpoint is of cluster {checkpoint.cluster_id}, this is {cluster_id}. To start over here")
    for topic, was, now in zip(table.consumed_topics, checkpoint.topic_ids, table.topic_ids, strict=True):
        if was != now:
            raise stop(f"the topic {topic} was re-created, its offsets mean something else now. To read the new one")
    sources: Sequence[str] = table.input_topics
    for index, topic in enumerate(sources):
        if table.definition.rekey is not None:
            continue  # offsets of origins, not of this topic
        found, next_offset = bounds[topic], checkpoint.offsets[index] + 1
        if next_offset > found.end:
            raise stop(
                f"it has counted {topic} up to {next_offset}, but the topic ends at {found.end}. To read it again"
            )
        if 0 < next_offset < found.begin:
            raise stop(
                f"it has counted {topic} up to {next_offset}, but the topic now begins at {found.begin}: retention deleted "
                f"{found.begin - next_offset} records unread. To count what is left"
            )
        known = checkpoint.committed[index]
        if found.committed is not None and known >= 0 and found.committed < known:
            raise stop(
                f"the group's position on {topic} was set back from {known} to {found.committed}, but these records are "
                "counted already. Either set it forward again, or, to count them anew from the beginning"
            )


def check_unread(taps: Sequence[Tap], place: tuple[str, int], group: int, here: SourceBounds) -> None:
    """What a re-keyed table has still to forward, or to take from its re-key topic, must be there.

    Of other tables the checkpoint tells it. One that only begins is content with what there is.

    Args:
        taps: what is fed from the partition.
        place: topic and partition.
        group: the group's position there.
        here: what the broker says of it.

    Raises:
        SourceChangedError: retention has deleted some of it.
    """
    for tap in taps:
        if isinstance(tap, ForwardTap):
            table, wanted = tap.name, tap.position()
        elif isinstance(tap, RekeyedTap) and tap.position() is None and here.committed is not None:
            table, wanted = tap.live.table.name, group
        else:
            continue
        if 0 < wanted < here.begin:
            raise SourceChangedError(
                table,
                place[1],
                f"table {table}: it has taken {place[0]}-{place[1]} up to {wanted}, but the topic now begins at "
                f"{here.begin}: retention deleted {here.begin - wanted} records unread. To count what is left; "
                f"streamapp tables rebuild {table}",
            )


def unread_is_gone(topic: str, partition: int, position: int | None, tables: Sequence[str]) -> SourceChangedError:
    """What a running worker stops with when the record that it would read next has been deleted."""
    names = ", ".join(tables)
    return SourceChangedError(
        names,
        partition,
        f"{topic}-{partition}: there is no record at offset {position} any more, which {names} had still to read: retention "
        f"deleted it, or the topic was cut. To count what is left; streamapp tables rebuild {' '.join(tables)}",
    )
