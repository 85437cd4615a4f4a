"""Results as a whole run leaves them, with invented figures."""

from typing import Any

from benchmarks.results import PartResult, Results

SPREAD = {"median": 100.0, "min": 90.0, "max": 110.0, "rounds": 3}


def engine(rate: float, durable: str = "changelog, RocksDB") -> dict[str, Any]:
    return {
        "events": 1_000,
        "durable": durable,
        "events_per_s": {"median": rate, "min": rate * 0.9, "max": rate * 1.1, "rounds": 3},
        "cpu_s_per_million": SPREAD,
        "broker_cpu_s_per_million": SPREAD,
    }


def visible(what: str, rate: int, p99: float) -> dict[str, Any]:
    return {
        "what": what,
        "where": what,
        "events_per_s": rate,
        "p50_ms": p99 / 4,
        "p90_ms": p99 / 2,
        "p99_ms": p99,
        "max_ms": p99 * 2,
        "samples": 1_500,
        "lost": 0,
    }


def reads(what: str, rate: float, p99: float) -> dict[str, Any]:
    return {"what": what, "client": "wrk", "requests_per_s": rate, "p50_ms": p99 / 3, "p99_ms": p99}


def called(what: str, p99: float) -> dict[str, Any]:
    taken = {"p50_ms": p99 / 4, "p90_ms": p99 / 2, "p99_ms": p99, "max_ms": p99 * 2, "samples": 400}
    return {"what": what, **taken, "tools": {"get_current": taken, "get_top": taken}}


def restart(what: str, ready: float, restore: float | None = None) -> dict[str, Any]:
    return {"what": what, "ready_s": ready, "restore_s": restore, "restored": 0 if restore is None else 1_000_000}


def workers(rate: float, own: float, broker: float) -> dict[str, Any]:
    return {
        "events_per_s": rate,
        "measured_share": 0.8,
        "worker_cores": own,
        "broker_cores": broker,
        "cpu_s_per_million": 1.7,
        "broker_cpu_s_per_million": 0.4,
    }


def full_results() -> Results:
    """Every part, all targets met but those for which a test changes a figure."""
    figures: dict[str, dict[str, Any]] = {
        "throughput": {
            "engines": {
                "streamapp": engine(800_000),
                "Kafka Streams, 1 thread": engine(250_000),
                "Kafka Streams, 2 threads": engine(400_000),
                "Pathway": engine(150_000, "none"),
                "Quix Streams": engine(30_000),
                "plain Faust": engine(2_500),
            },
            "aiokafka_alone_records_per_s": 900_000,
        },
        "steps": {
            "fold": {"events_per_s": 320_000, "cpu_s_per_million": 3.2},
            "agent": {"events_per_s": 60_000, "cpu_s_per_million": 16.0},
            "stock_agent": {"events_per_s": 9_000, "cpu_s_per_million": 110.0},
        },
        "latency": {
            "http_5000": visible("streamapp over HTTP", 5_000, 9.0),
            "http_20000": visible("streamapp over HTTP", 20_000, 17.0),
            "kafka_streams_5000": visible("Kafka Streams in process", 5_000, 11.0),
        },
        "reads": {
            "bare": reads("bare aiohttp", 34_000, 1.0),
            "idle": reads("streamapp, idle", 22_000, 1.5),
            "paced_loaded": reads("streamapp, 50,000 events/s, paced", 500, 6.0),
        },
        "tools": {
            "idle_2026-07-28": called("idle", 4.0),
            "loaded_2026-07-28": called("20,000 events/s", 12.0),
            "loaded_2025-06-18": called("20,000 events/s", 14.0),
        },
        "subscribers": {
            "subscribers": 1_000,
            "stalled": 100,
            "changes_per_s": 5_000,
            "delay": {
                "p50_ms": 8.0,
                "p90_ms": 30.0,
                "p99_ms": 60.0,
                "max_ms": 90.0,
                "samples": 90_000,
                "told_per_s": 4_500,
            },
            "events_per_s_without": 500_000,
            "events_per_s": 480_000,
            "throughput_ratio": 0.96,
            "cpu_s_per_million_without": 2.0,
            "cpu_s_per_million": 2.1,
            "bytes_per_subscriber": 30_000,
        },
        "takeover": {
            "keys": 1_000_000,
            "partitions_lost": 2,
            "session_timeout_ms": 6_000,
            "copy_s": 0.1,
            "owner_s": 6.4,
            "beyond_session_s": 0.4,
            "restored": 0,
        },
        "recovery": {
            "keys": 1_000_000,
            "runs": {
                "lost": restart("streamapp, disk lost", 3.0, 1.2),
                "clean": restart("streamapp, disk intact, clean stop", 1.4),
                "killed": restart("streamapp, disk intact, kill -9", 1.6),
                "kafka_streams_lost": restart("Kafka Streams, disk lost", 4.0, 1.9),
                "kafka_streams_clean": restart("Kafka Streams, disk intact, clean stop", 2.5),
                "kafka_streams_killed": restart("Kafka Streams, disk intact, kill -9", 2.6),
            },
        },
        "bridge": {
            "frames": 500_000,
            "acknowledged_frames_per_s": 60_000,
            "cpu_s_per_million": 15.0,
            "broker_cpu_s_per_million": 3.0,
        },
        "memory": {
            "windows": 1_000_000,
            "idle_mib": 130,
            "peak_mib": 420,
            "settled_mib": 360,
            "settled_bytes_per_window": 241,
            "new_windows_per_s": 150_000,
            "cpu_s_per_million": 6.0,
        },
        "scaling": {
            "events": 6_000_000,
            "cores": 2,
            "workers": {
                "1": workers(800_000, 1.2, 0.3),
                "2": workers(900_000, 1.6, 0.4),
                "4": workers(850_000, 1.6, 0.4),
            },
        },
    }
    machine = {
        "processor": "Some(R) Processor @ 2.50GHz",
        "cores": 2,
        "memory_gib": 23.5,
        "system": "Linux 6.1",
        "python": "3.11.7",
        "load_1min": 0.1,
        "empty_call_ns": 30.0,
    }
    return Results(
        "2030-01-02T03:04:05+00:00",
        "full",
        machine,
        {"version": "1.2.3", "commit": "abc1234"},
        600.0,
        {name: PartResult("ok", 60.0, content) for name, content in figures.items()},
    )
