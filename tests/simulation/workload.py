"""What a seed runs: tables, records good and bad, and how many workers share them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict

from streamapp.records.codec import codec_for
from streamapp.state.definition import Source, TableDefinition
from streamapp.windows.aggregate import Aggregate
from streamapp.windows.basic import Count, Max, Min, Sum
from streamapp.windows.candle import Candle
from streamapp.windows.definitions import Hopping, Tumbling
from streamapp.windows.edges import First, Last
from streamapp.windows.fold import Fold
from streamapp.windows.named import Named
from streamapp.windows.sessions import Session
from tests.simulation.cluster import Cluster
from tests.simulation.world import START_MS

FOREVER = 1_000_000_000
MAX_FUTURE_MS = 1_000_000
MAX_RECORD_BYTES = 600

Poison = Literal[
    "garbage", "schema", "null", "oversized", "future", "negative", "no_key", "bad_key", "boom", "no_group"
]
POISONS: tuple[Poison, ...] = (
    "garbage", "schema", "null", "oversized", "future", "negative", "no_key", "bad_key", "boom", "no_group",
)  # fmt: skip


class Tick(BaseModel):
    """A record of the simulated sources."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    price: float
    size: float
    side: str | None = None
    serial: int
    group: str
    sequence: int | None = None
    event_time: int


@dataclass(frozen=True)
class Made:
    """A record as it was made, for the reference; `poison` tells what is wrong with it."""

    topic: str
    partition: int
    offset: int
    key: str
    price: float
    size: float
    serial: int
    group: str
    sequence: int
    event_time: int
    timestamp: int
    poison: Poison | None = None


@dataclass
class Scenario:
    """All that is drawn before anything runs."""

    tables: list[TableDefinition]
    kinds: dict[str, str]
    sources: list[str]
    partitions: int
    workers: int
    records: int
    idle: bool = False
    faults: set[str] = field(default_factory=set)
    old_group: bool = False  # the group was there before its re-keyed tables: they are added while it runs

    def describe(self) -> str:
        """One line for people."""
        shown = [
            f"{t.name}: {t.window} {self.kinds[t.name]} of {','.join(s.topic for s in t.sources)}"
            f"{' re-keyed' if t.rekey else ''}{'' if t.sources[0].time_field else ' by arrival'}"
            for t in self.tables
        ]
        return (
            f"{'; '.join(shown)}; {self.partitions} partitions, {self.workers} workers, {self.records} records"
            f"{', idle' if self.idle else ''}{', re-keyed tables come later' if self.old_group else ''}"
            f", faults: {', '.join(sorted(self.faults))}"
        )


# --- aggregates ---------------------------------------------------------------------------------------------------------


def _keep(state: list[int], record: Any) -> list[int]:
    if record.side == "boom":
        raise ValueError("boom")
    return [*state, record.serial]


def _union(one: list[int], other: list[int]) -> list[int]:
    return sorted([*one, *other])


def _serials() -> dict[str, list[int]]:
    return {"serials": []}


def _aggregates() -> dict[str, Callable[[], Aggregate]]:
    plain = lambda: {  # noqa: E731 - one member list in two aggregates
        "n": Count(), "total": Sum("price"), "low": Min("price"), "high": Max("price"),
        "first": First("serial"), "last": Last("serial"),
    }  # fmt: skip
    return {
        "candle": Candle,
        "named": lambda: Named(plain()),
        "fold": lambda: Fold([], _keep),
        "union": lambda: Fold([], _keep, _union),
        "mixed": lambda: Named({**plain(), "serials": Fold([], _keep, _union)}),
    }


AGGREGATES = {name: make() for name, make in _aggregates().items()}
FOLDING = frozenset({"fold", "union", "mixed"})


def _group_of(record: Any) -> str:
    if not record.group:
        raise ValueError("no group")
    return str(record.group)


# --- scenarios ----------------------------------------------------------------------------------------------------------


def scenario_of(seed: int) -> Scenario:
    """What a seed runs; one in twenty is long."""
    drawn = scenario(Random(seed ^ 0x5EED), 1 if seed % 20 else 6)
    drawn.old_group = any(table.rekey for table in drawn.tables) and seed % 2 == 0
    return drawn


def scenario(random: Random, size: float) -> Scenario:
    """Draw what runs.

    Args:
        size: 1 is a typical seed; records and workers grow with it.
    """
    partitions = random.choice((1, 1, 1, 2, 3))
    sources = [f"source-{index}" for index in range(random.choice((1, 1, 2, 3)))]
    idle = random.random() < 0.1
    tables: list[TableDefinition] = []
    kinds: dict[str, str] = {}
    for index in range(random.choice((1, 1, 1, 2, 2, 3))):
        table, kind = _table(random, f"table-{index}", sources)
        tables.append(table)
        kinds[table.name] = kind
    used = {source.topic for table in tables for source in table.sources}
    faults = {
        fault
        for fault, share in (
            ("crash", 0.8), ("disk", 0.5), ("machine", 0.3), ("rebalance", 0.4), ("restart", 0.3), ("send", 0.4),
            ("slow", 0.2), ("pause", 0.2),
            ("sleep", 0.15), ("cut", 0.15), ("compact", 0.6), ("full", 0.1), ("poison", 0.5), ("gaps", 0.3),
        )
        if random.random() < share
    }  # fmt: skip
    return Scenario(
        tables,
        kinds,
        [topic for topic in sources if topic in used],
        partitions,
        random.choice((1, 1, 2, 3)),
        int(random.choice((8, 15, 25, 40)) * size) + 1,
        idle,
        faults,
    )


def _table(random: Random, name: str, sources: Sequence[str]) -> tuple[TableDefinition, str]:
    grace = random.choice((0, 5, 30))
    retention = FOREVER if random.random() < 0.7 else 60
    window: Any = random.choice(
        (
            Tumbling(10, grace, retention),
            Tumbling(10, grace, retention),
            Hopping(12, 4, grace, retention),
            Hopping(10, 3, grace, retention),
            Session(5, grace, retention),
            Session(12, grace, retention),
            None,
        )
    )
    kind = random.choice(tuple(AGGREGATES))
    if kind == "fold" and isinstance(window, Session):
        kind = "union"
    rekeyed = random.random() < 0.25
    chosen = random.sample(sources, 1 if rekeyed else random.choice((1, 1, min(2, len(sources)), len(sources))))
    time_field = None if random.random() < 0.1 else "event_time"
    return (
        TableDefinition(
            name=name,
            sources=tuple(Source(topic, codec_for(Tick), time_field) for topic in chosen),
            aggregate=AGGREGATES[kind],
            window=window,
            rekey=_group_of if rekeyed else None,
            rekey_name="group" if rekeyed else "",
        ),
        kind,
    )


class Records:
    """Makes records for one source topic; their times wander forwards, some fall back, some repeat."""

    def __init__(self, random: Random, topic: str, poisoned: bool) -> None:
        self._random = random
        self.topic = topic
        self._poisoned = poisoned
        self._base = START_MS
        self._serial = 0
        self._last: Made | None = None

    def next(self, cluster: Cluster) -> tuple[Made, bytes | None, bytes | None]:
        """A record with its key and value; it goes to the end of its partition."""
        random = self._random
        draw = random.random()
        self._base += random.choice((0, 0, 1, 2, 3, 9)) if draw < 0.97 else 60
        time = self._base - (random.randint(0, 12) if draw < 0.3 else random.randint(0, 60) if draw < 0.36 else 0)
        self._serial += 1
        key = random.choice("abcd")
        last = self._last
        made = Made(
            self.topic, 0, 0, key,
            random.randint(1, 9) / 7, random.randint(1, 9) / 3, self._serial, random.choice("xyz"),
            random.choice((-1, self._serial, self._serial, 5)), max(time, START_MS - 50), time + random.randint(-5, 5),
        )  # fmt: skip
        if last is not None and draw > 0.95:  # the same thing once more, or something of the same moment
            again = {name: getattr(last, name) for name in ("event_time", "timestamp", "sequence")}
            made = Made(**{**vars(made), **again})
        poison = random.choice(POISONS) if self._poisoned and random.random() < 0.15 else None
        made, raw_key, value = _written(made, poison)
        place = cluster.place_of(self.topic, raw_key, None)
        made = Made(**{**vars(made), "partition": place[1], "offset": cluster.logs[place].end})
        if poison is None:
            self._last = made
        return made, raw_key, value


def _written(made: Made, poison: Poison | None) -> tuple[Made, bytes | None, bytes | None]:
    fields: dict[str, Any] = {
        "price": made.price, "size": made.size, "side": "buy", "serial": made.serial, "group": made.group,
        "sequence": made.sequence if made.sequence >= 0 else None, "event_time": made.event_time,
    }  # fmt: skip
    raw_key: bytes | None = made.key.encode()
    changes: dict[str, Any] = {"poison": poison}
    if poison == "future":
        fields["event_time"] = changes["event_time"] = made.timestamp + MAX_FUTURE_MS + 1
    elif poison == "negative":
        fields["event_time"] = changes["event_time"] = -1
    elif poison == "schema":
        fields["price"] = "5"
    elif poison == "boom":
        fields["side"] = "boom"
    elif poison == "no_group":
        fields["group"] = changes["group"] = ""
    elif poison == "oversized":
        fields["padding"] = "x" * MAX_RECORD_BYTES
    value: bytes | None = orjson.dumps(fields)
    if poison == "garbage":
        value = value[:-9] if value else value
    elif poison == "null":
        value = None
    elif poison == "no_key":
        raw_key = None
    elif poison == "bad_key":
        raw_key = b"\xff\xfe"
    elif poison is None and made.serial % 17 == 0:
        value = orjson.dumps(fields, option=orjson.OPT_INDENT_2)  # several lines are one record all the same
    return Made(**{**vars(made), **changes}), raw_key, value
