"""The tables of an app as they run: their topics, the partitions that live here, and the taps that feed them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from streamapp.columns.rows import row_type
from streamapp.engine.forwarding import Forwarded
from streamapp.engine.ledger import Ledger
from streamapp.engine.tap import ByColumns, Decoded
from streamapp.errors import RecordError, without_frames
from streamapp.kafka.partitioner import partition_for
from streamapp.metrics import Metrics
from streamapp.state.batch import Batch
from streamapp.state.definition import TableDefinition
from streamapp.state.entry import NO_EPOCH
from streamapp.state.grouping import Plan
from streamapp.state.lanes import columns_min_records, prepare_columns
from streamapp.state.partition import PartitionState
from streamapp.state.store import StateStore
from streamapp.windows.sessions import Session

if TYPE_CHECKING:
    from streamapp.records.codec import Codec


@dataclass
class LivePartition:
    """One partition of one table on this worker.

    Attributes:
        store: open from the assignment on.
        state: None until it is restored.
        epoch: the one that this worker has claimed.
        ledger: what of the changelog is its own; None before the claim.
        doubted: keys whose last record in the changelog came from a replaced owner.
    """

    table: "RunningTable"
    partition: int
    store: StateStore
    state: PartitionState | None = None
    restored_records: int = 0
    epoch: bytes = NO_EPOCH
    ledger: Ledger | None = None
    doubted: set[bytes] = field(default_factory=set)

    @property
    def status(self) -> Literal["restoring", "active"]:
        """Whether reads can be answered."""
        return "restoring" if self.state is None else "active"


@dataclass
class RunningTable:
    """A table with what it needs of Kafka. `partitions` and `topic_ids` are known once its topics are."""

    definition: TableDefinition
    app_id: str
    partitions: int = 0
    origins: int = 1
    topic_ids: Sequence[str] = ()
    changelog_id: str = ""
    live: dict[int, LivePartition] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The table's name."""
        return self.definition.name

    @property
    def changelog_topic(self) -> str:
        """Where every value goes before it reaches the disk."""
        return changelog_topic(self.app_id, self.name)

    @property
    def final_topic(self) -> str:
        """Where closed windows go."""
        return final_topic(self.app_id, self.name)

    @property
    def late_topic(self) -> str:
        """Where records go that came too late."""
        return f"{self.app_id}-{self.name}-late"

    @property
    def rekey_topic(self) -> str:
        """Where the records of a re-keyed table pass through."""
        return f"{self.app_id}-{self.name}-rekey"

    @cached_property
    def input_topics(self) -> Sequence[str]:
        """The topics whose records are merged: the sources, or the re-key topic."""
        if self.definition.rekey is not None:
            return (self.rekey_topic,)
        return tuple(source.topic for source in self.definition.sources)

    @property
    def consumed_topics(self) -> Sequence[str]:
        """All that is read for it, and that its offsets are of: the inputs, and of a re-keyed table its source as well."""
        if self.definition.rekey is not None:
            return (self.rekey_topic, self.definition.sources[0].topic)
        return self.input_topics

    def in_order(self) -> "list[LivePartition]":
        """The partitions that live here, by number."""
        return [self.live[partition] for partition in sorted(self.live)]

    def forwarded_as_told(self, told: Mapping[str, Forwarded]) -> Forwarded | None:
        """How far a re-keyed table's source is forwarded, as a commit tells it; None where it does not know this topic."""
        known = told.get(self.name)
        return known if known is not None and known.topic_id == self.topic_ids[0] else None

    def partition_of(self, key: str) -> int:
        """The partition that holds a key: the choice of Kafka's default partitioner."""
        return partition_for(key.encode(), self.partitions)


def changelog_topic(app_id: str, table: str) -> str:
    """The name of a table's changelog."""
    return f"{app_id}-{table}-changelog"


def final_topic(app_id: str, table: str) -> str:
    """The name of the topic of a table's closed windows."""
    return f"{app_id}-{table}-final"


class TableTap:
    """Feeds one source of a table's partition."""

    needs_key = True

    def __init__(self, live: LivePartition, source: int, metrics: Metrics) -> None:
        self.live = live
        self.source = source
        self.codec: Codec = live.table.definition.sources[source].codec
        self.time_field = live.table.definition.sources[source].time_field
        self._applied = metrics.records_applied.labels(live.table.name)
        self._late = metrics.late_records.labels(live.table.name)

    @cached_property
    def columns(self) -> ByColumns | None:
        """Where the aggregate groups records, or takes them without the fields that it does not read."""
        definition = self.live.table.definition
        aggregate = definition.aggregate
        if isinstance(definition.window, Session):
            return None
        plan = Plan(aggregate, self.source)
        names, least = plan.inputs, columns_min_records(plan, definition.windows_each)
        if aggregate.narrow:
            narrow = row_type(self.codec, names) is not None
            return ByColumns(names, least, calls_per_record=True) if narrow else None
        if aggregate.ordered or (plan.reductions is None and plan.expressions is None):
            return None
        return ByColumns(names, least, quick=plan.reductions is not None)

    def prepare(self, decoded: Decoded) -> None:
        """Group the chunk."""
        state = self.live.state
        if state is not None:
            prepare_columns(state, self._batch(decoded))

    async def accept(self, decoded: Decoded) -> Sequence[tuple[int, RecordError]]:
        """Merge a chunk."""
        return self._merge(self._batch(decoded))

    def _batch(self, decoded: Decoded) -> Batch:
        return Batch(
            self.source,
            self.source,
            decoded.end,
            decoded.offsets,
            decoded.keys,
            decoded.records,
            decoded.times,
            decoded.sequences,
            decoded.columns,
        )

    def _merge(self, batch: Batch) -> Sequence[tuple[int, RecordError]]:
        state = self.live.state
        if state is None:
            raise RuntimeError(f"{self.live.table.name}-{self.live.partition} got records before it was restored")
        outcome = state.apply(batch)
        if outcome.merged:
            self._applied.inc(outcome.merged)
        if outcome.late:
            self._late.inc(outcome.late)
        return [
            (
                position,
                RecordError("aggregate_failed", f"table {self.live.table.name}: {without_frames(problem)!r}"[:500]),
            )
            for position, problem in outcome.failed
        ]

    @property
    def idle_origins(self) -> Collection[int]:
        """The origins that hold no window open where nothing has come by the lane for long enough."""
        return (self.source,)

    def position(self) -> int | None:
        """The offset after the last one merged."""
        state = self.live.state
        return None if state is None else state.applied[self.source] + 1
