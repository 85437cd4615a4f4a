"""When silence closes windows: only where a fetch has found that nothing waits."""

from types import SimpleNamespace
from typing import Any

from streamapp.engine.forwarding import Forwarded
from streamapp.engine.idle import close_idle
from streamapp.engine.rekeying import ForwardTap, RekeyedTap
from streamapp.engine.tables import LivePartition, RunningTable, TableTap
from streamapp.metrics import Metrics
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from tests.fakes.crashes import Event, batch, definition

TIMEOUT_MS = 1_000


def closed(emptied_ms: int | None, *, waiting: bool = False, ready: bool = True, timeout_ms: int = TIMEOUT_MS) -> bool:
    """Whether a window is closed whose last record came at 5,000."""
    table = RunningTable(definition(Tumbling(10, 0, 1_000), Count()), "app", partitions=1)
    store = MemoryStore()
    state = PartitionState(table.definition, 0, store)
    state.apply(batch([Event("a", 5)], origin=0, source=0))
    tap = TableTap(LivePartition(table, 0, store, state), 0, Metrics())
    lane: Any = SimpleNamespace(
        topic=table.input_topics[0], partition=0, taps=[tap], ready=ready, waiting=waiting, last_activity_ms=5_000
    )
    asked: list[tuple[str, int]] = []

    def emptied(topic: str, partition: int) -> int | None:
        asked.append((topic, partition))
        return emptied_ms

    close_idle([lane], timeout_ms, emptied)
    assert set(asked) <= {(lane.topic, 0)}
    [(start, entry)] = state.windows("a", 0, 100)
    return state.is_final(start, entry)


def test_windows_close_when_nothing_has_come_for_longer_than_the_time_out() -> None:
    assert closed(6_001)
    assert not closed(6_000)


def test_windows_stay_open_while_nobody_knows_whether_something_waits() -> None:
    # the last fetch that found nothing is old, or there was none
    assert not closed(5_500)
    assert not closed(None)


def test_windows_stay_open_while_records_are_worked_on_or_restored() -> None:
    assert not closed(9_000, waiting=True)
    assert not closed(9_000, ready=False)


def test_windows_stay_open_where_silence_is_not_to_close_them() -> None:
    assert not closed(9_000, timeout_ms=0)


def test_silence_of_a_source_that_is_forwarded_is_noted_for_its_markers_and_ends_with_a_record() -> None:
    table = RunningTable(definition(Tumbling(10, 0, 1_000), Count(), rekey=str, rekey_name="text"), "app", partitions=1)
    tap = ForwardTap(table, 0, None, Forwarded("id", 0))  # type: ignore[arg-type]
    lane: Any = SimpleNamespace(
        topic="source-0", partition=0, taps=[tap], ready=True, waiting=False, last_activity_ms=0
    )
    for emptied_ms, silent in ((TIMEOUT_MS, False), (TIMEOUT_MS + 1, True), (None, False), (TIMEOUT_MS + 1, True)):
        close_idle([lane], TIMEOUT_MS, lambda *_, emptied_ms=emptied_ms: emptied_ms)
        assert tap.silent is silent
    lane.waiting = True
    close_idle([lane], TIMEOUT_MS, lambda *_: TIMEOUT_MS + 1)
    assert not tap.silent


def test_windows_of_a_rekeyed_table_close_where_all_origins_say_that_they_are_idle() -> None:
    table = RunningTable(
        definition(Tumbling(10, 0, 1_000), Count(), rekey=str, rekey_name="text"), "app", partitions=1, origins=2
    )
    store = MemoryStore()
    state = PartitionState(table.definition, 0, store, origins=2)
    state.apply(batch([Event("a", 5)], origin=0, source=0))
    tap = RekeyedTap(LivePartition(table, 0, store, state), Metrics())
    lane: Any = SimpleNamespace(topic="rekey", partition=0, taps=[tap], ready=True, waiting=False, last_activity_ms=0)

    def is_final() -> bool:
        close_idle([lane], TIMEOUT_MS, lambda *_: 9_000)
        [(start, entry)] = state.windows("a", 0, 100)
        return state.is_final(start, entry)

    assert not is_final(), "that nothing comes may be for want of a worker that forwards it"
    state.idle = {1}
    assert not is_final()
    state.idle = {0, 1}
    assert is_final()
