"""Two workers' reads over HTTP, without Kafka: each has half of the partitions, and either answers for all of them."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from streamapp.clock import ManualClock
from streamapp.engine.tables import LivePartition, RunningTable
from streamapp.errors import (
    BadParameterError,
    OwnerUnreachableError,
    QueryError,
    RateLimitedError,
    RestoringError,
    StaleError,
    UnknownKeyError,
)
from streamapp.metrics import Metrics
from streamapp.operations.conditions import parse
from streamapp.queries import readings
from streamapp.queries.feed_health import FeedHealth
from streamapp.queries.model import Reading
from streamapp.queries.peers import in_parts
from streamapp.queries.service import QueryService
from streamapp.settings import Settings
from streamapp.state.partition import PartitionState
from streamapp.state.store import MemoryStore
from streamapp.views.application import application
from streamapp.windows.basic import Count
from tests.fakes.crashes import Event, batch, definition

PARTITIONS = 4
T = definition(None, Count()).name
Places = dict[str, dict[str, list[int]]]
KEYS = sorted([*(f"k{number}" for number in range(30)), "a,b", "a/b", "ä"])


class Copies(dict[int, Any]):
    """The copies that a worker keeps, by partition."""

    def find(self, table: str, partition: int) -> Any:
        return self.get(partition)


class Half:
    """One worker: its partitions, its reads and its server."""

    def __init__(self, mine: set[int], owners: Places, copies: Places, clock: ManualClock, **settings: Any) -> None:
        self.settings = Settings(forward_timeout_ms=1_000, **settings)
        self.copies: Any = Copies()
        self.table = RunningTable(definition(None, Count()), "app", PARTITIONS)
        self.engine: Any = SimpleNamespace(
            tables={T: self.table},
            cluster_id="cluster",
            standbys=self.copies,
            lanes={},
            settings=self.settings,
            metrics=Metrics(),
            clock=clock,
            lease=SimpleNamespace(check=lambda: None),
            on_restored=None,
        )
        health = FeedHealth(self.settings, clock=clock)
        self.service = QueryService(self.engine, health, lambda: owners, lambda topic, partition: None, lambda: copies)
        self.offsets = dict.fromkeys(mine, 0)
        for partition in mine:
            state = PartitionState(self.table.definition, partition, MemoryStore())
            self.table.live[partition] = LivePartition(self.table, partition, state.store, state)
        self.runner: web.AppRunner | None = None
        self.owners = owners
        self.known_copies: Places = {}

    def count(self, key: str) -> None:
        partition = self.table.partition_of(key)
        if partition in self.offsets:
            live = self.table.live[partition]
            assert live.state is not None
            live.state.apply(batch([Event(key, 5)], first=self.offsets[partition], origin=0, source=0))
            self.offsets[partition] += 1

    async def start(self) -> str:
        app = application(self.service, self.settings, clock=self.engine.clock)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        await self.service.start(url)
        return url

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None
        await self.service.stop()

    def forwarded(self) -> float:
        return sum(
            sample.value
            for family in self.engine.metrics.forwarded.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        )


@pytest.fixture
async def halves() -> AsyncIterator[tuple[Half, Half]]:
    async with pair() as both:
        yield both


@asynccontextmanager
async def pair(**settings: Any) -> AsyncIterator[tuple[Half, Half]]:
    owners: Places = {}
    copies: Places = {}
    clock = ManualClock(1_000_000)
    first, second = (Half(mine, owners, copies, clock, **settings) for mine in ({0, 2}, {1, 3}))
    topic = first.table.input_topics[0]
    for half in (first, second):
        owners[await half.start()] = {topic: sorted(half.offsets)}
    for key in KEYS:
        for half in (first, second):
            half.count(key)
    first.known_copies = copies
    yield first, second
    for half in (first, second):
        await half.stop()


def of(half: Half) -> list[str]:
    return [key for key in KEYS if half.table.partition_of(key) in half.offsets]


async def test_either_worker_reads_every_key_with_at_most_one_hop(halves: tuple[Half, Half]) -> None:
    for half in halves:
        for key in KEYS:
            before = half.forwarded()
            assert (await half.service.get(T, key)).value == {"count": 1}
            assert half.forwarded() - before == (0 if key in of(half) else 1)
            point = half.service.point(T, key)
            assert (point is not None) == (key in of(half))
        with pytest.raises(UnknownKeyError):
            await half.service.get(T, "nobody")


async def test_several_keys_cost_one_request_per_other_worker(halves: tuple[Half, Half]) -> None:
    first, second = halves
    before = first.forwarded()
    asked = [*KEYS[::-1], "nobody", KEYS[0]]
    found = await first.service.values(T, asked)
    assert first.forwarded() - before == 1
    assert [one.key if not isinstance(one, Exception) else type(one) for one in found] == [
        UnknownKeyError if key == "nobody" else key for key in asked
    ]
    await second.stop()
    gone = await first.service.values(T, KEYS)
    assert [isinstance(one, OwnerUnreachableError) for one in gone] == [key in of(second) for key in KEYS]


async def test_gathers_cover_all_and_name_what_is_missing(halves: tuple[Half, Half]) -> None:
    first, second = halves
    for half in halves:
        keys = await half.service.keys(T, limit=100)
        top = await half.service.top(T, by="count", limit=100)
        assert list(keys.items) == KEYS
        assert sorted(item.key for item in top.items) == KEYS
        assert not keys.missing_partitions
        assert not top.missing_partitions
    # one partition of either is being restored
    lost = {1, 2}
    for half in halves:
        for partition in lost & set(half.table.live):
            half.table.live[partition].state = None
    left = [key for key in KEYS if first.table.partition_of(key) not in lost]
    for half in halves:
        keys = await half.service.keys(T, limit=100)
        top = await half.service.top(T, by="count", limit=100)
        assert list(keys.items) == left
        assert sorted(item.key for item in top.items) == left
        assert sorted(keys.missing_partitions) == sorted(top.missing_partitions) == sorted(lost)
    await second.stop()
    keys = await first.service.keys(T, limit=100)
    assert sorted(keys.missing_partitions) == [1, 2, 3]
    # what has nothing to show says why
    first.table.live[0].state = None
    with pytest.raises(RestoringError):
        await first.service.keys(T, limit=100, local_only=True)


async def test_changes_of_all_workers_come_as_one_stream(halves: tuple[Half, Half]) -> None:
    first, second = halves
    seen: dict[str, int] = {}
    async with asyncio.timeout(30), first.service.changes(T) as changes:
        async for change in changes:
            seen[change.reading.key] = change.reading.value["count"]
            if seen == dict.fromkeys(KEYS, 1):
                for key in KEYS:
                    first.count(key)
                    second.count(key)
            if seen == dict.fromkeys(KEYS, 2):
                break
    key = of(second)[0]
    async with asyncio.timeout(30), first.service.changes(T, key) as changes:
        change = await anext(changes)
        assert (change.kind, change.reading.key, change.reading.value) == ("snapshot", key, {"count": 2})


async def take(changes: Any, seen: dict[str, int], wanted: dict[str, int]) -> tuple[list[str], list[str]]:
    """The kinds of the changes until these counts were told, and every id on the way."""
    kinds, ids = [], []
    async with asyncio.timeout(30):
        async for change in changes:
            seen[change.reading.key] = change.reading.value["count"]
            kinds.append(change.kind)
            ids.append(change.id)
            if seen == wanted:
                return kinds, ids
    raise AssertionError(seen)


async def test_changes_are_filtered_here_and_on_the_other_worker(halves: tuple[Half, Half]) -> None:
    first, _ = halves
    wanted = [key for key in KEYS if key.startswith("k1")]
    assert {key in of(first) for key in wanted} == {True, False}
    condition = parse("count >= 2", first.service.table(T).fields)
    async with first.service.changes(T, prefix="k1", condition=condition) as changes:
        for half in halves:
            for key in KEYS:
                half.count(key)
        kinds, _ = await take(changes, {}, dict.fromkeys(wanted, 2))
    assert len(kinds) == len(wanted), "nothing else was told, and nothing twice"


async def test_stream_over_both_workers_is_resumed_over_http_at_either(halves: tuple[Half, Half]) -> None:
    first, second = halves
    seen: dict[str, int] = {}
    async with followed(first) as (events, _):
        await events_until(events, seen, dict.fromkeys(KEYS, 1))
        await asyncio.sleep(0.1)
        first.count(of(first)[0])
        second.count(of(second)[0])
        kinds, identity = await events_until(
            events, seen, {**dict.fromkeys(KEYS, 1), of(first)[0]: 2, of(second)[0]: 2}
        )
    changed = {of(first)[1]: 2, of(second)[1]: 2}
    for half in halves:
        for key in changed:
            half.count(key)
    for half in halves:
        again = dict(seen)
        async with followed(half, identity) as (events, _):
            kinds, _ = await events_until(events, again, {**seen, **changed})
        assert set(kinds) == {"change"}
        assert len(kinds) <= 4, "what was told is told again at most where its id was still on its way"
    async with followed(first, "nonsense") as (events, resumed):
        kinds, _ = await events_until(events, {}, {**seen, **changed}, resumed)
    assert set(kinds) == {"snapshot"}
    assert resumed == {"unknown_id"}


@asynccontextmanager
async def followed(half: Half, identity: str | None = None) -> AsyncIterator[tuple[Any, set[str]]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{half.service._owners.own_url}/v1/tables/{T}/changes",
            headers={"Last-Event-ID": identity} if identity else {},
        ) as response,
    ):
        assert response.status == 200
        yield response.content, set()


async def events_until(
    content: Any, seen: dict[str, int], wanted: dict[str, int], resumed: set[str] | None = None
) -> tuple[list[str], str]:
    """The kinds of the events until these counts were told, and the last id after them."""
    kinds: list[str] = []
    kind, identity = "", ""
    async with asyncio.timeout(30):
        while seen != wanted or not identity:
            name, _, value = (await content.readline()).decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                identity = value
            elif name == "data":
                body = json.loads(value)
                seen[body["key"]] = body["value"]["count"]
                kinds.append(kind)
                if resumed is not None and "resumed" in body:
                    resumed.add(body["resumed"])
    return kinds, identity


async def test_changes_cost_a_table_nothing_while_nobody_listens(halves: tuple[Half, Half]) -> None:
    first, _ = halves
    states = [live.state for live in first.table.live.values()]
    first.service._subscribers.watch(first.table)
    assert [state.on_change for state in states if state] == [None, None]
    async with first.service.changes(T, local_only=True):
        assert all(state.on_change for state in states if state)
    assert [state.on_change for state in states if state] == [None, None]


async def test_stream_ends_where_a_part_of_it_breaks_off(halves: tuple[Half, Half]) -> None:
    first, second = halves
    async with asyncio.timeout(30), first.service.changes(T) as changes:
        await anext(changes)
        await second.stop()
        with pytest.raises((OwnerUnreachableError, RestoringError)):
            async for _ in changes:
                pass
    with pytest.raises(OwnerUnreachableError):
        async with first.service.changes(T):
            pass


async def test_quiet_subscription_notices_that_partitions_have_moved(halves: tuple[Half, Half]) -> None:
    first, _ = halves
    async with asyncio.timeout(30), first.service.changes(T, local_only=True) as changes:
        await anext(changes)
        del first.table.live[2]
        with pytest.raises(RestoringError):
            async for _ in changes:
                pass


async def test_copy_answers_marked_as_stale_while_the_owner_is_gone(halves: tuple[Half, Half]) -> None:
    first, second = halves
    theirs = of(second)
    partition = second.table.partition_of(theirs[0])
    copied = SimpleNamespace(snapshot=lambda live=second.table.live[partition]: live, caught_up_ms=999_000)
    await second.stop()

    # here
    first.copies[partition] = copied
    reading = await first.service.get(T, theirs[0])
    assert (reading.value, reading.freshness.stale, reading.freshness.staleness_ms) == ({"count": 1}, True, 1_000)
    with pytest.raises(StaleError):
        await first.service.get(T, theirs[0], max_staleness_ms=500)
    found = await first.service.values(T, KEYS)
    for key, one in zip(KEYS, found, strict=True):
        if first.table.partition_of(key) == partition:
            assert isinstance(one, Reading)
            assert one.freshness.stale is True
    del first.copies[partition]
    with pytest.raises(OwnerUnreachableError):
        await first.service.get(T, theirs[0])

    # on a third worker
    owners = first.owners
    third = Half(set(), dict(owners), {}, first.engine.clock)
    third.copies[partition] = copied
    first.known_copies[await third.start()] = {first.table.input_topics[0]: [partition]}
    try:
        reading = await first.service.get(T, theirs[0])
        assert (reading.value, reading.freshness.stale) == ({"count": 1}, True)
    finally:
        await third.stop()


async def test_forwarded_read_travels_no_further(halves: tuple[Half, Half]) -> None:
    first, second = halves
    theirs = of(second)[0]
    for read in (
        first.service.get(T, theirs, local_only=True),
        first.service.windows(T, theirs, local_only=True),
    ):
        with pytest.raises(Exception, match=r"not here|no windows"):
            await read
    (one,) = await first.service.values(T, [theirs], local_only=True)
    assert isinstance(one, OwnerUnreachableError)
    with pytest.raises(OwnerUnreachableError):
        async with first.service.changes(T, theirs, local_only=True):
            pass
    assert first.forwarded() == 0


def test_lists_of_keys_fit_into_a_path() -> None:
    keys = [f"key-{number}" for number in range(2_000)]
    parts = in_parts(keys, 1_000)
    assert [key for part in parts for key in part] == keys
    assert all(len("%2C".join(part)) < 5_000 for part in parts)
    assert in_parts(["k" * 5_000, "b"], 1_000) == [["k" * 5_000], ["b"]]
    assert in_parts(["a", "b", "c", "d", "e"], 2) == [["a", "b"], ["c", "d"], ["e"]]  # as many as the other one takes


async def test_key_is_followed_while_another_partition_is_restored(halves: tuple[Half, Half]) -> None:
    first, _ = halves
    key = of(first)[0]
    own = first.table.partition_of(key)
    other = next(partition for partition in first.offsets if partition != own)
    first.table.live[other].state = None
    async with first.service.changes(T, key) as changes:
        assert (await anext(changes)).kind == "snapshot"
        del first.table.live[other]
        first.count(key)
        async with asyncio.timeout(10):
            change = await anext(changes)
    assert (change.kind, change.reading.value) == ("change", {"count": 2})


async def test_only_the_first_unknown_keys_are_told_what_looks_like_them(halves: tuple[Half, Half]) -> None:
    first, second = halves
    await second.stop()
    unknown = [key for key in (f"k{number}x" for number in range(99)) if first.table.partition_of(key) in first.offsets]
    problems = await first.service.values(T, [*of(first), *unknown])
    nearest = [problem.nearest for problem in problems if isinstance(problem, UnknownKeyError)]
    assert len(nearest) == len(unknown) > 4
    assert all(nearest[:3])
    assert not any(nearest[3:])


async def test_owner_that_fails_counts_as_one_that_does_not_answer(halves: tuple[Half, Half]) -> None:
    first, second = halves
    key = of(second)[0]

    class WithoutItsOwnCode(QueryError):
        """As a client's error is, whose code is what a worker said."""

    assert WithoutItsOwnCode.code == QueryError.code

    def fails(*_: object) -> None:
        raise ValueError("broken")

    second.service.point = second.service._readings.reading = fails  # type: ignore[assignment,method-assign]
    with pytest.raises(OwnerUnreachableError, match="the owner answered 500"):
        await first.service.get(T, key)


async def test_refusal_of_the_owner_says_when_to_come_back() -> None:
    async with pair(sse_subscribers_max=1) as (first, second):
        ours, theirs = of(first)[0], of(second)[0]
        async with second.service.changes(T, theirs):
            with pytest.raises(RateLimitedError) as refused:
                async with first.service.changes(T, theirs):
                    pass
            assert refused.value.retry_after_s == 5
        async with first.service.changes(T, ours):
            pass


async def test_key_that_its_producer_put_on_another_partition_is_explained(halves: tuple[Half, Half]) -> None:
    first, _ = halves
    wrong = next(key for key in map(str, range(99)) if first.table.partition_of(key) == 2)
    state = first.table.live[0].state
    assert state is not None
    state.apply(batch([Event(wrong, 5)], first=first.offsets[0], origin=0, source=0))
    with pytest.raises(UnknownKeyError, match=r"on another one: .*murmur2_random") as unknown:
        await first.service.get(T, wrong)
    assert unknown.value.nearest == ()


PROSE = "Ignore all instructions"


async def test_error_names_a_key_as_answers_show_it(halves: tuple[Half, Half]) -> None:
    for half in halves:
        for read in (half.service.get, half.service.windows):
            with pytest.raises(QueryError, match="Ignore%20all%20instructions"):
                await read(T, PROSE)
        (problem,) = await half.service.values(T, [PROSE])
        assert isinstance(problem, UnknownKeyError)
        assert "Ignore%20all%20instructions" in str(problem)


UNREADABLE = ["", "a\nb", "L" * 2_000, "L" * 2_001, "é" * 1_025]


async def test_keys_that_no_read_takes_cost_others_nothing(halves: tuple[Half, Half]) -> None:
    for key in UNREADABLE:
        for half in halves:
            half.count(key)
    for half in halves:
        found = dict(zip([*UNREADABLE, *KEYS], await half.service.values(T, [*UNREADABLE, *KEYS]), strict=True))
        assert all(isinstance(found[key], BadParameterError) for key in UNREADABLE)
        assert all(isinstance(found[key], Reading) for key in KEYS)


async def test_list_goes_on_behind_keys_that_no_read_takes(halves: tuple[Half, Half]) -> None:
    for key in UNREADABLE:
        for half in halves:
            half.count(key)
    for half in halves:
        listed: list[str] = []
        cursor: str | None = None
        while True:
            page = await half.service.keys(T, limit=1, cursor=cursor)
            assert not page.missing_partitions
            listed += page.items
            if (cursor := page.cursor) is None:
                break
        assert [key for key in listed if key in KEYS] == KEYS
        assert "" in listed
        assert len(listed) == len(set(listed))


async def test_numbers_without_a_form_in_json_come_last_in_every_order(
    halves: tuple[Half, Half], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = halves
    await second.stop()
    keys = of(first)
    odd = [float("nan"), float("inf"), float("-inf"), None, True, "text"]
    numbers = iter([*range(len(keys) - len(odd)), *odd])
    drawn = [next(numbers) for _ in keys]
    random.Random(7).shuffle(drawn)
    values = dict(zip(keys, drawn, strict=True))

    def field(live: LivePartition, _name: str) -> Any:
        assert live.state is not None
        turn = iter([values[key] for key in live.state.iter_keys("")])
        return lambda _start, _entry: next(turn)

    monkeypatch.setattr(first.service._readings, "field", field)
    for order, sign in (("desc", -1), ("asc", 1)):
        page = await first.service.top(T, by="count", order=order, limit=99)  # type: ignore[arg-type]
        told = [values[item.key] for item in page.items]
        assert told[: -len(odd)] == sorted(range(len(keys) - len(odd)), key=lambda number: sign * number)


async def test_integers_of_any_size_are_read_ranked_and_followed_at_either_worker(
    halves: tuple[Half, Half], monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = 10**400
    monkeypatch.setattr(Count, "result", lambda _self, state, _window: {"count": huge + state[0]})
    monkeypatch.setattr(readings, "reader_of", lambda aggregate, name: lambda *given: aggregate.result(*given)[name])
    for half in halves:
        top = await half.service.top(T, by="count", limit=100)
        assert not top.missing_partitions
        assert [(item.key, item.value) for item in top.items] == [(key, {"count": huge + 1}) for key in KEYS]
        assert [one.value for one in await half.service.values(T, KEYS) if isinstance(one, Reading)] == [
            {"count": huge + 1}
        ] * len(KEYS)
        for key in KEYS[:4]:
            async with asyncio.timeout(10), half.service.changes(T, key) as changes:
                assert (await anext(changes)).reading.value == {"count": huge + 1}


async def test_ranking_goes_on_without_a_partition_that_leaves_meanwhile(
    halves: tuple[Half, Half], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = halves
    gather = first.service._owners.gather

    async def leaving(*given: Any) -> Any:
        gathered = await gather(*given)
        first.table.live.pop(2).state = None
        return gathered

    monkeypatch.setattr(first.service._owners, "gather", leaving)
    page = await first.service.top(T, by="count", limit=100)
    assert list(page.missing_partitions) == [2]
    assert [item.key for item in page.items] == [key for key in KEYS if first.table.partition_of(key) != 2]


async def test_bound_of_pages_leaves_no_worker_out() -> None:
    async with pair(page_limit_max=7) as halves:
        for half in halves:
            top = await half.service.top(T, by="count", limit=100)
            assert not top.missing_partitions
            assert [one.key for one in top.items] == KEYS[:7]
            listed: list[str] = []
            cursor: str | None = None
            while len(listed) < 100:
                page = await half.service.keys(T, limit=100, cursor=cursor)
                assert not page.missing_partitions
                listed += page.items
                if (cursor := page.cursor) is None:
                    break
            assert listed == KEYS
            assert all(isinstance(one, Reading) for one in await half.service.values(T, KEYS))
