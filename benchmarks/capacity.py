"""What a load needs, computed from measured figures: `python -m benchmarks.capacity RESULT.json --events 10e6 --keys 1e6`.

The formulas are those of docs/scaling-plan.md, under the same names. Everything that was not measured is an argument.
"""

import argparse
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.tables import figure, table

_ASSUMED = {
    "worker_events_per_s": 600_000.0,
    "worker_cpu_s_per_million": 1.6,
    "changelog_cpu_s_per_million": 25.0,
    "bytes_per_live_window": 600.0,
    "restore_rows_per_s": 250_000.0,
    "frames_per_s": 30_000.0,
}


@dataclass(frozen=True)
class Load:
    """What is to be carried, on what, and what was measured.

    Attributes:
        events_per_s: of all sources together.
        keys: instruments; each has one window open, and for the time of the grace the one before.
        window_s, retention_s, grace_s: of the table.
        commit_s: the longest time between a merge and its checkpoint: a key that changes more often is written once.
        active_share: of the keys, how many change within one commit interval, at most.
        event_bytes: a record on the wire, key and framing included, before compression.
        compression: compressed size over plain size.
        row_bytes: a window in the changelog and on the disk.
        replication: copies of each record.
        headroom: the share of a core, network or disk that is planned to be used.
        network_bytes_per_s: of one broker or worker host, each direction.
        broker_cores: of one broker.
        broker_cpu_s_per_million: of all brokers, per event: taken in, replicated, fetched once.
        worker_events_per_s, worker_cpu_s_per_million: one worker, events that merge in the cache.
        changelog_cpu_s_per_million: one worker, on top of that for each row written.
        bytes_per_live_window: resident.
        restore_rows_per_s: one worker, disk lost.
        frames_per_s: one bridge.
    """

    events_per_s: float = 10e6
    keys: float = 1e6
    window_s: float = 60
    retention_s: float = 86_400
    grace_s: float = 10
    commit_s: float = 1
    active_share: float = 1.0
    event_bytes: float = 130
    compression: float = 0.4
    row_bytes: float = 150
    replication: int = 3
    headroom: float = 0.6
    network_bytes_per_s: float = 1.25e9
    broker_cores: int = 16
    broker_cpu_s_per_million: float = 3.0
    worker_events_per_s: float = _ASSUMED["worker_events_per_s"]
    worker_cpu_s_per_million: float = _ASSUMED["worker_cpu_s_per_million"]
    changelog_cpu_s_per_million: float = _ASSUMED["changelog_cpu_s_per_million"]
    bytes_per_live_window: float = _ASSUMED["bytes_per_live_window"]
    restore_rows_per_s: float = _ASSUMED["restore_rows_per_s"]
    frames_per_s: float = _ASSUMED["frames_per_s"]


@dataclass(frozen=True)
class Plan:
    """What the load needs."""

    changelog_rows_per_s: float
    worker_cpu_per_s: float
    workers: int
    partitions: int
    brokers_by_cpu: int
    brokers_by_network: int
    brokers: int
    ingress_bytes_per_s: float
    egress_bytes_per_s: float
    rows: float
    disk_bytes_per_worker: float
    changelog_disk_bytes: float
    live_bytes_per_worker: float
    restore_s: float
    takeover_s: float
    hottest_key_events_per_s: float
    bridges: int


def plan(load: Load) -> Plan:
    """The formulas of the document."""
    changelog_rows = min(load.events_per_s, load.keys * load.active_share / load.commit_s)
    cpu = (load.events_per_s * load.worker_cpu_s_per_million + changelog_rows * load.changelog_cpu_s_per_million) / 1e6
    # a worker is one loop: it takes no more than one of these seconds per second, however many cores there are; with
    # nothing to write it does what was measured
    loop_share = load.worker_events_per_s * load.worker_cpu_s_per_million / 1e6
    workers = math.ceil(cpu / loop_share / load.headroom)
    event_rate = load.events_per_s * load.event_bytes * load.compression
    row_rate = changelog_rows * load.row_bytes * load.compression
    ingress = (event_rate + row_rate) * load.replication
    # to the followers, and once to the workers
    egress = (event_rate + row_rate) * (load.replication - 1) + event_rate
    brokers_by_network = math.ceil(max(ingress, egress) / load.network_bytes_per_s / load.headroom)
    broker_cpu = (load.events_per_s + changelog_rows) * load.broker_cpu_s_per_million / 1e6
    brokers_by_cpu = math.ceil(broker_cpu / load.broker_cores / load.headroom)
    rows = load.keys * load.retention_s / load.window_s
    live = load.keys * (1 + load.grace_s / load.window_s)
    # four for each worker: room for twice the workers, and a lost one's share spreads over several
    partitions = 1 << math.ceil(math.log2(4 * workers))
    # the survivors take a lost worker's partitions, each as few as can be
    taken_over = math.ceil(partitions / workers / max(1, workers - 1))
    return Plan(
        changelog_rows_per_s=changelog_rows,
        worker_cpu_per_s=cpu,
        workers=workers,
        partitions=partitions,
        brokers_by_cpu=brokers_by_cpu,
        brokers_by_network=brokers_by_network,
        brokers=max(brokers_by_cpu, brokers_by_network, load.replication),
        ingress_bytes_per_s=ingress,
        egress_bytes_per_s=egress,
        rows=rows,
        disk_bytes_per_worker=rows * load.row_bytes / workers,
        changelog_disk_bytes=rows * load.row_bytes * load.compression * load.replication,
        live_bytes_per_worker=live * load.bytes_per_live_window / workers,
        restore_s=rows / workers / load.restore_rows_per_s,
        takeover_s=rows / partitions * taken_over / load.restore_rows_per_s,
        hottest_key_events_per_s=load.worker_events_per_s * load.headroom,
        bridges=math.ceil(load.events_per_s / load.frames_per_s / load.headroom),
    )


def measured(load: Load, results: Results) -> Load:
    """The load with the figures of a run in the place of what is assumed, where the run has them."""
    found: dict[str, Any] = {}
    ours = results.figures("throughput").get("engines", {}).get("streamapp")
    if ours:
        found["worker_events_per_s"] = ours["events_per_s"]["median"]
        found["worker_cpu_s_per_million"] = ours["cpu_s_per_million"]["median"]
    memory = results.figures("memory")
    if memory:
        found["bytes_per_live_window"] = memory["settled_bytes_per_window"]
        if ours:
            extra = memory["cpu_s_per_million"] - found["worker_cpu_s_per_million"]
            found["changelog_cpu_s_per_million"] = max(extra, 0.0)
    lost = results.figures("recovery").get("runs", {}).get("lost", {})
    if lost.get("restore_s"):
        found["restore_rows_per_s"] = lost["restored"] / lost["restore_s"]
    bridge = results.figures("bridge")
    if bridge:
        found["frames_per_s"] = bridge["acknowledged_frames_per_s"]
    return dataclasses.replace(load, **found)


def summary(load: Load) -> str:
    """Load and plan as two tables."""
    given = [(name, figure(value)) for name, value in dataclasses.asdict(load).items()]
    needed = [(name, figure(value)) for name, value in dataclasses.asdict(plan(load)).items()]
    return f"{table(('given', 'value'), given)}\n\n{table(('needed', 'value'), needed)}"


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", help="a run's JSON; without it, the document's assumptions")
    parser.add_argument("--events", type=float, default=Load.events_per_s, help="events/s")
    parser.add_argument("--keys", type=float, default=Load.keys, help="instruments")
    parser.add_argument("--commit", type=float, default=Load.commit_s, help="commit interval in seconds")
    parser.add_argument("--retention", type=float, default=Load.retention_s, help="of the table, in seconds")
    parser.add_argument("--headroom", type=float, default=Load.headroom, help="share of every resource to use")
    options = parser.parse_args()
    load = Load(
        events_per_s=options.events,
        keys=options.keys,
        commit_s=options.commit,
        retention_s=options.retention,
        headroom=options.headroom,
    )
    print(summary(measured(load, Results.load(options.results)) if options.results else load))


if __name__ == "__main__":
    main()
