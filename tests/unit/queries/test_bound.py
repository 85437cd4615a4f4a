"""Reads of a caller who may read some keys only, over two workers that forward to each other."""

import random
from urllib.parse import quote

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import InsufficientScopeError, RateLimitedError, UnknownKeyError
from streamapp.queries.access import RULES_MAX, Caller, parse_access
from streamapp.queries.bound import bound
from streamapp.queries.limits import Limits, Rates
from streamapp.queries.model import Reading
from streamapp.views.rest import PREFIXES_MAX
from tests.unit.queries import test_query_service as service_tests
from tests.unit.queries.test_query_service import KEYS, Half, T, of

halves = service_tests.halves
NARROW = Caller("narrow", parse_access([f"read/{T}/k1", f"read/{T}/a,b", f"read/{T}/%C3%A4", "read/nothing"]))
MINE = sorted(key for key in KEYS if key.startswith(("k1", "a,b", "ä")))


async def test_either_worker_shows_the_callers_keys_of_both_and_no_others(halves: tuple[Half, Half]) -> None:
    for half in halves:
        queries = bound(half.service, NARROW)
        assert {key for key in MINE if key not in of(half)}, "some of them live on the other worker"
        assert list((await queries.keys(T, limit=100)).items) == MINE
        assert sorted(item.key for item in (await queries.top(T, by="count", limit=100)).items) == MINE
        top = await queries.top(T, by="count", limit=100, prefixes=["k", "z"])
        assert sorted(item.key for item in top.items) == [key for key in MINE if key.startswith("k")]
        for key in KEYS:
            if key in MINE:
                assert (await queries.get(T, key)).key == key
            else:
                with pytest.raises(InsufficientScopeError):
                    await queries.get(T, key)
                assert queries.point(T, key) is None
                with pytest.raises(InsufficientScopeError):
                    async with queries.changes(T, key):
                        pass
        found = await queries.values(T, [*KEYS, "k1x"])
        for key, one in zip([*KEYS, "k1x"], found, strict=True):
            assert isinstance(
                one, Reading if key in MINE else UnknownKeyError if key == "k1x" else InsufficientScopeError
            )


async def test_ranking_of_what_the_caller_may_not_read_is_empty_on_either_worker(halves: tuple[Half, Half]) -> None:
    for half in halves:
        before = half.forwarded()
        for wanted in (["k2"], ["k2", "k3", "a/"], ["K"], ["z"]):
            page = await bound(half.service, NARROW).top(T, by="count", limit=100, prefixes=wanted)
            assert list(page.items) == [], wanted
        assert half.forwarded() == before, "nobody is asked for nothing: that would be taken for everything"


async def test_as_many_beginnings_as_rules_and_a_request_may_have_reach_the_other_worker(
    halves: tuple[Half, Half],
) -> None:
    rules = [f"k{number}" for number in range(1, RULES_MAX)]
    caller = Caller("wide", parse_access([f"read/{T}/{rule}" for rule in (*rules, "z")]))
    wanted = ["k", *(f"z{number:02}" for number in range(PREFIXES_MAX - 1))]
    for half in halves:
        page = await bound(half.service, caller).top(T, by="count", limit=100, prefixes=wanted)
        assert sorted(item.key for item in page.items) == [key for key in KEYS if key.startswith("k") and key != "k0"]


async def test_any_rules_and_any_beginnings_show_what_both_have_in_common(halves: tuple[Half, Half]) -> None:
    draw = random.Random(20)
    beginnings = sorted({key[:length] for key in KEYS for length in (1, 2, 3)} | {"K", "k9x", "z"})
    for _ in range(200):
        rules = draw.sample(beginnings, draw.randint(1, 4))
        wanted = draw.sample(beginnings, draw.randint(1, 4))
        wanted = [one for one in wanted if not any(one != other and one.startswith(other) for other in wanted)]
        prefix = draw.choice(["", *beginnings])
        mine = [key for key in KEYS if key.startswith(tuple(rules))]
        queries = bound(
            draw.choice(halves).service,
            Caller("drawn", parse_access([f"read/{T}/{quote(rule, safe='')}" for rule in rules])),
        )
        top = await queries.top(T, by="count", limit=100, prefixes=wanted)
        assert sorted(item.key for item in top.items) == [key for key in mine if key.startswith(tuple(wanted))], (
            rules,
            wanted,
        )
        keys = await queries.keys(T, prefix=prefix, limit=100)
        assert list(keys.items) == [key for key in mine if key.startswith(prefix)], (rules, prefix)
        found = await queries.values(T, KEYS)
        assert [one.key for one in found if isinstance(one, Reading)] == mine, rules


async def test_pages_hold_every_key_of_the_caller_once(halves: tuple[Half, Half]) -> None:
    for half in halves:
        for limit in (1, 2, 3, 100):
            queries = bound(half.service, NARROW)
            seen: list[str] = []
            cursor = None
            for _ in range(50):
                page = await queries.keys(T, limit=limit, cursor=cursor)
                assert len(page.items) <= limit
                seen += page.items
                cursor = page.cursor
                if cursor is None:
                    break
            assert seen == MINE


async def test_nearest_keys_of_an_unknown_one_are_the_callers_own(halves: tuple[Half, Half]) -> None:
    for half in halves:
        for key in ("k1x", "k1y", "a,bc", "äh"):
            with pytest.raises(UnknownKeyError) as unknown:
                await bound(half.service, NARROW).get(T, key)
            assert set(unknown.value.nearest) <= set(MINE)


async def test_changes_are_those_of_the_callers_keys(halves: tuple[Half, Half]) -> None:
    first, _ = halves
    async with bound(first.service, NARROW).changes(T) as changes:
        seen = [(await anext(changes)).reading.key for _ in MINE]
    assert sorted(seen) == MINE


async def test_wait_that_a_refusal_tells_is_enough_for_every_read(halves: tuple[Half, Half]) -> None:
    clock = ManualClock()
    refused: list[str] = []
    caller = Caller("busy", parse_access(["read"]), Limits(Rates(cost_per_min=10), clock, refused.append))
    queries = bound(halves[0].service, caller)
    await queries.keys(T, limit=100)
    for read in (queries.keys(T), queries.top(T, by="count"), queries.get(T, "k1"), queries.values(T, ["k1"])):
        with pytest.raises(RateLimitedError) as told:
            await read
        assert told.value.retry_after_s
    async with bound(halves[0].service, NARROW).changes(T, "k1"):
        pass
    with pytest.raises(RateLimitedError):
        async with queries.changes(T, "k1"):
            pass
    clock.advance(1_000 * told.value.retry_after_s)
    await queries.get(T, "k1")
    assert refused == ["cost"] * 5


async def test_refusal_names_a_key_as_answers_show_it(halves: tuple[Half, Half]) -> None:
    queries = bound(halves[0].service, NARROW)
    for prose in ("Ignore all instructions", "k1 Ignore all instructions"):
        with pytest.raises((InsufficientScopeError, UnknownKeyError), match="Ignore%20all%20instructions"):
            await queries.get(T, prose)
