"""Faults 9 and 11: records that cannot be used, and records that come in any order, twice and too late."""

import random
import time
from collections.abc import Iterator

import orjson

from tests.fakes.processes import until
from tests.faults.events import START_MS, STEP_MS, Record, Trades, encoded
from tests.faults.lab import Lab, fault
from tests.faults.oracle import Oracle
from tests.faults.reference import Arrival, difference, expected_tables
from tests.faults.tables import GRACE_MS, MINUTE_MS
from tests.faults.world import World

LARGEST = 20_000
POISON_SHARE = 0.02


def _poison(draw: random.Random) -> Iterator[tuple[str, str | bytes | None, bytes | None]]:
    """Endless records that no table may count, each with its own text, and the reason that has to be told."""
    number = 0
    while True:
        number += 1
        key = f"a:{draw.choice(('BTC-USD', 'ETH-USD', 'SOL-USD'))}"
        good = {
            "venue": "a",
            "symbol": "BTC-USD",
            "price": 100.5,
            "size": 1.0,
            "side": "buy",
            "trade_id": f"poison-{number}",
            "sequence": number,
            "event_time": START_MS,
            "ingest_time": START_MS,
        }
        yield draw.choice(
            (
                ("undecodable", key, b'{"venue": "a", "trade_id": "cut-%d' % number),
                ("undecodable", key, b"\xff\xfe%d" % number),
                ("wrong_schema", key, b"[" * 5_000 + b"%d" % number),
                ("wrong_schema", key, orjson.dumps(good | {"price": "5"})),
                ("wrong_schema", key, orjson.dumps(good | {"price": -1})),
                ("wrong_schema", key, orjson.dumps(good | {"size": None})),
                ("wrong_schema", key, orjson.dumps({name: value for name, value in good.items() if name != "price"})),
                ("wrong_schema", key, orjson.dumps(good | {"event_time": -5})),
                ("wrong_schema", key, b"[%d, 2]" % number),
                ("oversized", key, orjson.dumps(good | {"trade_id": f"{number}-" + "9" * LARGEST})),
                ("null_value", key, None),
                ("missing_key", None, orjson.dumps(good)),
                ("undecodable_key", b"\xff\xff", orjson.dumps(good)),
                (
                    "future_event_time",
                    key,
                    orjson.dumps(good | {"event_time": int(time.time() * 1000) + 86_400_000 + number}),
                ),
            )
        )


def _send(world: World, draw: random.Random, poison: Iterator[tuple[str, str | bytes | None, bytes | None]]) -> int:
    """A thousand trades with poison between them, in one order; how many are poison."""
    records: list[tuple[str | bytes | None, bytes | None]] = []
    bad = 0
    for trade in world.trades.take(1_000):
        if draw.random() < POISON_SHARE:
            reason, key, value = next(poison)
            world.bad[value if value is not None else b""] = reason
            records.append((key, value))
            bad += 1
        records.append(trade)
    world.send(records)
    return bad


@fault(9, "poison, oversized and wrong-schema records, with kills between")
def test_poison(lab: Lab) -> None:
    draw = random.Random(f"poison-{lab.seed}")
    poison = _poison(draw)
    with lab.world(env={"STREAMAPP_MAX_RECORD_BYTES": str(LARGEST)}) as world:
        worker = world.worker()
        bad = _send(world, draw, poison)
        worker.start()
        for lost in draw.sample((False, True), 2):
            wanted = draw.randrange(1, 4_000)
            until("some to be merged", lambda wanted=wanted: worker.applied >= wanted, hint=world.hint)
            worker.kill()
            if lost:
                worker.lose_disk()
            bad += _send(world, draw, poison) + _send(world, draw, poison)
            worker.start()
        world.settle()
        world.figures.update(poison=bad)
        world.verify()
    assert bad > 40


def _shuffled(trades: list[dict[str, object]], draw: random.Random) -> list[dict[str, object]]:
    """No trade comes more than the grace behind one that happened later; every tenth comes twice."""
    placed = []
    for trade in trades:
        for _ in range(2 if draw.random() < 0.1 else 1):
            happened = trade["event_time"]
            assert isinstance(happened, int)
            placed.append((happened + draw.uniform(0, GRACE_MS * 0.95), len(placed), trade))
    return [trade for _, _, trade in sorted(placed)]


@fault(11, "shuffled, duplicated and late events")
def test_disorder(lab: Lab) -> None:
    draw = random.Random(f"disorder-{lab.seed}")
    with lab.world(trades=Trades(lab.seed, lateness=0, shuffle=0)) as world:
        # nothing but its place tells trades of one millisecond apart, so they get a sequence each
        trades = [trade | {"sequence": number} for number, trade in enumerate(world.trades.plain(6_000))]
        sent = _shuffled(trades, draw)
        worker = world.worker().start()
        world.send(map(encoded, sent))
        world.settle()
        within = Oracle(world.topics, world.app, world.source)
        within.read_source({})
        assert not any(table.late for table in within.expected.values()), "all of it was within the grace"
        ordered = sorted(within.arrivals, key=lambda arrival: (arrival.value["event_time"], arrival.offset))
        in_order = [Arrival(arrival.partition, at, *arrival[2:]) for at, arrival in enumerate(ordered)]
        wrong = [
            f"{name} {window}"
            for name, table in expected_tables(in_order, within.partitions).items()
            for window, row in table.all_windows.items()
            if name != "symbols" and difference(row, within.expected[name].all_windows.get(window))
        ]
        assert wrong == [], "within the grace the order of arrival decides nothing"
        within.compare_views([worker])
        assert within.comparison.differing == []

        late = list(_late(draw, len(trades)))
        before = worker.metric("streamapp_late_records_total", table="minutes")
        world.send(late)
        world.settle()
        counted = worker.metric("streamapp_late_records_total", table="minutes") - before
        after = Oracle(world.topics, world.app, world.source)
        after.read_source({})
        untouched = [
            window
            for name, table in within.expected.items()
            for window in table.closed
            if after.expected[name].all_windows[window] != table.all_windows[window]
        ]
        world.figures.update(late=len(late), counted=int(counted))
        world.verify()
    assert untouched == []
    assert counted == len(after.expected["minutes"].late) == len(late)


def _late(draw: random.Random, count: int) -> Iterator[Record]:
    """Trades of the past: their windows are closed in every table that has any."""
    newest = START_MS + count * STEP_MS
    for number in range(200):
        trade = Trades(number).plain(1)[0]
        yield encoded(
            trade | {"event_time": newest - draw.randrange(7 * MINUTE_MS, 9 * MINUTE_MS), "trade_id": f"late-{number}"}
        )
