"""Offsets that no longer mean what they meant stop the worker, and the message names the way out."""

from dataclasses import replace

import pytest

from streamapp.engine.identity import SourceBounds, check_checkpoint, check_store
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import SourceChangedError
from streamapp.state.entry import Checkpoint
from streamapp.state.store import MemoryStore
from streamapp.windows.basic import Count
from tests.fakes.crashes import definition

COMMAND = "streamapp tables rebuild table"
GOOD = Checkpoint((49, -1), (1, 1), 1, "print", "cluster", ("id-0", "id-1"), (40, -1))
BOUNDS = {"source-0": SourceBounds(10, 60, 45), "source-1": SourceBounds(0, 0, None)}


def table() -> RunningTable:
    return RunningTable(definition(None, Count(), 2), "app", topic_ids=("id-0", "id-1"), changelog_id="log")


def check(checkpoint: Checkpoint = GOOD, **bounds: SourceBounds) -> None:
    given = {**BOUNDS, **{name.replace("_", "-"): found for name, found in bounds.items()}}
    check_checkpoint(table(), 2, checkpoint, "cluster", given)


def test_a_checkpoint_that_its_sources_continue_is_good():
    check()
    check(source_0=SourceBounds(50, 50, None))
    check(replace(GOOD, committed=(-1, -1)), source_0=SourceBounds(0, 60, 1))


@pytest.mark.parametrize(
    ("checkpoint", "bounds", "said"),
    [
        (replace(GOOD, cluster_id="other"), {}, "its checkpoint is of cluster other, this is cluster"),
        (replace(GOOD, topic_ids=("id-0", "old")), {}, "the topic source-1 was re-created"),
        (GOOD, {"source_0": SourceBounds(0, 49, 45)}, "counted source-0 up to 50, but the topic ends at 49"),
        (GOOD, {"source_0": SourceBounds(55, 60, 55)}, "begins at 55: retention deleted 5 records unread"),
        (GOOD, {"source_0": SourceBounds(0, 60, 39)}, "position on source-0 was set back from 40 to 39"),
    ],
)
def test_each_break_is_named_with_the_command_that_mends_it(
    checkpoint: Checkpoint, bounds: dict[str, SourceBounds], said: str
):
    with pytest.raises(SourceChangedError) as problem:
        check(checkpoint, **bounds)
    assert said in str(problem.value)
    assert COMMAND in str(problem.value)
    assert "partition 2" in str(problem.value)
    assert (problem.value.table, problem.value.partition) == ("table", 2)


def test_a_rekeyed_table_notices_that_its_source_was_recreated():
    rekeyed = RunningTable(
        definition(None, Count(), rekey=lambda record: "x", rekey_name="x"), "app", topic_ids=("rekey-id", "new")
    )
    found = replace(GOOD, offsets=(5, 6, 7), topic_ids=("rekey-id", "old"), committed=(-1,))
    with pytest.raises(SourceChangedError, match="source-0 was re-created"):
        check_checkpoint(rekeyed, 0, found, "cluster", {"app-table-rekey": SourceBounds(0, 3, None)})
    good = replace(found, topic_ids=("rekey-id", "new"))
    check_checkpoint(rekeyed, 0, good, "cluster", {"app-table-rekey": SourceBounds(0, 3, None)})


def test_local_files_are_marked_and_refused_by_another_changelog():
    live = LivePartition(table(), 2, MemoryStore())
    check_store(live, "cluster")
    check_store(live, "cluster")
    for cluster, changelog in (("other", "log"), ("cluster", "new")):
        live.table.changelog_id = changelog
        with pytest.raises(SourceChangedError) as problem:
            check_store(live, cluster)
        assert COMMAND in str(problem.value)
        assert f"{cluster}/{changelog}" in str(problem.value)
