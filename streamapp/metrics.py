"""Prometheus metrics, declared once, with the names that the contract fixes.

A `Metrics` object belongs to one process (an app, a bridge). Pass it down; nothing here is global, so tests and several
apps in one process do not mix their figures.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class Metrics:
    """Every metric of a streamapp process. Durations are seconds, as Prometheus has it."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        # the worker
        self.records_applied = Counter(
            "streamapp_records_applied", "records merged into a table", ["table"], registry=registry
        )
        self.late_records = Counter(
            "streamapp_late_records", "records too late for a window", ["table"], registry=registry
        )
        self.rekey_markers = Counter(
            "streamapp_rekey_markers",
            "markers that told a re-keyed table's partition how far its source has come",
            ["table"],
            registry=registry,
        )
        self.mended_keys = Counter(
            "streamapp_mended_keys",
            "keys written again to the changelog because a replaced owner wrote over them",
            ["table"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "streamapp_dead_letters", "records set aside", ["topic", "reason"], registry=registry
        )
        self.lag = Gauge("streamapp_lag_records", "records not yet applied", ["topic", "partition"], registry=registry)
        self.watermark_delay = Gauge(
            "streamapp_watermark_delay_seconds",
            "now minus the watermark",
            ["table", "partition"],
            registry=registry,
        )
        self.batch_records = Histogram(
            "streamapp_batch_records", "records per applied batch", ["topic"], buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "streamapp_batch_seconds", "time to merge one batch", ["topic"], buckets=_LATENCY_S, registry=registry
        )
        self.fetch_pace = Gauge(
            "streamapp_fetch_pace_seconds",
            "pause between fetches: the small one while records are taken as they come, more where they are taken in bulk",
            registry=registry,
        )
        self.changelog_records = Counter(
            "streamapp_changelog_records", "records written to the changelog", ["table"], registry=registry
        )
        self.changelog_seconds = Histogram(
            "streamapp_changelog_seconds",
            "send to acknowledge, per checkpoint",
            ["table"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.commits = Counter(
            "streamapp_commits", "durable checkpoints, each partition's for itself", ["table"], registry=registry
        )
        self.restore_records = Counter(
            "streamapp_restore_records", "changelog records read while restoring", ["table"], registry=registry
        )
        self.final_records = Counter(
            "streamapp_final_records", "closed windows published", ["table"], registry=registry
        )
        self.expired_windows = Counter(
            "streamapp_expired_windows", "windows past retention", ["table"], registry=registry
        )
        self.cache_entries = Gauge("streamapp_cache_entries", "windows in memory", ["table"], registry=registry)
        self.store_bytes = Gauge("streamapp_store_bytes", "bytes of local state", ["table"], registry=registry)
        self.partition_records = Counter(
            "streamapp_partition_records",
            "records of a source partition taken by the tables",
            ["topic", "partition"],
            registry=registry,
        )
        self.hot_key_share = Gauge(
            "streamapp_hot_key_share",
            "at least this part of a partition's records has one key; which one, `/v1/status` tells",
            ["topic", "partition"],
            registry=registry,
        )
        self.queued_records = Gauge(
            "streamapp_queued_records", "records that wait to be applied", ["topic", "partition"], registry=registry
        )
        self.agent_records = Counter(
            "streamapp_agent_records", "records handed to agents", ["topic"], registry=registry
        )
        self.agent_pending = Gauge(
            "streamapp_agent_pending_records",
            "records handed to agents, not yet acknowledged",
            ["topic"],
            registry=registry,
        )

        # reads
        self.requests = Counter("streamapp_requests", "HTTP requests", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "streamapp_request_seconds", "time to answer", ["route"], buckets=_LATENCY_S, registry=registry
        )
        self.subscribers = Gauge("streamapp_subscribers", "open event streams", registry=registry)
        self.conflated = Counter("streamapp_conflated_changes", "changes replaced by a newer one", registry=registry)
        self.operation_calls = Counter(
            "streamapp_operation_calls",
            "operations called by agents, by the name of their token",
            ["operation", "caller", "outcome"],
            registry=registry,
        )
        self.refused_calls = Counter(
            "streamapp_refused_calls",
            "requests refused: too many of them (requests), too many values (cost), or not open to the caller (scope)",
            ["caller", "reason"],
            registry=registry,
        )
        self.audit_dropped = Counter(
            "streamapp_audit_dropped", "lines of the audit file that were lost, the disk being slow", registry=registry
        )
        self.forwarded_served = Counter(
            "streamapp_forwarded_served",
            "reads answered for other workers, by the name of the token that asked there",
            ["caller"],
            registry=registry,
        )
        self.operation_seconds = Histogram(
            "streamapp_operation_seconds", "time of an operation", ["operation"], buckets=_LATENCY_S, registry=registry
        )
        self.mcp_subscriptions = Gauge(
            "streamapp_mcp_subscriptions", "resources followed by MCP clients", registry=registry
        )
        self.forwarded = Counter("streamapp_forwarded_reads", "reads sent to the owner", ["outcome"], registry=registry)

        # feeds, as the bridge and the worker see them
        self.feed_connected = Gauge(
            "streamapp_feed_connected", "1 while the feed is live", ["venue"], registry=registry
        )
        self.feed_gaps = Counter("streamapp_feed_gaps", "gaps in the feed's sequence", ["venue"], registry=registry)
        self.bridge_frames = Counter(
            "streamapp_bridge_frames", "WebSocket frames received", ["venue"], registry=registry
        )
        self.bridge_records = Counter(
            "streamapp_bridge_records", "records acknowledged by Kafka", ["venue", "topic"], registry=registry
        )
        self.bridge_duplicates = Counter(
            "streamapp_bridge_duplicates", "repeats that were not forwarded", ["venue"], registry=registry
        )
        self.bridge_dropped = Counter(
            "streamapp_bridge_dropped",
            "replaced by a newer value under pressure",
            ["venue", "topic"],
            registry=registry,
        )
        self.bridge_buffered = Gauge(
            "streamapp_bridge_buffered_records", "accepted, not yet acknowledged", registry=registry
        )
        self.bridge_bound_hits = Counter(
            "streamapp_bridge_bound_hits", "times the buffer reached its high-water mark", registry=registry
        )
        self.bridge_reconnects = Counter(
            "streamapp_bridge_reconnects", "connections of a feed after its first", ["venue"], registry=registry
        )
        self.bridge_circuit_open = Gauge(
            "streamapp_bridge_circuit_open",
            "1 while reconnects pause after repeated failures",
            ["venue"],
            registry=registry,
        )
