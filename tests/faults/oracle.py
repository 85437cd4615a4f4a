"""Four ways to ask what the tables hold, and the outputs beside them, all held against the reference.

1. the workers' HTTP views, while they run;
2. RocksDB, as the dead workers left it on the disk;
3. the changelog, replayed into an empty map: the last value of each key wins, a tombstone deletes;
4. the reference.

Final records, late records and dead letters may come any number of times, at least once: a consumer drops what it has seen
by its id, after it has checked that a repeat says the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rocksdict import AccessType, Options, Rdict

from streamapp.state.entry import CHECKPOINT_KEY, EPOCH_BYTES, Checkpoint, Entry, split_data_key
from streamapp.state.epochs import EPOCH_HEADER, EPOCH_KEY, epoch_number
from streamapp.windows.basic import Count, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.edges import Last
from streamapp.windows.named import Named
from tests.fakes.processes import Topics, Worker
from tests.faults.reference import Arrival, Expected, Row, Window, difference, expected_tables
from tests.faults.tables import SHAPES, Shape

if TYPE_CHECKING:
    from streamapp.windows.aggregate import Aggregate

_SHOWN = 8
_CANDLE = Candle()
_NEWEST = Named({"price": Last("price"), "count": Count(), "amount": Sum("size")})


@dataclass
class Comparison:
    """How many values were compared, by where they came from, and what differs."""

    compared: dict[str, int] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    def count(self, what: str, many: int) -> None:
        self.compared[what] = self.compared.get(what, 0) + many

    @property
    def total(self) -> int:
        return sum(self.compared.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{what} {many}" for what, many in self.compared.items())
        return f"{self.total} compared ({parts}), {len(self.differing)} differ {self.differing[:_SHOWN]}"


class Oracle:
    """Compares everything that one application left behind.

    Args:
        topics: the cluster.
        app, source: the application's id, and its source topic.
        shapes: the tables that it declares.
        good: tells records that tables count from those that belong into the dead letters.
    """

    def __init__(self, topics: Topics, app: str, source: str, shapes: Sequence[Shape] = SHAPES) -> None:
        self._topics = topics
        self._app = app
        self._source = source
        self._shapes = shapes
        self.partitions = topics.partitions(source)
        self.bad: dict[tuple[int, int], str] = {}  # (partition, offset) of records that tables must refuse -> why
        self.comparison = Comparison()
        self.expected: dict[str, Expected] = {}
        self.arrivals: list[Arrival] = []
        self.stored = 0  # records on the source topic

    def read_source(self, bad: Mapping[bytes, str]) -> None:
        """Read what stands on the source topic, and work out the reference from it; `bad` values are no arrivals."""
        self.arrivals, self.bad, self.stored = [], {}, 0
        for message in self._topics.read(self._source):
            place = (message.partition(), message.offset())
            value = message.value()
            self.stored += 1
            reason = bad.get(value if value is not None else b"")
            if reason is not None:
                self.bad[place] = reason
                if reason in ("missing_key", "undecodable_key"):
                    self.arrivals.append(Arrival(*place, None, json.loads(value)))
            else:
                self.arrivals.append(Arrival(*place, message.key().decode(), json.loads(value)))
        self.expected = expected_tables(self.arrivals, self.partitions, self._shapes)

    # --- the four ways ---------------------------------------------------------------------------------------------

    def compare_views(self, workers: Sequence[Worker]) -> None:
        """Every window over HTTP, from each worker: whichever is asked answers for all of them."""
        for worker in workers:
            for shape in self._shapes:
                self._compare(f"views of {worker.name}", shape, self._viewed(worker, shape))

    def _viewed(self, worker: Worker, shape: Shape) -> dict[Window, Row]:
        table, found = shape.name, {}
        wanted = self.expected[table]
        for key in worker.keys(table):
            if not (shape.fixed or shape.gap_ms):
                found[key, 0] = worker.get(f"/v1/tables/{table}/keys/{quote(key, safe=':')}")["value"]
                continue
            for item in worker.windows(table, key):
                window = (key, item["window"]["start"])
                found[window] = item["value"]
                if window in wanted.windows and item["window"]["final"] != (window in wanted.closed):
                    self.comparison.differing.append(f"{table} {window}: final is {item['window']['final']}")
        return found

    def compare_disk(self, shape: Shape, owners: Mapping[int, Path]) -> None:
        """RocksDB of the partitions' owners; the workers must be dead.

        Args:
            shape: the table.
            owners: partition -> the folder with the stores of the worker that owned it.
        """
        found: dict[Window, Row] = {}
        for partition, folder in owners.items():
            store = _read_only(folder / shape.name / str(partition))
            pairs = [(key, value) for key, value in store.items() if key[:1] == b"d"]
            store.close()
            found.update(_rows(shape, pairs))
        self._compare("disk", shape, self._kept(shape, found))

    def compare_changelog(self) -> None:
        """The changelogs into an empty map."""
        for shape in self._shapes:
            held: dict[bytes, bytes] = {}
            for message in self._topics.read(f"{self._app}-{shape.name}-changelog"):
                key = message.key()
                if key is None or key[:1] != b"d":
                    continue
                if message.value() is None:
                    held.pop(key, None)
                else:
                    held[key] = message.value()
            self._compare("changelog", shape, self._kept(shape, _rows(shape, held.items())))

    def _kept(self, shape: Shape, found: dict[Window, Row]) -> dict[Window, Row]:
        """Without what retention has reached, which readers no longer see, and without sessions that another one covers.

        A session that has grown to the left is put down under its new start before the old one is deleted, and a restart
        tidies up; what is left must be exactly what readers see.
        """
        wanted = self.expected[shape.name]
        if shape.gap_ms:
            kept: dict[Window, Row] = {}
            reach: dict[str, int] = {}
            for key, start in sorted(found):
                if start > reach.get(key, -1):
                    kept[key, start] = found[key, start]
                    reach[key] = found[key, start]["last_time"]
            return kept
        expired = wanted.all_windows.keys() - wanted.windows.keys()
        return {window: row for window, row in found.items() if window not in expired}

    def _compare(self, what: str, shape: Shape, got: Mapping[Window, Row]) -> None:
        wanted = self.expected[shape.name]
        for window in sorted(wanted.windows.keys() | got.keys()):
            unclear = window in wanted.unclear
            problem = difference(wanted.windows.get(window), got.get(window), unclear=unclear)
            if problem is not None:
                self.comparison.differing.append(f"{what}: {shape.name} {window}: {problem}")
        self.comparison.count(what, len(wanted.windows.keys() | got.keys()))

    # --- outputs ---------------------------------------------------------------------------------------------------

    def compare_finals(self) -> None:
        """Every closed window has a final record, and however often it was sent it says the same, what it should."""
        for shape in self._shapes:
            if not (shape.fixed or shape.gap_ms):
                continue
            seen = self._once(f"{self._app}-{shape.name}-final")
            wanted = self.expected[shape.name]
            got = {(final["key"], final["window_start"]): final["value"] for final in seen.values()}
            if len(got) != len(seen):
                self.comparison.differing.append(f"{shape.name}: {len(seen)} ids of final records, {len(got)} windows")
            for window in sorted(wanted.closed | got.keys()):
                row = wanted.all_windows[window] if window in wanted.closed else None
                problem = difference(row, got.get(window), unclear=window in wanted.unclear)
                if problem is not None:
                    self.comparison.differing.append(f"final: {shape.name} {window}: {problem}")
            self.comparison.count("final", len(wanted.closed | got.keys()))

    def compare_late(self) -> None:
        """The late records: exactly those that missed a window."""
        for shape in self._shapes:
            seen = self._once(f"{self._app}-{shape.name}-late")
            got = {(late["partition"], late["offset"]) for late in seen.values()}
            wanted = self.expected[shape.name].late
            self.comparison.differing += [f"late: {shape.name} {place}" for place in sorted(got ^ wanted)]
            if len(got) != len(seen):
                self.comparison.differing.append(f"{shape.name}: {len(seen)} ids of late records, {len(got)} places")
            self.comparison.count("late", len(got | wanted))

    def compare_letters(self) -> None:
        """The dead letters: exactly the records that cannot be used, each with its place and its reason."""
        # when it was met is the one thing that a repeat may tell differently
        seen = self._once("dead-letters", ("first_time", "last_time"), {"topic": self._source})
        got = {(letter["partition"], letter["offset"]): letter["reason"] for letter in seen.values()}
        for place in sorted(self.bad.keys() | got.keys()):
            if self.bad.get(place) != got.get(place):
                self.comparison.differing.append(
                    f"dead letter {place}: expected {self.bad.get(place)}, got {got.get(place)}"
                )
        self.comparison.count("dead letters", len(self.bad.keys() | got.keys()))

    def _once(self, topic: str, besides: Sequence[str] = (), only: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What a consumer keeps that drops repeats by their id; a repeat that says something else is a difference."""
        seen: dict[str, Any] = {}
        for value in self._topics.values(topic):
            if any(value.get(name) != wanted for name, wanted in (only or {}).items()):
                continue
            told = {name: what for name, what in value.items() if name not in besides}
            first = seen.setdefault(told["id"], told)
            if first != told and not _equal(first, told):
                self.comparison.differing.append(f"{topic} {told['id']}: {first}, then {told}")
        return seen


def commits_ahead(topics: Topics, app: str, source: str, shapes: Sequence[Shape]) -> list[str]:
    """Partitions whose committed offset is beyond what a durable checkpoint of every table speaks of; there must be none."""
    found = []
    committed = topics.committed(app, source)
    for shape in shapes:
        if shape.by_symbol:
            continue  # its offsets are those of its own topic
        known: dict[int, Checkpoint] = {}
        epochs: dict[int, int] = {}
        for message in topics.read(f"{app}-{shape.name}-changelog"):
            partition, value = message.partition(), message.value()
            if message.key() == EPOCH_KEY:
                epochs[partition] = max(epochs.get(partition, 0), epoch_number(value[-EPOCH_BYTES:]))
            elif message.key() == CHECKPOINT_KEY and value is not None:
                epoch = epoch_number(dict(message.headers())[EPOCH_HEADER])
                # one that a replaced owner wrote late is believed by nobody; it stands last until it is written again
                if epoch >= epochs.get(partition, 0):
                    known[partition] = Checkpoint.decode(value)
        for (_, partition), position in committed.items():
            durable = known[partition].offsets[0] + 1 if partition in known else 0
            if position > durable:
                found.append(f"{shape.name}-{partition}: committed {position}, durable {durable}")
    return found


def steps_back_in_changelog(topics: Topics, app: str, shapes: Sequence[Shape]) -> list[str]:
    """Values of a key that speak of an earlier source offset than one before them."""
    found = []
    for shape in shapes:
        newest: dict[bytes, Sequence[int]] = {}
        for message in topics.read(f"{app}-{shape.name}-changelog"):
            key = message.key()
            if key is None or key[:1] != b"d":
                continue
            if message.value() is None:
                newest.pop(key, None)
                continue
            offsets = Entry.decode(message.value()).offsets
            before = newest.get(key, offsets)
            if any(now < then for now, then in zip(offsets, before, strict=True)):
                found.append(f"{shape.name} {key!r}: {before}, then {offsets}")
            newest[key] = offsets
    return found


def _equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Equal but for the grouping of sums."""
    if first.keys() != second.keys():
        return False
    return all(
        difference(what, second[name]) is None if name == "value" else what == second[name]
        for name, what in first.items()
    )


def _read_only(folder: Path) -> Rdict:
    options = Options(raw_mode=True)
    return Rdict(str(folder), options, access_type=AccessType.read_only())


def _rows(shape: Shape, pairs: Iterable[tuple[bytes, bytes]]) -> dict[Window, Row]:
    found: dict[Window, Row] = {}
    aggregate: Aggregate = _CANDLE if shape.fixed or shape.gap_ms else _NEWEST
    for raw_key, raw in pairs:
        key, start = split_data_key(raw_key)
        entry = Entry.decode(raw)
        end = entry.newest + shape.gap_ms if shape.gap_ms else start + shape.size_ms
        found[key, start] = dict(aggregate.result(entry.state, (start, end)))
    return found
