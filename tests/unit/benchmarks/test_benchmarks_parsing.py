"""What other programs print, and what is put on the topics."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.load_test import parse_wrk
from benchmarks.probes import Key, probe_keys
from benchmarks.processes import ProcessTree, parse_mark
from benchmarks.topics import SYMBOLS, keyed_value, symbol, trades
from benchmarks.worker import metric_sum
from streamapp.kafka.partitioner import partition_for

WRK = """Running 5s test @ http://127.0.0.1:1
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   508.34us  171.49us   5.29ms   85.75%
    Req/Sec    31.49k     3.06k   35.12k    74.00%
  Latency Distribution
     50%  475.00us
     75%  580.00us
     90%  701.00us
     99%    1.12ms
  156720 requests in 5.00s, 41.55MB read
Requests/sec:  31341.77
Transfer/sec:      8.31MB
"""


def test_wrk_is_read_in_one_unit() -> None:
    assert parse_wrk(WRK) == {"requests_per_s": 31_340, "p50_ms": 0.475, "p90_ms": 0.701, "p99_ms": 1.12}


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 12\n", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"]
)
def test_wrk_with_errors_is_no_measurement(line: str) -> None:
    with pytest.raises(RuntimeError, match="wrk: "):
        parse_wrk(WRK + line)


def test_wrk_that_says_nothing_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="unexpected"):
        parse_wrk("unable to connect\n")


def test_metric_is_summed_over_its_labels() -> None:
    text = (
        "# TYPE streamapp_records_applied_total counter\n"
        'streamapp_records_applied_total{table="a"} 3.0\n'
        'streamapp_records_applied_total{table="b"} 1e+06\n'
        "streamapp_records_applied_created 99.0\n"
        "streamapp_subscribers 2.0\n"
    )
    assert metric_sum(text, "streamapp_records_applied_total") == 1_000_003
    assert metric_sum(text, "streamapp_records_applied_total", 'table="a"') == 3
    assert metric_sum(text, "streamapp_subscribers") == 2
    assert metric_sum(text, "streamapp_lag_records") is None


def test_mark_is_told_from_other_output() -> None:
    mark = parse_mark('BENCH {"mark": "done", "events": 5}\n')
    assert mark is not None
    assert (mark.name, mark.content) == ("done", {"events": 5})
    for line in ("hello\n", "BENCH nonsense\n", 'BENCH {"events": 5}\n', "BENCH [1]\n"):
        assert parse_mark(line) is None


def test_trades_are_the_same_for_one_seed_and_in_order() -> None:
    first, second = (list(trades(2_000, end_ms=1_790_000_000_000)) for _ in range(2))
    assert first == second
    times = [at for _, at, _ in first]
    assert times == sorted(times)
    assert times[-1] < 1_790_000_000_000
    index, at, value = first[0]
    record = json.loads(value)
    assert (record["symbol"], record["event_time"]) == (symbol(index), at)
    assert set(record) == {"symbol", "price", "size", "event_time", "trade_id", "side"}


def test_trades_are_of_the_size_and_spread_that_the_documents_say() -> None:
    sample = list(trades(20_000, end_ms=1_790_000_000_000))
    assert 100 <= sum(len(value) for *_, value in sample) / len(sample) <= 125
    counts = Counter(index for index, *_ in sample)
    assert len(counts) == SYMBOLS
    assert 0.01 < counts.most_common(1)[0][1] / len(sample) < 0.04


def test_keyed_value_has_64_bytes() -> None:
    for number in (0, 7, 999_999, 123_456_789):
        value = keyed_value(number, 1_790_000_000_000)
        assert len(value) == 64
        assert json.loads(value)["event_time"] == 1_790_000_000_000


def test_probe_keys_are_one_for_each_partition() -> None:
    assert [partition_for(name.encode(), 4) for name in probe_keys()] == [0, 1, 2, 3]


def test_probe_counts_as_seen_with_everything_before_it() -> None:
    key = Key("a")
    key.sent = [1.0, 2.0, 3.0]
    key.under_way.set()
    key.saw(0, 10.0)
    assert key.seen == []
    key.saw(2, 11.0)
    assert key.seen == [11.0, 11.0]
    assert key.under_way.is_set()
    key.saw(3, 12.0)
    assert key.seen == [11.0, 11.0, 12.0]
    assert not key.under_way.is_set()


def test_process_tree_knows_who_lives() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        tree = ProcessTree(os.getpid())
        assert child.pid in [process.pid for process in tree.processes()]
        assert tree.rss_bytes() > 0
        assert ProcessTree(child.pid).processes() == []
        assert ProcessTree(None).cpu_seconds() == 0.0
    finally:
        child.kill()
        child.wait()
    assert child.pid not in [process.pid for process in tree.processes()]
