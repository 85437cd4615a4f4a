"""What feeds a table: the plain tap."""

import pytest

from streamapp.engine.tables import LivePartition, RunningTable, TableTap
from streamapp.metrics import Metrics
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from tests.fakes.crashes import Event, definition
from tests.fakes.kafka_records import Raw, decoded

WINDOW = Tumbling(10, 0, 1_000)


async def test_records_before_a_restored_state_are_a_bug_and_not_skipped(metrics: Metrics):
    table = RunningTable(definition(WINDOW, Count()), "app")
    tap = TableTap(LivePartition(table, 0, MemoryStore()), 0, metrics)
    with pytest.raises(RuntimeError, match="before it was restored"):
        await tap.accept(decoded([Raw(0)], [Event("a", 1)]))
    assert tap.position() is None


async def test_a_table_wants_the_record_after_its_last(metrics: Metrics):
    store, table = MemoryStore(), RunningTable(definition(WINDOW, Count()), "app")
    one = LivePartition(table, 0, store, PartitionState(table.definition, 0, store))
    tap = TableTap(one, 0, metrics)
    assert tap.position() == 0
    await tap.accept(decoded([Raw(4), Raw(9)], [Event("a", 1), Event("a", 2)]))
    assert tap.position() == 10
    assert metrics.records_applied.labels("table")._value.get() == 2
