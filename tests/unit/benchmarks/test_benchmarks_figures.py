"""Arithmetic on measured values."""

import pytest

from benchmarks.figures import Spread, latency_summary, median, quantile, significant
from benchmarks.parts.latency import latencies, seen_times


def test_quantile_is_the_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [quantile(values, fraction) for fraction in (0, 0.01, 0.5, 0.99, 1)] == [1, 1, 50, 99, 100]
    assert quantile([7.0], 0.99) == 7.0


def test_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 values"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match=r"1\.5"):
        quantile([1.0], 1.5)


def test_median_is_in_the_middle() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5


def test_spread_keeps_the_extremes() -> None:
    assert Spread.of([30.0, 10.0, 20.0]).as_json() == {"median": 20, "min": 10, "max": 30, "rounds": 3}


@pytest.mark.parametrize(
    ("value", "rounded"), [(123_456.7, 123_500), (0.0123456, 0.01235), (9_999.6, 10_000), (0, 0), (12.0, 12.0)]
)
def test_significant_keeps_four_digits(value: float, rounded: float) -> None:
    assert significant(value) == rounded


def test_latency_summary_counts_its_samples() -> None:
    summary = latency_summary([1.0] * 98 + [50.0, 100.0])
    assert summary == {"p50_ms": 1.0, "p90_ms": 1.0, "p99_ms": 50.0, "max_ms": 100.0, "samples": 100}


def test_probe_is_visible_with_a_later_one() -> None:
    assert seen_times(4, [(2, 10.0), (3, 11.0)]) == [10.0, 10.0, 11.0]
    assert seen_times(2, []) == []


def test_latencies_leave_out_the_warm_up_and_count_the_unseen() -> None:
    keys = {"a": {"sent": [0.0, 6.0, 7.0], "seen": [5.0, 6.010]}, "b": {"sent": [1.0, 8.0], "seen": [1.1, 8.020]}}
    taken, lost = latencies(keys, 5.0)
    assert taken == pytest.approx([10.0, 20.0])
    assert lost == 1
