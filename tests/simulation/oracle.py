"""What must hold while a simulation runs, and when it has come to rest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from streamapp.engine.forwarding import Forwarded, decode
from streamapp.engine.rekeying import ORIGIN
from streamapp.engine.tables import RunningTable, changelog_topic, final_topic
from streamapp.kafka.partitioner import partition_for
from streamapp.state.definition import TableDefinition
from streamapp.state.entry import CHECKPOINT_KEY, Checkpoint, Entry, split_data_key
from streamapp.state.epochs import epoch_of
from streamapp.windows.definitions import Tumbling
from streamapp.windows.sessions import Session
from tests.simulation import reference
from tests.simulation.cluster import Cluster, Place, Stored
from tests.simulation.reference import Expected, check_row
from tests.simulation.worker import APP_ID
from tests.simulation.workload import FOLDING, Made, Scenario

Origin = tuple[str, int, int]
Window = tuple[str, int]


class Oracle:
    """Knows every record that was made, and judges what the engine made of them."""

    def __init__(self, cluster: Cluster, scenario: Scenario) -> None:
        self.cluster, self.world, self.scenario = cluster, cluster.world, scenario
        self.made: dict[Place, list[Made]] = {}
        self._checkpoints: dict[Place, Checkpoint] = {}
        self._epochs: dict[Place, bytes] = {}
        self._taken: dict[Place, dict[int, int]] = {}
        self._finals: dict[str, Any] = {}
        self._late: dict[str, Any] = {}
        self._dead: dict[Origin, str] = {}
        self._told: dict[tuple[str, str, int], int] = {}  # up to where forwarding is known to be right
        self._lettered: dict[tuple[str, str, int], int] = {}
        self._names = {definition.name: definition for definition in scenario.tables}
        self._roles: dict[str, tuple[str, TableDefinition]] = {}
        for definition in scenario.tables:
            self._roles[changelog_topic(APP_ID, definition.name)] = "changelog", definition
            self._roles[final_topic(APP_ID, definition.name)] = "final", definition
            running = RunningTable(definition, APP_ID)
            self._roles[running.late_topic] = "late", definition
            self._roles[running.rekey_topic] = "rekey", definition
        cluster.on_append = self.appended

    def wrong(self, what: str) -> None:
        """Something does not hold."""
        if len(self.world.violations) < 10:
            self.world.violations.append(f"at {self.world.now:.4f} s: {what}")

    # --- while it runs -----------------------------------------------------------------------------------------------

    def appended(self, place: Place, record: Stored) -> None:
        """Look at everything that reaches a topic."""
        topic, partition = place
        role, definition = self._roles.get(topic, (topic, None))
        if role == "changelog":
            assert definition is not None
            if record.key == CHECKPOINT_KEY and record.value is not None:
                epoch = epoch_of(record)
                if epoch >= self._epochs.get(place, epoch):  # else nobody believes it
                    self._epochs[place] = epoch
                    self._checkpoints[place] = Checkpoint.decode(record.value)
                    self._letters_before(definition, partition, self._checkpoints[place])
        elif role == "final":
            assert record.value is not None
            body = orjson.loads(record.value)
            self._once(self._finals, body["id"], body, f"the final record {body['id']}")
        elif role == "late":
            assert record.value is not None
            body = orjson.loads(record.value)
            self._once(self._late, body["id"], body, f"the late record {body['id']}")
        elif role == "dead-letters":
            assert record.value is not None
            body = orjson.loads(record.value)
            self._dead[self._source_of(body["topic"], body["partition"], body["offset"])] = body["reason"]

    def _letters_before(self, table: TableDefinition, partition: int, checkpoint: Checkpoint) -> None:
        """What a checkpoint passes over never comes again, so what of it cannot be used must have its dead letter by now."""
        if table.rekey is not None:
            return  # dead letters come from forwarding
        for index, source in enumerate(table.sources):
            place = (source.topic, partition)
            known = self._lettered.get((table.name, *place), -1)
            for made in self.made.get(place, ()):
                if not known < made.offset <= checkpoint.offsets[index]:
                    continue
                origin = (source.topic, partition, made.offset)
                if reference.is_dead(made, source.time_field is not None, rekeyed=False) and origin not in self._dead:
                    self.wrong(
                        f"a checkpoint of {table.name}-{partition} passes over {origin}, which has no dead letter"
                    )
            self._lettered[(table.name, *place)] = max(known, checkpoint.offsets[index])

    def _once(self, known: dict[str, Any], identity: str, body: Any, what: str) -> None:
        before = known.setdefault(identity, body)
        if before != body:
            self.wrong(f"{what} came with two values: {before} and {body}")

    def _source_of(self, topic: str, partition: int, offset: int) -> Origin:
        role, definition = self._roles.get(topic, ("", None))
        if role != "rekey" or definition is None:
            return topic, partition, offset
        record = self.cluster.logs[topic, partition].read(offset, 1)[0]
        raw = next(value for name, value in record.headers if name == "streamapp-origin")
        return (definition.sources[0].topic, *ORIGIN.unpack(raw)[:2])

    def committing(self, place: Place, offset: int, told: str) -> None:
        """A commit says that everything below is durable: in a checkpoint of each table, or in the dead letters.

        Of re-keyed tables it says by name what is forwarded.
        """
        topic, partition = place
        before = self.cluster.committed.get(place, 0)
        role, definition = self._roles.get(topic, ("", None))
        if role == "rekey" and definition is not None:
            checkpoint = self._checkpoints.get((changelog_topic(APP_ID, definition.name), partition))
            taken = self._taken.setdefault(place, {})
            for record in self.cluster.logs[place].read(before, offset - before):
                if record.offset >= offset:
                    break
                if record.value is None:
                    continue  # a marker
                origin, at, sent_before, *_ = ORIGIN.unpack(record.headers[0][1])
                if sent_before <= taken.get(origin, -1) < at:  # else it is a repeat, or comes again
                    taken[origin] = at
            for origin, at in taken.items():
                if checkpoint is None or checkpoint.offsets[origin] < at:
                    self.wrong(
                        f"committed {place} up to {offset}, but {definition.name} has not counted origin {origin}-{at}"
                    )
            return
        for table in self.scenario.tables:
            for index, source in enumerate(table.sources):
                if source.topic != topic:
                    continue
                if table.rekey is not None:
                    self._forwarded(table, place, decode(told).get(table.name))
                    continue
                if offset <= before:
                    continue  # it only tells more than the last one did
                checkpoint = self._checkpoints.get((changelog_topic(APP_ID, table.name), partition))
                if checkpoint is None or checkpoint.offsets[index] < offset - 1:
                    have = None if checkpoint is None else checkpoint.offsets[index]
                    self.wrong(f"committed {place} up to {offset}, but {table.name} has only counted {have}")

    def _forwarded(self, table: TableDefinition, place: Place, told: Forwarded | None) -> None:
        topic, partition = place
        low, high = self._told.get((table.name, *place), 0), told.next_offset if told is not None else 0
        if high <= low:
            return
        self._told[table.name, *place] = high
        wanted = {made.offset for made in self.made.get(place, ()) if low <= made.offset < high}
        rekey = RunningTable(table, APP_ID).rekey_topic
        for at in range(self.scenario.partitions):
            for record in self.cluster.logs[rekey, at].records:
                if record.value is None:
                    continue  # a marker
                origin, offset, *_ = ORIGIN.unpack(record.headers[0][1])
                if origin == partition:
                    wanted.discard(offset)
        missing = [offset for offset in sorted(wanted) if (topic, partition, offset) not in self._dead]
        if missing:
            self.wrong(f"committed {place} up to {high}, but {table.name} never got {missing} forwarded")

    def answering(self, lives: Sequence[Any], waiting: Callable[[Any], bool]) -> None:
        """Of the workers that live now, one at most may answer for a partition.

        Args:
            waiting: whether a worker has not got its part of the present assignment yet; it is not counted.
        """
        owners: dict[tuple[str, int], str] = {}
        for life in lives:
            engine = life.engine
            if (
                engine is None
                or waiting(life)
                or life.process.loop.paused_until > self.world.now
                or not engine.lease.valid
            ):
                continue
            for name, table in engine.tables.items():
                for partition, live in table.live.items():
                    if live.state is None:
                        continue
                    other = owners.setdefault((name, partition), life.process.name)
                    if other != life.process.name:
                        self.wrong(f"{other} and {life.process.name} both answer for {name}-{partition}")

    # --- at rest -----------------------------------------------------------------------------------------------------

    def check(self, owners: Mapping[int, Any], label: str) -> None:
        """Everything must be as the records say: in memory, in the store, in the changelog, in what went out."""
        self.label = label
        dead: set[Origin] = set()
        for definition in self.scenario.tables:
            late: set[Origin] = set()
            finals: dict[Window, Sequence[Any]] = {}
            certain = True
            for partition in range(self.scenario.partitions):
                kind = self.scenario.kinds[definition.name]
                expected = reference.expect(definition, kind, self.made, partition, self.scenario.partitions)
                if self.scenario.idle:
                    expected.certain = False
                views = self._views(definition, partition, owners[partition])
                if views is None:
                    return
                if expected.certain:
                    self._exact(definition, kind, partition, expected, views)
                else:
                    self._adds_up(definition, kind, partition, expected, views)
                certain = certain and expected.certain
                late |= expected.late
                dead |= expected.dead
                finals.update(expected.finals)
            if certain:
                self._check_late(definition, late)
                self._check_finals(definition, finals)
        if self._all_certain():
            if set(self._dead) != dead:
                self.wrong(
                    f"{label}: dead letters: missing {sorted(dead - set(self._dead))}, too many "
                    f"{sorted((k, self._dead[k]) for k in set(self._dead) - dead)}"
                )
        elif missing := dead - set(self._dead) - self._late_origins():
            self.wrong(f"{label}: dead letters: missing {sorted(missing)}")

    def _late_origins(self) -> set[Origin]:
        """Records that came late: where it is uncertain what is late, one that would have been refused may have come so."""
        return {(body["topic"], body["partition"], body["offset"]) for body in self._late.values()}

    def _all_certain(self) -> bool:
        return not self.scenario.idle and not any(
            isinstance(table.window, Session)
            and (len(table.sources) > 1 or (table.rekey and self.scenario.partitions > 1))
            for table in self.scenario.tables
        )

    def _views(self, definition: TableDefinition, partition: int, life: Any) -> dict[str, dict[Window, Any]] | None:
        """Windows with results: as readers see them, from the store, from the changelog."""
        live = life.engine.tables[definition.name].live.get(partition)
        if live is None or live.state is None:
            self.wrong(f"{self.label}: {definition.name}-{partition} is not active on its owner {life.process.name}")
            return None
        state = live.state

        def row(start: int, entry: Entry) -> Any:
            return state.aggregate.result(entry.state, (start, state.end_of(start, entry)))

        seen = {
            (key, start): row(start, entry) for key in state.keys() for start, entry in state.windows(key, 0, 1 << 60)
        }
        stored = {split_data_key(key): Entry.decode(raw) for key, raw in state.store.scan(b"d", b"e")}
        log = self.cluster.logs[changelog_topic(APP_ID, definition.name), partition].records
        last: dict[bytes, bytes | None] = {}
        for record in log:
            assert record.key is not None
            last[record.key] = record.value
        logged = {
            split_data_key(key): Entry.decode(raw) for key, raw in last.items() if raw is not None and key[:1] == b"d"
        }
        views = {"memory": seen}
        for name, entries in (("store", stored), ("changelog", logged)):
            views[name] = {place: row(place[1], entry) for place, entry in entries.items()}
        self._watermark = state.watermark
        if self.scenario.idle and state.open:
            self.wrong(f"{self.label}: {definition.name}-{partition}: idle, but {sorted(state.open)} are open")
        return views

    def _exact(
        self,
        definition: TableDefinition,
        kind: str,
        partition: int,
        expected: Expected,
        views: Mapping[str, Mapping[Window, Any]],
    ) -> None:
        where = f"{self.label}: {definition.name}-{partition}"
        # of a re-keyed table without windows nobody has to know it
        known = definition.rekey is None or definition.window is not None
        if known and self._watermark != expected.watermark:
            self.wrong(f"{where}: the watermark is {self._watermark}, expected {expected.watermark}")
        for name, view in views.items():
            missing, extra = expected.windows.keys() - view.keys(), view.keys() - expected.windows.keys()
            if missing or extra:
                self.wrong(f"{where}, {name}: windows missing {sorted(missing)}, too many {sorted(extra)}")
                continue
            for place, members in expected.windows.items():
                problems = check_row(view[place], kind, members)
                if problems:
                    self.wrong(f"{where}, {name}: {place}: {'; '.join(problems)}")

    def _adds_up(
        self,
        definition: TableDefinition,
        kind: str,
        partition: int,
        expected: Expected,
        views: Mapping[str, Mapping[Window, Any]],
    ) -> None:
        """Where the outcome depends on the schedule: all views agree, and what is published stands."""
        where = f"{self.label}: {definition.name}-{partition}"
        for name, view in views.items():
            if view != views["memory"]:
                self.wrong(f"{where}: {name} is not what readers see: {view} against {views['memory']}")
        for place, value in views["memory"].items():
            body = self._finals.get(f"{definition.name}:{place[0]}:{place[1]}")
            if body is not None and body["value"] != orjson.loads(orjson.dumps(value)):
                self.wrong(f"{where}: {place} was published as {body['value']}, and is {value}")
        window = definition.window
        if isinstance(window, Session | Tumbling) and window.retention_ms > 1_000_000:
            counted = sum(_count_of(kind, value) for value in views["memory"].values())
            late = sum(self._is_of(body, definition, partition) for body in self._late.values())
            refused = kind in FOLDING and "poison" in self.scenario.faults  # may be late, too
            if not refused and counted + late != expected.total:
                self.wrong(f"{where}: {counted} counted and {late} late of {expected.total} records")

    def _is_of(self, body: Mapping[str, Any], definition: TableDefinition, partition: int) -> bool:
        of_table = body["table"] == definition.name
        return of_table and partition_for(body["key"].encode(), self.scenario.partitions) == partition

    def _check_late(self, definition: TableDefinition, expected: set[Origin]) -> None:
        found = {
            (body["topic"], body["partition"], body["offset"])
            for body in self._late.values()
            if body["table"] == definition.name
        }
        if found != expected:
            self.wrong(
                f"{self.label}: {definition.name}: late records missing {sorted(expected - found)}, "
                f"too many {sorted(found - expected)}"
            )

    def _check_finals(self, definition: TableDefinition, expected: Mapping[Window, Any]) -> None:
        kind = self.scenario.kinds[definition.name]
        found = {
            (body["key"], body["window_start"]): body["value"]
            for body in self._finals.values()
            if body["table"] == definition.name
        }
        if found.keys() != expected.keys():
            self.wrong(
                f"{self.label}: {definition.name}: final records missing {sorted(expected.keys() - found.keys())}, "
                f"too many {sorted(found.keys() - expected.keys())}"
            )
        for place in found.keys() & expected.keys():
            problems = check_row(found[place], kind, expected[place])
            if problems:
                self.wrong(f"{self.label}: {definition.name}: the final record of {place}: {'; '.join(problems)}")


def _count_of(kind: str, row: Mapping[str, Any]) -> int:
    if kind == "candle":
        return int(row["count"])
    return int(row["n"]) if kind in ("named", "mixed") else len(row["value"])


def at_rest(cluster: Cluster, topics: Iterable[Place], owners: Mapping[int, Any]) -> bool:
    """Whether every record of these partitions is merged by its owner, durable and committed."""
    for life in set(owners.values()):
        engine = life.engine
        if engine is None or life.stopping or life.seeking or not engine.settled or engine.unrestored():
            return False
        if engine._checkpointer._lock.locked() or engine._checkpointer._broken:
            return False  # one that timed out stops the worker, and what it held comes again with the next one
    for place in topics:
        life = owners.get(place[1])
        if life is None or not life.process.alive or life.engine is None:
            return False
        records = cluster.logs[place].records
        if not records:
            continue
        lane = life.engine.lanes.get(place)
        if lane is None or lane.durable < records[-1].offset:
            return False
        if cluster.committed.get(place, 0) <= records[-1].offset:
            return False
    return True
