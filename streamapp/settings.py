"""All settings, in one frozen model.

Precedence, highest first: environment (`STREAMAPP_*`), a `streamapp.toml` in the working directory (or the file that
`STREAMAPP_CONFIG` names), arguments of `StreamApp(...)`, the defaults below. Names carry their unit.
"""

import os
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from streamapp.errors import ConfigurationError

#: characters of a wrong value in a message
_TOLD_MAX = 100
KafkaSecurity = Literal["plaintext", "tls", "sasl_plaintext", "sasl_tls"]


class FeedAuthSettings(BaseModel):
    """How one feed proves who it is, under `[feeds.NAME.auth]`; every value is a secret and never printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "coinbase_hmac", "message"] = Field(
        default="none", description="what follows the handshake: nothing more, a signed subscription, or `message`"
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="headers of the handshake")
    query: dict[str, SecretStr] = Field(default_factory=dict, description="query parameters of the handshake")
    key: SecretStr | None = Field(default=None, description="the name of the credentials")
    secret: SecretStr | None = Field(default=None, description="what signs, where something is signed")
    passphrase: SecretStr | None = Field(default=None, description="the third part, where the venue has one")
    message: SecretStr | None = Field(
        default=None, description="the first message; {key}, {secret}, {passphrase} and {timestamp_ms} are filled in"
    )


class FeedSettings(BaseModel):
    """One feed of the bridge, as written under `[feeds.NAME]` in `streamapp.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    venue: str = Field(description="coinbase, binance, kraken, bitstamp or generic")
    url: str | None = Field(default=None, description="the WebSocket's address; each venue has its own default")
    symbols: tuple[str, ...] = Field(default=(), description="instruments, as BASE-QUOTE or in the venue's own form")
    options: dict[str, Any] = Field(default_factory=dict, description="what only this venue's protocol understands")
    auth: FeedAuthSettings | None = Field(default=None, description="credentials, where the venue asks for any")
    ca_file: Path | None = Field(default=None, description="PEM file of authorities to trust; default: the system's")
    compress: bool = Field(default=False, description="offer permessage-deflate: saves bandwidth, costs processor time")


class Settings(BaseSettings):
    """The settings of every streamapp process."""

    model_config = SettingsConfigDict(env_prefix="STREAMAPP_", frozen=True, extra="forbid", env_nested_delimiter="__")

    # Kafka
    kafka_brokers: str = Field("127.0.0.1:9092", description="bootstrap servers, host:port, comma separated")
    kafka_security: KafkaSecurity = Field("plaintext", description="how connections are protected")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how name and password are proved, in the modes with SASL"
    )
    kafka_username: str | None = Field(None, description="the name, in the modes with SASL")
    kafka_password: SecretStr | None = Field(None, description="the password; never printed")
    kafka_ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; default: the system's")
    kafka_cert_file: Path | None = Field(None, description="PEM file of the client's certificate chain")
    kafka_key_file: Path | None = Field(None, description="PEM file of the client's private key")
    kafka_request_timeout_ms: int = Field(10_000, gt=0, description="bound on one request to a broker")
    kafka_delivery_timeout_ms: int = Field(
        120_000, gt=0, description="bound on one record's way to its acknowledgement"
    )
    kafka_start_timeout_ms: int = Field(
        15_000, gt=0, description="how long a starting process waits for Kafka to be there"
    )
    kafka_session_timeout_ms: int = Field(10_000, gt=0, description="a silent group member is declared dead after this")
    group_instance_id: str = Field(
        "", description="the worker's lasting identity in its consumer group; empty: drawn once, kept in `data_dir`"
    )
    lease_margin_ms: int = Field(
        1_000,
        gt=0,
        description="without a heartbeat a worker stops to read and write this long before the session ends",
    )
    kafka_queue_max_records: int = Field(100_000, gt=0, description="records a producer holds unacknowledged at most")
    kafka_queue_max_bytes: int = Field(
        128 << 20, ge=1 << 20, description="bytes a producer holds unacknowledged at most"
    )
    topic_retention_ms: int = Field(
        7 * 86_400_000, description="how long source, final, late and re-key topics keep a record; -1: for ever"
    )
    dead_letter_retention_ms: int = Field(30 * 86_400_000, description="how long dead letters are kept; -1: for ever")
    replication_factor: int = Field(
        1, gt=0, description="of topics that streamapp creates; 3 where there are 3 brokers"
    )
    partitions: int = Field(
        4, gt=0, description="of source topics that streamapp creates; a table's topics have as many as its source"
    )

    standby_replicas: int = Field(0, ge=0, description="workers that keep a copy of a partition beside its owner")

    changelog_watch_ms: int = Field(
        5_000, gt=0, description="how often changelogs are looked at for records of a worker that was replaced"
    )
    changelog_compaction_lag_ms: int = Field(
        600_000,
        gt=0,
        description="how long a value that was written over stays in a changelog, so that it can be mended",
    )

    # state
    data_dir: Path = Field(
        Path(".streamapp"),
        description="all local state of a worker, which it can lose; by default the audit file as well",
    )
    commit_interval_ms: int = Field(
        500, gt=0, description="from the end of a checkpoint to the beginning of the next, at the longest"
    )
    cache_max_entries: int = Field(
        50_000,
        gt=0,
        description="windows that a worker keeps in memory after a checkpoint; about 0.6 kB each, or twice that",
    )
    cache_max_bytes: int = Field(
        6 << 20, gt=0, description="changed state of a worker that forces a checkpoint; at twice as much reading stops"
    )
    block_cache_bytes: int = Field(
        64 << 20,
        gt=0,
        description="of all local stores of a worker: cached blocks, their indexes, and what waits to be written",
    )
    poll_max_batches: int = Field(1_000, gt=0, description="record batches taken from the consumer at once")
    fetch_pace_ms: int = Field(
        3,
        ge=0,
        le=1_000,
        description="pause between fetches while records are taken as they come: a longer one is less fresh, and less work",
    )
    fetch_pace_max_ms: int = Field(
        100,
        ge=0,
        le=1_000,
        description="longest pause where too many records come to be taken one by one; 0: never above fetch_pace_ms",
    )
    batch_queue_max_records: int = Field(
        32_000, gt=0, description="records that wait per partition before fetching stops"
    )
    native: Literal["auto", "off", "required"] = Field(
        "auto", description="the native decoder: where it is built, never, or not without it"
    )
    max_record_bytes: int = Field(1 << 20, gt=0, description="a larger record goes to the dead letters")
    max_future_ms: int = Field(
        300_000, ge=0, description="event time may run ahead of arrival by this, else dead letter"
    )
    idle_timeout_ms: int = Field(
        0, ge=0, description="a partition of which fetches find nothing for so long closes its windows; 0: never"
    )
    rekey_marker_interval_ms: int = Field(
        1_000,
        gt=0,
        description="from one time to the next that the partitions of a re-keyed table are told how far its source has come",
    )
    flush_timeout_ms: int = Field(60_000, gt=0, description="bound on one checkpoint; past it the worker stops")
    stop_timeout_ms: int = Field(
        60_000, gt=0, description="a worker that failed, and has not stopped by then, ends its process at once"
    )
    restore_timeout_ms: int = Field(600_000, gt=0, description="bound on restoring one partition without any progress")

    # reads
    web_host: str = Field("127.0.0.1", description="address to listen on; beyond loopback a token is required")
    web_advertised_url: str | None = Field(None, description="where other workers reach this one")
    api_tokens: str = Field(
        "",
        description="name:scope+scope:sha256hex, comma separated; `streamapp token` makes an entry",
    )
    cluster_secret: SecretStr | None = Field(
        None, description="what workers prove themselves to each other with; default: made of `api_tokens`"
    )
    oauth_issuer: str | None = Field(None, description="URL of the OAuth issuer whose access tokens are taken")
    oauth_audience: str | None = Field(
        None, description="whom its tokens have to be made for; default: the advertised URL and /mcp"
    )
    oauth_scopes: str = Field("read", description="scopes that clients are told to ask it for, separated by spaces")
    oauth_jwks_url: str | None = Field(None, description="where its keys are; default: as its metadata says")
    oauth_algorithms: str = Field("RS256,ES256,EdDSA", description="signatures that are taken, comma separated")
    oauth_leeway_ms: int = Field(30_000, ge=0, le=300_000, description="how far the issuer's clock may differ")
    oauth_timeout_ms: int = Field(5_000, gt=0, description="bound on fetching the issuer's keys")
    oauth_jwks_refresh_ms: int = Field(600_000, gt=0, description="the issuer's keys are fetched again after this")
    oauth_jwks_max_age_ms: int = Field(86_400_000, gt=0, description="... and used at most this long without that")
    oauth_jwks_pause_ms: int = Field(
        10_000, gt=0, description="an unknown key, or a failure, makes for a fetch at most this often"
    )
    limit_requests_per_s: float = Field(
        0.0, ge=0, description="requests of one caller per second, on average, at each worker; 0: no bound"
    )
    limit_burst: int = Field(0, ge=0, description="requests of one caller at once; 0: those of two seconds")
    limit_cost_per_min: int = Field(
        0, ge=0, description="values (a window of a key is one) that one caller may read per minute; 0: no bound"
    )
    token_limits: str = Field(
        "", description="limits of single callers: name:requests_per_s:burst:cost_per_min, comma separated"
    )
    audit: Literal["off", "log", "file"] = Field(
        "off", description="who read what, a line of JSON per call: to the log `streamapp.audit`, or to a file"
    )
    audit_file: Path | None = Field(None, description="that file; default: `audit.log` in the data directory")
    audit_file_max_bytes: int = Field(64 << 20, gt=0, description="size at which a new audit file is begun")
    audit_files_kept: int = Field(5, ge=1, description="earlier audit files that are kept")
    audit_queue_max: int = Field(10_000, gt=0, description="lines that wait for the audit file; more are lost")
    request_timeout_ms: int = Field(10_000, gt=0, description="bound on answering one request")
    forward_timeout_ms: int = Field(2_000, gt=0, description="bound on asking the owner of a key")
    max_body_bytes: int = Field(64 << 10, gt=0, description="largest request body")
    page_limit_max: int = Field(1_000, gt=0, description="largest `limit` of a page")
    sse_heartbeat_ms: int = Field(5_000, gt=0, description="a comment on a quiet event stream after this")
    sse_queue_max: int = Field(
        1_000, gt=0, description="keys and windows pending per subscriber; the newest value of each wins"
    )
    sse_subscribers_max: int = Field(2_000, gt=0, description="open event streams per worker")
    sse_send_buffer_bytes: int = Field(
        32 << 10,
        ge=4 << 10,
        description="of the kernel per event stream; what waits in it is older than what a slow reader could get",
    )
    sse_resume_max: int = Field(
        10_000, gt=0, description="windows that have changed since a `Last-Event-ID`; beyond it come snapshots"
    )
    sse_resume_max_ms: int = Field(
        900_000, gt=0, description="the same in stream time, of several keys with windows; beyond it come snapshots"
    )
    sse_write_timeout_ms: int = Field(
        10_000, gt=0, description="a subscriber that takes nothing for this long is dropped"
    )
    http_idle_timeout_ms: int = Field(
        60_000, gt=0, description="a connection without a whole request for this long is closed"
    )
    url_max_bytes: int = Field(6_000, gt=0, description="longest path and query of a request")
    login_failures_max: int = Field(10, gt=0, description="unknown tokens of one address before it has to wait")
    login_window_ms: int = Field(60_000, gt=0, description="how long unknown tokens are remembered")
    web_allowed_hosts: str = Field("", description="Host names to accept beside loopback's own, comma separated")
    feed_timeout_ms: int = Field(15_000, gt=0, description="a feed without a heartbeat for this long is disconnected")

    # agents
    wait_max_ms: int = Field(120_000, ge=0, description="longest time that one `wait_for` waits")
    waits_max: int = Field(200, gt=0, description="calls of `wait_for` that a worker serves at once")
    summary_cursors_max: int = Field(
        256, gt=0, description="summaries of which a worker remembers what they told, for `cursor`"
    )
    summary_values_max: int = Field(
        200_000, gt=0, description="values that it remembers of all of them together, of about 200 bytes each"
    )
    token_counter: str = Field(
        "estimate", description="counts summaries' tokens: `estimate`, `tiktoken:ENCODING`, or `module:function`"
    )
    mcp_sessions_max: int = Field(1_000, gt=0, description="open sessions of MCP clients of the 2025 revisions")
    mcp_session_idle_ms: int = Field(600_000, gt=0, description="such a session without a request for this long ends")
    mcp_subscribers_max: int = Field(200, gt=0, description="MCP clients that follow resources, per worker")
    mcp_subscriptions_max: int = Field(50, gt=0, description="resources that one of them may follow")
    mcp_notify_ms: int = Field(1_000, gt=0, description="a subscriber hears of one resource at most this often")

    # the built-in application
    grace_ms: int = Field(10_000, ge=0, description="how late an event may be, of the built-in tables")
    retention_1m_ms: int = Field(86_400_000, gt=0, description="how long the 1-minute tables keep a window")
    retention_5m_ms: int = Field(7 * 86_400_000, gt=0, description="... the 5-minute ones")
    retention_1h_ms: int = Field(90 * 86_400_000, gt=0, description="... the hourly one")

    # the bridge
    feeds: dict[str, FeedSettings] = Field(default_factory=dict, description="feeds by name")
    feed_connect_timeout_ms: int = Field(10_000, gt=0, description="bound on reaching a venue, handshake included")
    feed_close_timeout_ms: int = Field(2_000, gt=0, description="bound on the venue's answer to a close frame")
    feed_ping_ms: int = Field(20_000, ge=0, description="a ping on an open socket this often; 0: none")
    feed_backoff_initial_ms: int = Field(500, gt=0, description="upper bound of the first pause before a reconnect")
    feed_backoff_max_ms: int = Field(30_000, gt=0, description="upper bound of any pause while the circuit is closed")
    feed_tries_max: int = Field(0, ge=0, description="failures in a row after which a feed gives up; 0: never")
    feed_stable_ms: int = Field(30_000, gt=0, description="a connection this old forgives the failures before it")
    feed_circuit_failures: int = Field(8, gt=0, description="failures in a row that open the circuit")
    feed_circuit_pause_ms: int = Field(120_000, gt=0, description="pause between probes while the circuit is open")
    feed_heartbeat_ms: int = Field(3_000, gt=0, description="the bridge repeats each feed's state this often")
    bridge_high_water_records: int = Field(100_000, gt=0, description="accepted records that stop reading the sockets")
    bridge_low_water_records: int = Field(50_000, gt=0, description="reading goes on below this")
    bridge_high_water_bytes: int = Field(64 << 20, gt=0, description="accepted bytes that stop reading the sockets")
    bridge_low_water_bytes: int = Field(32 << 20, gt=0, description="reading goes on below this")
    bridge_overflow: Literal["wait", "conflate"] = Field(
        "wait", description="above the low-water mark: keep all, or let a newer quote replace one that still waits"
    )
    bridge_in_flight_records: int = Field(20_000, gt=0, description="records handed to the producer, not acknowledged")
    bridge_seed_records: int = Field(10_000, ge=0, description="records per partition re-read at the start, at least")
    bridge_seed_max_records: int = Field(200_000, ge=0, description="... and at most, looking for quiet symbols")
    bridge_seed_timeout_ms: int = Field(60_000, gt=0, description="bound on re-reading the topics at the start")
    bridge_dedup_ids: int = Field(4_096, gt=0, description="ids remembered per key, to recognise repeats")
    bridge_dedup_max_ids: int = Field(500_000, gt=0, description="ids remembered in all; about 120 bytes each")
    bridge_drain_timeout_ms: int = Field(20_000, gt=0, description="bound on sending what was accepted when stopping")
    bridge_metrics_port: int = Field(0, ge=0, le=65_535, description="serve /metrics and /health on loopback; 0: off")
    dead_letter_max_bytes: int = Field(64 << 10, gt=0, description="of a rejected frame, this much is kept")

    # operation
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="of a bridge; a worker has `-l`"
    )
    log_format: Literal["text", "json"] = Field("text", description="how a line of the log is written")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file over arguments, as the contract says."""
        return env_settings, _file(settings_cls), init_settings

    @cached_property
    def broker_list(self) -> list[str]:
        """The bootstrap servers as a list of `host:port`."""
        return [part.strip() for part in self.kafka_brokers.split(",") if part.strip()]


def _file(settings_cls: type[BaseSettings]) -> TomlConfigSettingsSource:
    named = os.environ.get("STREAMAPP_CONFIG")
    path = Path(named or "streamapp.toml")
    if named and not path.exists():
        raise ConfigurationError(f"STREAMAPP_CONFIG names {named}, expected a file, but nothing is there")
    try:
        return TomlConfigSettingsSource(settings_cls, path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"settings: {path}: expected a TOML file, got: {problem}") from None


def explain(problem: ValidationError) -> str:
    """What is wrong with which settings, on one line; what came is told only where it cannot be a secret."""
    return "; ".join(
        _explained(error["loc"], error["msg"], error["input"]) for error in problem.errors(include_url=False)
    )


def _explained(path: tuple[int | str, ...], expected: str, got: object) -> str:
    name = ".".join(map(str, path))
    field = Settings.model_fields.get(name)
    if field is None:  # within [feeds.NAME], or misspelt: either may hold what nobody is to see
        return f"{name}: {'there is no such setting' if len(path) == 1 else expected}"
    told = "" if "Secret" in str(field.annotation) else f", got {str(got)[:_TOLD_MAX]!r}"
    return f"STREAMAPP_{name.upper()}: {expected}{told}"
