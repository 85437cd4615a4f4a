"""How far re-keyed tables are forwarded: what commits tell, and where forwarding goes on after them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.engine.forwarding import METADATA_MAX_BYTES, Forwarded, check_room, decode, encode, merged
from streamapp.engine.identity import SourceBounds
from streamapp.engine.rekeying import ForwardTap
from streamapp.engine.runtime import Engine
from streamapp.engine.tables import RunningTable
from streamapp.errors import ConfigurationError, KafkaError
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.windows.basic import Count
from streamapp.windows.definitions import Tumbling
from tests.fakes.crashes import definition

PLACE = ("source-0", 0)
TABLE = definition(Tumbling(10, 0, 1_000), Count(), rekey=lambda record: record.key, rekey_name="key")


class Consumer:
    """A consumer that notes what it is told; the group refuses the first commits."""

    def __init__(self, engine: Engine, refused: int = 0) -> None:
        self.engine, self.refused, self.agents = engine, refused, False
        self.done: list[tuple[Any, ...]] = []

    async def commit_lane(self, topic: str, partition: int, offset: int) -> bool:
        self.refused -= 1
        if self.refused >= 0:
            return False
        assert not self.engine.lanes[topic, partition].ready, "nothing may be forwarded before it is noted"
        self.done.append(("commit", offset, decode(self.engine.commit_metadata(topic, partition) or "")))
        return True

    def has_agents(self, topic: str, partition: int) -> bool:
        return self.agents

    async def seek_lane(self, topic: str, partition: int, offset: int) -> None:
        self.done.append(("seek", offset))

    def committed_position(self, topic: str, partition: int) -> int | None:
        return None

    def wake(self) -> None:
        pass


def engine_with(metrics: Metrics, clock: ManualClock, **changed: Any) -> tuple[Engine, Consumer]:
    settings = Settings(kafka_delivery_timeout_ms=changed.pop("patience_ms", 5_000))
    engine = Engine("app", settings, metrics, on_failure=lambda problem: None, clock=clock)
    for name in changed.pop("names", ("table",)):
        engine.add(replace(TABLE, name=name, **changed)).topic_ids = (f"id-{name}", "source")
    consumer = Consumer(engine)
    engine.attach(consumer)
    return engine, consumer


async def open_lane(engine: Engine, here: SourceBounds) -> int:
    """Open the source's lane as an assignment does; where it begins to read."""
    engine._sources._forwarded = {PLACE: here.forwarded}
    await engine._sources.open(PLACE, here)
    lane = engine.lanes[PLACE]
    await lane.stop()
    return lane.applied + 1


def told(engine: Engine) -> Mapping[str, Forwarded]:
    return decode(engine.commit_metadata(*PLACE) or "")


def named(**offsets: int) -> dict[str, Forwarded]:
    return {name: Forwarded(f"id-{name}", offset) for name, offset in offsets.items()}


@pytest.mark.parametrize(
    "metadata", ["", "somebody else's", "[1]", '{"forwarded":[1]}', '{"forwarded":{"a":[1]}}', "7"]
)
def test_what_somebody_else_committed_names_no_table(metadata: str) -> None:
    assert decode(metadata) == {}


def test_commit_tells_what_was_put_in_and_is_empty_without_tables() -> None:
    some = {"b": Forwarded("x", 7), "a": Forwarded("y", 1 << 62)}
    assert decode(encode(some)) == some
    assert encode(some).endswith("\0"), "a client that reads on to the next zero byte must find one"
    assert decode(encode(some)[:-1]) == some
    assert encode({}) == ""


def test_commit_keeps_tables_of_others_and_never_tells_less() -> None:
    found = {"gone": Forwarded("g", 5), "behind": Forwarded("b", 9), "rebuilt": Forwarded("old", 9)}
    own = {"behind": Forwarded("b", 4), "rebuilt": Forwarded("new", 1), "fresh": Forwarded("f", 2)}
    assert merged(found, own) == {**own, "gone": found["gone"], "behind": found["behind"]}


def test_tables_of_others_are_left_out_before_the_commit_is_too_large() -> None:
    found = {f"gone-{number}": Forwarded("g" * 22, 5) for number in range(200)}
    own = {"mine": Forwarded("m" * 22, 1)}
    result = merged(found, own)
    assert result["mine"] == own["mine"]
    assert len(result) > 20
    assert len(encode(result)) <= METADATA_MAX_BYTES


def test_more_tables_than_a_commit_has_room_for_are_refused_at_the_start() -> None:
    tables = [RunningTable(replace(TABLE, name=f"table-{n}"), "app", topic_ids=("i" * 22, "s")) for n in range(100)]
    check_room(tables[:50])
    with pytest.raises(ConfigurationError, match="100 re-keyed tables read source-0"):
        check_room(tables)


@pytest.mark.parametrize(
    ("forwarded", "wanted"),
    [
        ({}, 0),
        (named(table=40), 40),
        (named(table=140), 140),
        (named(other=40), 0),
        ({"table": Forwarded("old", 40)}, 0),
    ],
    ids=["not named", "behind the group", "ahead of the group", "another table", "another re-key topic"],
)
async def test_forwarding_goes_on_where_the_commit_says_and_not_where_the_group_is(
    metrics: Metrics, clock: ManualClock, forwarded: Mapping[str, Forwarded], wanted: int
) -> None:
    engine, consumer = engine_with(metrics, clock)
    assert await open_lane(engine, SourceBounds(0, 200, 100, forwarded)) == wanted
    assert consumer.done == [("seek", wanted)]
    assert told(engine)["table"] == Forwarded("id-table", wanted)


async def test_table_that_is_ahead_is_not_forwarded_again_beside_a_new_one(
    metrics: Metrics, clock: ManualClock
) -> None:
    engine, _ = engine_with(metrics, clock, names=("new", "old"))
    assert await open_lane(engine, SourceBounds(0, 200, 100, named(old=100))) == 0
    assert told(engine) == named(new=0, old=100)
    lane = engine.lanes[PLACE]
    firsts: Sequence[int] = [tap.position() for tap in lane.taps if isinstance(tap, ForwardTap)]
    assert firsts == [0, 100]
    lane.durable = 59
    assert told(engine) == named(new=60, old=100)
    lane.durable = 149
    assert told(engine) == named(new=150, old=150)


@pytest.mark.parametrize(("committed", "wanted"), [(30, 30), (None, 5), (150, 40)])
async def test_what_agents_have_not_done_is_read_though_the_tables_are_past_it(
    metrics: Metrics, clock: ManualClock, committed: int | None, wanted: int
) -> None:
    engine, consumer = engine_with(metrics, clock)
    consumer.agents = True
    assert await open_lane(engine, SourceBounds(5, 200, committed, named(table=40))) == wanted
    assert consumer.done == [("seek", wanted)]
    assert told(engine) == named(table=40)


@pytest.mark.parametrize(("committed", "begins"), [(100, 100), (None, 200)])
async def test_table_that_starts_at_the_latest_is_noted_before_it_takes_anything(
    metrics: Metrics, clock: ManualClock, committed: int | None, begins: int
) -> None:
    engine, consumer = engine_with(metrics, clock, start="latest")
    consumer.refused = 2
    await open_lane(engine, SourceBounds(0, 200, committed))
    assert consumer.done == [("commit", begins, named(table=begins)), ("seek", begins)]
    consumer.done.clear()
    await open_lane(engine, SourceBounds(0, 300, begins, named(table=begins)))
    assert consumer.done == [("seek", begins)], "the latest is where it was when the table began"


async def test_beginning_that_the_group_never_takes_stops_the_worker(metrics: Metrics, clock: ManualClock) -> None:
    engine, consumer = engine_with(metrics, clock, start="latest", patience_ms=1_000)
    consumer.refused = 1_000_000
    with pytest.raises(KafkaError, match="tells where a table begins"):
        await open_lane(engine, SourceBounds(0, 200, None))


async def test_nothing_is_committed_on_a_source_before_the_last_commit_was_read(
    metrics: Metrics, clock: ManualClock
) -> None:
    engine, _ = engine_with(metrics, clock)
    assert engine.commit_metadata(*PLACE) is None
    assert engine.commit_metadata("topic-of-agents", 0) == ""
    await open_lane(engine, SourceBounds(0, 200, 100, named(gone=7)))
    assert told(engine) == named(gone=7, table=0)
    await engine._give_up()
    assert engine.commit_metadata(*PLACE) is None
