"""Tables, targets, the JSON document and what is published of it."""

import json
from pathlib import Path

import pytest

from benchmarks.machine import label
from benchmarks.publish import BEGIN, END, publish, with_results
from benchmarks.report import report, target_rows
from benchmarks.results import PartResult, Results
from benchmarks.tables import figure, table
from benchmarks.targets import TARGETS, reference_rate
from tests.fakes.bench_results import full_results


def test_table_lines_up() -> None:
    lines = table(("engine", "events/s"), [("a", "1"), ("longer", "1,000")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ------ | -------: |"


def test_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        table(("a", "b"), [("1",)])


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1_234_567.8, "1,234,568"), (12.34, "12.3"), (1.234, "1.23"), (3.0, "3")]
)
def test_figure_has_no_more_digits_than_it_deserves(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_reference_is_the_better_number_of_threads() -> None:
    assert reference_rate(full_results().figures("throughput")) == 400_000
    assert reference_rate({"engines": {}}) is None


def test_report_shows_every_part_and_every_target() -> None:
    text = report(full_results())
    for title in (
        "Windowed aggregation",
        "A user's own Python",
        "Latency",
        "Point reads",
        "Recovery",
        "Take-over",
        "Bridge",
        "Memory",
    ):
        assert f"### {title}" in text
    assert "| **streamapp** " in text
    assert "2 x" in text
    rows = target_rows(full_results())
    assert len(rows) == len(TARGETS)
    assert {met for *_, met in rows} == {"yes"}


def test_target_is_missed_on_the_wrong_side_of_its_bound() -> None:
    results = full_results()
    results.figures("latency")["http_5000"]["p99_ms"] = 15.1
    results.figures("throughput")["engines"]["streamapp"]["events_per_s"]["median"] = 799_000
    missed = {name for name, _, _, met in target_rows(results) if met == "no"}
    assert missed == {"event to HTTP at 5,000 events/s, p99", "windowed aggregation to Kafka Streams' better"}


def test_target_without_a_figure_is_left_out() -> None:
    results = full_results()
    del results.parts["recovery"], results.figures("throughput")["engines"]["plain Faust"]
    names = {name for name, *_ in target_rows(results)}
    assert len(names) == len(TARGETS) - 5


def test_report_names_what_failed_and_what_was_skipped() -> None:
    results = full_results()
    results.parts["bridge"] = PartResult("failed", 1.0, {}, ["it broke"], ["no Maven"])
    text = report(results)
    assert "FAILED bridge: it broke" in text
    assert "skipped bridge: no Maven" in text
    assert "### Bridge" not in text
    assert results.exit_code == 1


def test_skipping_is_no_failure() -> None:
    results = full_results()
    results.parts["latency"].skipped.append("no JDK")
    assert results.exit_code == 0


def test_results_come_back_from_json(tmp_path: Path) -> None:
    results = full_results()
    results.save(tmp_path / "deep" / "result.json")
    assert Results.load(tmp_path / "deep" / "result.json") == results


def test_results_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"worker": {}}))
    with pytest.raises(ValueError, match="measure again"):
        Results.load(path)


def test_label_is_fit_for_a_file_name() -> None:
    assert label({"cores": 2, "processor": "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.50GHz"}) == "2x-xeon-platinum-8488c"
    assert label({}) == "0x-unknown"


def test_document_keeps_what_is_around_the_results(tmp_path: Path) -> None:
    document = tmp_path / "docs" / "benchmarks.md"
    document.parent.mkdir()
    document.write_text(f"# Before\n\n{BEGIN}\nwhat an earlier run left\n{END}\n\nafter\n")
    for _ in range(2):
        publish(full_results(), tmp_path / "results", document)
    text = document.read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\n\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "what an earlier run left" not in text
    assert text.count("### Latency") == 1
    assert (tmp_path / "results" / "2030-01-02-2x-some.json").exists()


def test_document_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="expected one"):
        with_results("# Nothing to replace\n", full_results(), None, "name")
