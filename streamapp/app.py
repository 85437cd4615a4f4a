"""The application: a Faust app whose tables are exact, whose reads tell their freshness, and which is safe by default.

Wired in the order of the data's way: settings, topics, tables, engine, agents, queries, views.
"""

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import faust
from pydantic import ValidationError

from streamapp.clock import Clock, SystemClock
from streamapp.engine import process
from streamapp.engine.agents import StreamTopic, guarded
from streamapp.engine.assignor import StickyAssignor
from streamapp.engine.membership import instance_id
from streamapp.engine.rocks import RocksFactory
from streamapp.engine.runtime import REBALANCE_TIMEOUT_MS, Engine
from streamapp.engine.schema import ModelSchema, is_model
from streamapp.engine.streams import DirectStream
from streamapp.engine.tables import final_topic
from streamapp.engine.transport import LaneTransport, StateTableManager
from streamapp.engine.webserver import WorkerWeb
from streamapp.engine.worker import Worker
from streamapp.errors import ConfigurationError, StreamAppError
from streamapp.kafka.config import faust_broker_options
from streamapp.logs import worker_logging_config
from streamapp.metrics import Metrics
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.service import QueryService
from streamapp.records.attributes import fields_of, missing
from streamapp.records.codec import codec_for
from streamapp.records.final import FinalRecord
from streamapp.settings import Settings, explain
from streamapp.state.definition import Source, TableDefinition, Window
from streamapp.views.application import attach, runner_options, with_point_reads
from streamapp.views.binding import check_bind
from streamapp.windows.aggregate import Aggregate
from streamapp.windows.named import Named

log = logging.getLogger(__name__)

SourceLike = Any  # a Faust topic, or a WindowTable (its final records)


class WindowTable:
    """What a declaration returns: the handle by which other declarations and agents name a table."""

    def __init__(self, app: "StreamApp", definition: TableDefinition) -> None:
        self.app = app
        self.definition = definition

    @property
    def name(self) -> str:
        """The table's name."""
        return self.definition.name

    @property
    def final(self) -> Any:
        """The topic of closed windows, `FinalRecord` by `FinalRecord`; use it as a source or in an agent."""
        if self.definition.window is None:
            raise ConfigurationError(f"table {self.name} has no windows, so nothing ever closes")
        if not self.definition.publish_final:
            raise ConfigurationError(
                f"table {self.name} keeps its closed windows to itself; leave out publish_final=False"
            )
        return self.app.topic(final_topic(self.app.id_, self.name), value_type=FinalRecord)


class StreamApp(faust.App):  # type: ignore[misc]
    """A Faust application with exact tables and fresh reads.

    Args:
        id: names the consumer group and prefixes internal topics; two apps of one id share the work.
        settings: all settings; default: from the environment and `streamapp.toml`.
        options: single settings by name (they rank below environment and file), or further options of `faust.App`.

    Raises:
        ConfigurationError: a setting cannot be used.
        UnsafeBindError: the web server would listen beyond loopback without a token.
    """

    def __init__(
        self, id: str, *, settings: Settings | None = None, clock: Clock | None = None, **options: Any
    ) -> None:
        own = {name: options.pop(name) for name in list(options) if name in Settings.model_fields}
        try:
            self.settings = settings or Settings(**own)
        except ValidationError as problem:
            raise ConfigurationError(f"settings: {explain(problem)}") from None
        if settings is not None and own:
            raise ConfigurationError(f"give {', '.join(own)} in settings= or as arguments, not both")
        check_bind(self.settings)
        self.id_ = id
        self.metrics = Metrics()
        self.clock = clock or SystemClock()
        self.engine = Engine(id, self.settings, self.metrics, on_failure=self.fail, clock=self.clock)
        self.feed_health = FeedHealth(self.settings, metrics=self.metrics, clock=self.clock)
        self.queries = QueryService(self.engine, self.feed_health, self._owners, self._fetch_state, self._copies)
        self.instance_id = ""  # who this worker is in its group, once it has a directory
        self._attached = False
        self._lock_file: Any = None
        self._failing: asyncio.Future[None] | None = None
        super().__init__(id, **{**self._faust_options(), **options})

    def _faust_options(self) -> dict[str, Any]:
        settings = self.settings
        return {
            **faust_broker_options(settings),
            "autodiscover": False,
            "store": "memory://",
            "datadir": str(settings.data_dir / self.id_ / "faust"),
            "web_bind": settings.web_host,
            "web_host": settings.web_host,
            "web_port": 6066,
            "web_in_thread": False,
            "topic_partitions": settings.partitions,
            "topic_replication_factor": settings.replication_factor,
            "topic_disable_leader": True,
            "consumer_auto_offset_reset": "earliest",
            "consumer_max_fetch_size": 4 << 20,
            "broker_rebalance_timeout": REBALANCE_TIMEOUT_MS / 1000,
            "broker_max_poll_records": settings.poll_max_batches,
            "broker_commit_interval": 1.0,
            "stream_wait_empty": False,
            "stream_recovery_delay": 0.0,
            "producer_linger": 0.005,
            "producer_acks": -1,
            "key_serializer": "raw",
            "TableManager": StateTableManager,
            "PartitionAssignor": StickyAssignor,
            "Topic": StreamTopic,
            "Stream": DirectStream,
            "Worker": Worker,
            "logging_config": worker_logging_config(settings.log_format),
            **({"canonical_url": settings.web_advertised_url} if settings.web_advertised_url else {}),
        }

    # --- declaring ---------------------------------------------------------------------------------------------------

    def topic(self, *topics: str, value_type: Any = None, schema: Any = None, **options: Any) -> Any:
        """A Faust topic; values of pydantic models and msgspec structs are validated, keys are text."""
        if schema is None and is_model(value_type):
            schema = ModelSchema(value_type)
        return super().topic(*topics, value_type=value_type, schema=schema, **options)

    def agent(self, *args: Any, **options: Any) -> Any:
        """A Faust agent that does not lose the record it fails on: it becomes a dead letter."""
        decorate = super().agent(*args, **options)

        def decorator(function: Callable[..., Any]) -> Any:
            return decorate(guarded(self, function))

        return decorator

    def window_table(
        self,
        name: str,
        *,
        source: SourceLike | Sequence[SourceLike],
        window: Window,
        aggregate: Aggregate | Mapping[str, Aggregate],
        key: str | Callable[[Any], str] | None = None,
        time: str = "event_time",
        start: Literal["earliest", "latest"] = "earliest",
        publish_final: bool = True,
        description: str = "",
        key_form: str = "",
    ) -> WindowTable:
        """Declare a table of windows in event time.

        Args:
            name: unique in the app.
            source: a topic with a `value_type`, or several that are keyed and partitioned alike.
            window: `tumbling(...)`, `hopping(...)` or `session(...)`.
            aggregate: what is kept per key and window; a dict gives each aggregate a name.
            key: a field, or a function of the record, to key by instead of the record's own key.
            time: the field of event time: integers are ms, floats seconds, text ISO 8601.
            start: where a new table begins to read.
            publish_final: whether closed windows go to the final topic; without it no table and no agent can read them.
            description: one line for people and models that look the table up.
            key_form: what a key looks like, for the same readers.

        Raises:
            ConfigurationError: something does not fit together; the message says what.
        """
        return self._declare(name, source, aggregate, window, key, time, start, publish_final, description, key_form)

    def latest_table(
        self,
        name: str,
        *,
        source: SourceLike | Sequence[SourceLike],
        aggregate: Aggregate | Mapping[str, Aggregate],
        key: str | Callable[[Any], str] | None = None,
        time: str = "event_time",
        start: Literal["earliest", "latest"] = "earliest",
        description: str = "",
        key_form: str = "",
    ) -> WindowTable:
        """Declare a table with one value per key and no windows; arguments as of `window_table`."""
        return self._declare(name, source, aggregate, None, key, time, start, False, description, key_form)

    def _declare(
        self,
        name: str,
        source: Any,
        aggregate: Any,
        window: Window | None,
        key: Any,
        time: str,
        start: Literal["earliest", "latest"],
        publish_final: bool,
        description: str,
        key_form: str,
    ) -> WindowTable:
        if isinstance(aggregate, Mapping):
            aggregate = Named(aggregate)
        if not isinstance(aggregate, Aggregate):
            raise ConfigurationError(
                f"table {name}: aggregate= takes an Aggregate or a dict of them, got {aggregate!r}"
            )
        if start not in ("earliest", "latest"):
            raise ConfigurationError(f"table {name}: start= takes 'earliest' or 'latest', got {start!r}")
        given = tuple(source) if isinstance(source, (list, tuple)) else (source,)
        sources = tuple(self._source(name, one, time) for one in given)
        for index, one in enumerate(sources):
            _check_names(name, one, "time=", (time,))
            _check_names(name, one, "key=", (key,) if isinstance(key, str) else ())
            _check_names(name, one, repr(aggregate), aggregate.inputs(index))
        definition = TableDefinition(
            name=name,
            sources=sources,
            aggregate=aggregate,
            window=window,
            rekey=_key_function(key),
            rekey_name=""
            if key is None
            else (key if isinstance(key, str) else getattr(key, "__qualname__", repr(key))),
            start=start,
            publish_final=publish_final and window is not None,
            description=description,
            key_form=key_form or _key_form(key),
        )
        self.engine.add(definition)
        return WindowTable(self, definition)

    def _source(self, table: str, source: Any, time: str) -> Source:
        if isinstance(source, WindowTable):
            source = source.final
        try:
            topic, model = source.get_topic_name(), source.schema.value_type or source.value_type
        except AttributeError:
            raise ConfigurationError(
                f"table {table}: source= takes topics (app.topic(...)) or tables, got {source!r}"
            ) from None
        if model is None or model is bytes:
            raise ConfigurationError(
                f"table {table}: its source {topic} has no value_type; declare app.topic({topic!r}, value_type=YourModel)"
            )
        return Source(topic, codec_for(model), time)

    # --- running -----------------------------------------------------------------------------------------------------

    def _new_transport(self) -> Any:
        return LaneTransport(self.conf.broker_consumer, self)

    def _new_web(self) -> Any:
        return WorkerWeb(self, runner_options(self.settings), with_point_reads)

    def worker_init(self) -> None:
        """Called by `faust worker` before its event loop exists."""
        super().worker_init()
        process.tune()

    async def on_first_start(self) -> None:
        """Make the folder that Faust expects; nothing of ours is in it."""
        self.conf.datadir.mkdir(parents=True, exist_ok=True)
        await super().on_first_start()

    async def on_start(self) -> None:
        """Prepare topics and local state before anything is consumed."""
        # --web-bind of the command line comes after the settings
        check_bind(self.settings.model_copy(update={"web_host": self.conf.web_bind}))
        directory = self.settings.data_dir / self.id_ / f"worker-{self.conf.web_port}"
        self._lock(directory)
        told = [str(self.conf.canonical_url), *sorted(self.engine.input_topics | set(self._agent_topics()))]
        self.instance_id = self.settings.group_instance_id or instance_id(directory, told)
        await super().on_start()
        stores = RocksFactory(directory / "tables", block_cache_bytes=self.settings.block_cache_bytes)
        await self.engine.start(stores, partitions=self._agent_topics(), owner=self.instance_id)
        await self.feed_health.start()
        await self.queries.start(str(self.conf.canonical_url))

    async def on_stop(self) -> None:
        """Consumer first (it makes state durable), then the engine."""
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Release what is left."""
        await self.queries.stop()
        await self.feed_health.stop()
        await self.engine.stop()
        await super().on_shutdown()

    def on_webserver_init(self, web: Any) -> None:
        """Add our routes; Faust calls this more than once."""
        if not self._attached:
            self._attached = True
            attach(web.web_app, self.queries, self.settings, self.metrics, self.clock)

    def fail(self, problem: BaseException) -> None:
        """Stop the worker because state can no longer be trusted; nothing further is acknowledged."""
        if self._failing is None:
            # what nobody foresaw tells where it came from; our own errors say all in their text
            log.critical("stopping: %s", problem, exc_info=None if isinstance(problem, StreamAppError) else problem)
            self._failing = asyncio.ensure_future(self.crash(problem))
            if isinstance(self.beacon.root and self.beacon.root.data, faust.Worker):
                self._end_in_time()

    def _end_in_time(self) -> None:
        """Nothing is lost by an end at any moment, but a worker that hangs holds partitions and looks alive."""

        def end() -> None:
            log.critical(
                "still not stopped %d s after the failure: ending the process, nothing is lost by it",
                self.settings.stop_timeout_ms / 1000,
            )
            logging.shutdown()
            os._exit(1)

        timer = threading.Timer(self.settings.stop_timeout_ms / 1000, end)
        timer.daemon = True  # it must not hold up an end that comes by itself
        timer.start()

    def _agent_topics(self) -> dict[str, int]:
        """The topics of the agents, with the partitions that they were declared with."""
        channels = [agent.channel for agent in self.agents.values()]
        return {
            name: channel.partitions or self.settings.partitions
            for channel in channels
            for name in getattr(channel, "topics", None) or ()
        }

    def _lock(self, directory: Path) -> None:
        """Two workers on one directory would corrupt it; the lock goes with the process, however it ends."""
        directory.mkdir(parents=True, exist_ok=True)
        self._lock_file = open(directory / "lock", "w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another worker already uses {directory}; give this one its own --web-port or STREAMAPP_DATA_DIR"
            ) from None
        self._lock_file.write(f"{os.getpid()}\n")
        self._lock_file.flush()

    def _owners(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """URL -> topic -> partitions, of every worker of the group as of the last rebalance."""
        distribution: Mapping[str, Mapping[str, Sequence[int]]] = self.assignor.external_topic_distribution
        return distribution

    def _copies(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """URL -> topic -> partitions of which the worker there keeps a copy, as of the last rebalance."""
        distribution: Mapping[str, Mapping[str, Sequence[int]]] = self.assignor.standby_distribution
        return distribution

    def _fetch_state(self, topic: str, partition: int) -> tuple[int, int] | None:
        return None if self._consumer is None else self._consumer.fetch_state(topic, partition)


def _key_form(key: str | Callable[[Any], str] | None) -> str:
    """What readers and models are told of the keys where nobody has said it."""
    if key is None:
        return "the record's key"
    return f"the record's {key}" if isinstance(key, str) else "made from the record"


def _key_function(key: str | Callable[[Any], str] | None) -> Callable[[Any], str] | None:
    if key is None or callable(key):
        return key
    name = key

    def field_of(record: Any) -> str:
        value = getattr(record, name)
        if value is None:
            raise ValueError(f"expected a key in {name!r}, got null")
        return str(value)

    return field_of


def _check_names(table: str, source: Source, who: str, names: Iterable[str]) -> None:
    """Refuse names that no record can have: each record would become a dead letter."""
    model = source.codec.model
    for name in missing(model, names):
        fields = ", ".join(fields_of(model) or ())
        kind = getattr(model, "__name__", model)
        raise ConfigurationError(
            f"table {table}: {who} names {name!r}, which no record of {source.topic} has; {kind} has {fields}"
        )
