"""The plan for a large load follows from its figures."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks.capacity import Load, measured, plan, summary
from tests.fakes.bench_results import full_results


def test_key_that_changes_often_is_written_once_per_interval() -> None:
    assert plan(Load(events_per_s=10e6, keys=1e6, commit_s=1)).changelog_rows_per_s == 1e6
    assert plan(Load(events_per_s=10e6, keys=1e6, commit_s=5)).changelog_rows_per_s == 2e5
    assert plan(Load(events_per_s=1e5, keys=1e6, commit_s=1)).changelog_rows_per_s == 1e5


def test_worker_without_changelog_does_what_was_measured() -> None:
    load = Load(events_per_s=6e6, keys=0, headroom=0.5, worker_events_per_s=600_000, worker_cpu_s_per_million=1.6)
    assert plan(load).workers == 20


@pytest.mark.parametrize("factor", [2, 10])
def test_need_grows_with_the_load(factor: int) -> None:
    small, large = Load(), Load(events_per_s=Load.events_per_s * factor, keys=Load.keys * factor)
    assert plan(large).workers == pytest.approx(plan(small).workers * factor, rel=0.05)
    assert plan(large).partitions >= 4 * plan(large).workers
    assert plan(large).brokers >= plan(small).brokers
    # more workers share more rows
    assert plan(large).restore_s == pytest.approx(plan(small).restore_s, rel=0.05)


def test_partitions_are_a_power_of_two() -> None:
    partitions = plan(Load()).partitions
    assert partitions & (partitions - 1) == 0


def test_brokers_are_never_fewer_than_copies() -> None:
    assert plan(Load(events_per_s=1_000, keys=100)).brokers == 3


def test_measured_figures_replace_what_is_assumed() -> None:
    load = measured(Load(), full_results())
    assert load.worker_events_per_s == 800_000
    assert load.bytes_per_live_window == 241
    assert load.frames_per_s == 60_000
    assert load.restore_rows_per_s == pytest.approx(1_000_000 / 1.2)
    assert load.events_per_s == Load.events_per_s


def test_run_without_parts_changes_nothing() -> None:
    results = full_results()
    results.parts.clear()
    assert measured(Load(), results) == Load()


def test_document_shows_what_the_program_computes() -> None:
    document = (Path(__file__).parents[3] / "docs" / "scaling-plan.md").read_text()
    for table in summary(Load()).split("\n\n"):
        assert table in document, "run: python -m benchmarks.capacity"


def test_summary_names_every_figure() -> None:
    text = summary(Load())
    for name in [field.name for kind in (Load(), plan(Load())) for field in dataclasses.fields(kind)]:
        assert f"| {name} " in text
