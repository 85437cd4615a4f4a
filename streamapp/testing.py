"""A driver for tests of your own app: no broker, no files, no waiting; the same state code as in a worker.

    from streamapp.testing import Driver
    from prices import app

    def test_close_is_the_last_trade() -> None:
        driver = Driver(app)
        driver.send("trades", key="x:BTC-USD", value={"price": 100, ...})
        assert driver.get("candles", "x:BTC-USD")["close"] == 100

Records go through the declared schema, lateness, windows and aggregates as they would; `restart` restores every table from
its changelog, as a worker with a lost disk does. There is one partition, and time moves only by the records' event time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel

from streamapp.app import StreamApp
from streamapp.engine.tables import final_topic
from streamapp.errors import ConfigurationError, NoSuchWindowError, RecordError, UnknownKeyError, UnknownTableError
from streamapp.queries.model import WindowSpan
from streamapp.records.codec import plain
from streamapp.state import reads
from streamapp.state.batch import Batch, FinalWindow, FlushPlan, LateRecord
from streamapp.state.definition import Source, event_time_ms
from streamapp.state.entry import CHECKPOINT_KEY, Entry, time_key_of
from streamapp.state.partition import PartitionState
from streamapp.state.store import CHANGELOG_OFFSET_KEY, MemoryStore, WriteSet


@dataclass(frozen=True)
class Rejected:
    """A record that became a dead letter."""

    topic: str
    offset: int
    reason: str
    error: str


@dataclass(frozen=True)
class WindowValue:
    """One window of one key."""

    window: WindowSpan | None
    value: Mapping[str, Any]


@dataclass
class _Table:
    state: PartitionState
    changelog: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    finals: list[FinalWindow] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)


class Driver:
    """Feeds records to an app's tables and reads them.

    Args:
        app: the app; it is not started and needs no Kafka.

    Attributes:
        dead_letters: what could not be processed, in order.
    """

    def __init__(self, app: StreamApp) -> None:
        self._app = app
        self._offsets: dict[str, int] = {}
        self._tables = {name: _Table(self._new_state(name, MemoryStore())) for name in app.engine.tables}
        self.dead_letters: list[Rejected] = []

    def _new_state(self, name: str, store: MemoryStore) -> PartitionState:
        definition = self._app.engine.tables[name].definition
        origins = 1 if definition.rekey is not None else len(definition.sources)
        return PartitionState(definition, 0, store, origins=origins)

    # --- feeding -----------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: BaseModel | Mapping[str, Any] | bytes,
        *,
        key: str | None = None,
        arrival_ms: int | None = None,
    ) -> None:
        """Put one record on a source topic; every table on it takes it at once.

        Args:
            topic: a source topic of the app.
            value: a model, a mapping that becomes JSON, or the bytes as they are.
            key: the record's key; a re-keyed table does without.
            arrival_ms: when it arrived, which bounds how far its event time may lie ahead; default: no bound.

        Raises:
            ConfigurationError: no table reads that topic.
        """
        raw = value if isinstance(value, bytes) else _encode(value)
        offset = self._offsets.get(topic, 0)
        self._offsets[topic] = offset + 1
        readers = [
            (name, index, source)
            for name, running in self._app.engine.tables.items()
            for index, source in enumerate(running.definition.sources)
            if source.topic == topic
        ]
        if not readers:
            known = sorted({s.topic for r in self._app.engine.tables.values() for s in r.definition.sources})
            raise ConfigurationError(f"no table reads the topic {topic!r}; there are: {', '.join(known)}")
        problems: dict[str, Rejected] = {}
        for name, index, source in readers:
            try:
                self._apply(name, index, source, raw, key, offset, arrival_ms)
            except RecordError as problem:
                problems[problem.reason] = Rejected(topic, offset, problem.reason, str(problem))
        self.dead_letters += list(problems.values())[:1]
        self.flush()

    def _apply(
        self, name: str, index: int, source: Source, raw: bytes, key: str | None, offset: int, arrival_ms: int | None
    ) -> None:
        definition = self._app.engine.tables[name].definition
        settings = self._app.settings
        if len(raw) > settings.max_record_bytes:
            raise RecordError("oversized", f"expected at most {settings.max_record_bytes} bytes, got {len(raw)}")
        record = source.codec.decode(raw)
        if definition.rekey is not None:
            try:
                key = definition.new_key(record)
            except Exception as problem:  # the user's function
                raise RecordError("key_failed", repr(problem)) from None
        if key is None:
            raise RecordError("missing_key", "expected a key, the record has none")
        time = event_time_ms(getattr(record, source.time_field or "event_time", None))
        if arrival_ms is not None and time > arrival_ms + settings.max_future_ms:
            raise RecordError("future_event_time", f"{time} is too far ahead of the arrival at {arrival_ms}")
        sequence = getattr(record, "sequence", None)
        origin = 0 if definition.rekey is not None else index
        batch = Batch(index, origin, offset, [offset], [key], [record], [time], [-1 if sequence is None else sequence])
        failed = self._tables[name].state.apply(batch).failed
        if failed:
            raise RecordError("aggregate_failed", repr(failed[0][1]))

    def flush(self) -> None:
        """One checkpoint of every table, as a worker makes them; final records reach the tables that read them."""
        for name, table in self._tables.items():
            plan = table.state.prepare_flush("driver", ("driver",), (-1,))
            if plan is None:
                continue
            table.changelog += plan.values.items()
            table.changelog += [(raw_key, None) for raw_key in plan.tombstones]
            table.changelog.append((CHECKPOINT_KEY, plan.checkpoint.encode()))
            table.state.complete_flush(plan, len(table.changelog) - 1)
            table.late += plan.late
            self._publish(name, table, plan)

    def _publish(self, name: str, table: _Table, plan: FlushPlan) -> None:
        table.finals += plan.finals
        topic = final_topic(self._app.id_, name)
        if not any(s.topic == topic for r in self._app.engine.tables.values() for s in r.definition.sources):
            return
        for final in plan.finals:
            self.send(topic, final.record(name), key=final.key)

    def restart(self, *, keep_disk: bool = False) -> None:
        """Come back as after a crash: with the local state, or with nothing but the changelogs."""
        for name, table in self._tables.items():
            if keep_disk:
                store = table.state.store
                assert isinstance(store, MemoryStore)
            else:
                store = _restore(table.changelog)
            table.state = self._new_state(name, store)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, table: str, key: str, *, at: int | None = None) -> Mapping[str, Any]:
        """The current value of a key, or that of the window that holds an instant.

        Raises:
            UnknownTableError, UnknownKeyError, NoSuchWindowError: as the HTTP API answers.
        """
        state = self._state(table)
        found = reads.current(state, key) if at is None else reads.at(state, key, at)
        if found is None:
            if at is not None and state.has_key(key):
                raise NoSuchWindowError(f"no window of {key!r} holds {at}")
            raise UnknownKeyError(f"table {table} has no key {key!r}; it has: {', '.join(state.keys()[:10]) or 'none'}")
        return self._value(state, *found).value

    def windows(self, table: str, key: str) -> Sequence[WindowValue]:
        """All windows of a key, in order of start."""
        state = self._state(table)
        return [self._value(state, start, entry) for start, entry in reads.between(state, key, 0, reads.FOREVER)]

    def keys(self, table: str) -> Sequence[str]:
        """All keys, in order."""
        return list(self._state(table).keys())

    def finals(self, table: str) -> Sequence[FinalWindow]:
        """The windows that have closed, in the order in which they did."""
        self._state(table)
        return list(self._tables[table].finals)

    def late(self, table: str) -> Sequence[Mapping[str, Any]]:
        """The records that came too late, with the windows that they missed."""
        self._state(table)
        return [
            {"key": late.key, "event_time": late.event_time, "missed": list(late.missed), "record": plain(late.record)}
            for late in self._tables[table].late
        ]

    def watermark(self, table: str) -> int:
        """The table's stream time, ms; -1 before the first record."""
        return self._state(table).watermark

    def _state(self, table: str) -> PartitionState:
        if table not in self._tables:
            raise UnknownTableError(f"there is no table {table!r}; there are: {', '.join(self._tables)}")
        return self._tables[table].state

    @staticmethod
    def _value(state: PartitionState, start: int, entry: Entry) -> WindowValue:
        if state.window is None:
            return WindowValue(None, state.aggregate.result(entry.state, None))
        end = state.end_of(start, entry)
        span = WindowSpan(start, end, state.is_final(start, entry))
        return WindowValue(span, state.aggregate.result(entry.state, (start, end)))


def _encode(value: BaseModel | Mapping[str, Any]) -> bytes:
    return value.model_dump_json().encode() if isinstance(value, BaseModel) else orjson.dumps(dict(value))


def _restore(changelog: Sequence[tuple[bytes, bytes | None]]) -> MemoryStore:
    store = MemoryStore()
    changes = WriteSet()
    for raw_key, raw in dict(changelog).items():
        if raw is None:
            continue
        changes.puts.append((raw_key, raw))
        if raw_key != CHECKPOINT_KEY:
            changes.puts.append((time_key_of(raw_key), b""))
    changes.puts.append((CHANGELOG_OFFSET_KEY, str(len(changelog) - 1).encode()))
    store.write(changes)
    return store
