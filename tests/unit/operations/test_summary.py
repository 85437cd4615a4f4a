"""Summaries: within their budget by real tokenizers, the most important first, the same every time."""

import json
import random
import warnings
from collections import deque
from typing import Any

import pytest

from streamapp.clock import ManualClock
from streamapp.errors import BadParameterError, OwnerUnreachableError, StaleError, UnknownKeyError
from streamapp.operations.cursors import CursorBook
from streamapp.operations.tokens import ESTIMATE, TokenCounter, estimate, load_counter
from streamapp.queries.model import FeedInfo, FieldInfo, TableInfo
from tests.fakes.queries import FakeQueries, builtin_tables, candle, latest
from tests.unit.operations.conftest import BTC, START, Asked, asked

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its own, of importlib.resources
    import bpe_openai

BUDGETS = (200, 800, 4_000)
INSTRUMENTS = 500
REAL = {name: bpe_openai.get_encoding(name) for name in ("cl100k_base", "o200k_base")}


def real_counter(name: str) -> TokenCounter:
    return TokenCounter(name, lambda text: len(REAL[name].encode(text)))


def market(seed: int) -> tuple[FakeQueries, list[str]]:
    """500 instruments of odd names, prices over twelve orders of magnitude; the keys in order of their moves."""
    draw = random.Random(seed)
    fake = FakeQueries(clock=ManualClock(START + 21_234))
    moves = {}
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    while len(moves) < INSTRUMENTS:
        base = ("1000" if draw.random() < 0.05 else "") + "".join(draw.choices(letters, k=draw.randint(2, 6)))
        key = f"{draw.choice(['coinbase', 'binance', 'kraken'])}:{base}-{draw.choice(['USD', 'USDT', 'EUR'])}"
        price = 10 ** draw.uniform(-6, 6)
        move = draw.gauss(0, 0.03)
        moves[key] = abs(move)
        value = {**candle(price), "open": price, "close": price * (1 + move)}
        fake.put("candles_1m", key, value, start=START)
        fake.put("latest", key, latest(price * (1 + move)))
        if draw.random() < 0.2:
            anomaly = {"kind": "volume_spike", "z": draw.uniform(3, 20), "value": 1.0, "mean": 0.0, "stddev": 1.0}
            fake.put("signals", key, {**anomaly, "window_start": START})
    down = FeedInfo("kraken", False, "disconnected", "", None, 3)
    fake.feed_infos = [down, FeedInfo("coinbase", True, "connected", "", 1, 0)]
    return fake, sorted(moves, key=lambda key: -moves[key])


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("tokenizer", REAL)
@pytest.mark.parametrize("counted_with", ["estimate", "the tokenizer"])
async def test_summary_of_500_instruments_never_exceeds_its_budget(
    style: str, tokenizer: str, counted_with: str
) -> None:
    counter = ESTIMATE if counted_with == "estimate" else real_counter(tokenizer)
    for seed in range(3):
        fake, by_move = market(seed)
        ask = asked(fake, counter)
        for budget in BUDGETS:
            answer = await ask("summarize_state", budget_tokens=budget, style=style)
            used = real_counter(tokenizer).count(answer["summary"])
            assert used <= budget
            assert answer["tokens"] <= budget
            for key in by_move[:5]:
                assert key in answer["summary"], f"the largest moves are told within {budget} tokens"
            assert answer["left_out"]["lines"] > 0
            assert "left" in answer["summary"]


async def test_largest_budget_tells_more_and_uses_most_of_it() -> None:
    fake, _ = market(7)
    ask = asked(fake, real_counter("o200k_base"))
    used = [(await ask("summarize_state", budget_tokens=budget))["tokens"] for budget in BUDGETS]
    assert used == sorted(used)
    assert used[1] > 0.9 * BUDGETS[1]
    assert used[2] > 0.9 * BUDGETS[2]


async def test_same_state_gives_the_same_text() -> None:
    texts = set()
    for _ in range(2):
        fake, _ = market(3)
        answer = await asked(fake)("summarize_state", budget_tokens=800)
        texts.add(answer["summary"])
    assert len(texts) == 1


async def test_small_state_is_told_whole() -> None:
    fake = FakeQueries(clock=ManualClock(START))
    fake.put("latest", "x:A-B", latest(5.0))
    answer = await asked(fake)("summarize_state")
    assert "x:A-B 5" in answer["summary"]
    assert "left out: nothing" in answer["summary"]


async def test_feeds_down_gaps_and_staleness_are_told_before_levels() -> None:
    fake, _ = market(1)
    fake.staleness_ms = 60_000
    answer = await asked(fake)("summarize_state", budget_tokens=400)
    lines = answer["summary"].splitlines()
    assert "feeds down: kraken" in lines[0]
    assert "behind 60000 ms" in lines[0]
    assert any("60 s behind" in line for line in lines)
    assert "levels:" not in lines


async def test_delta_tells_only_what_changed() -> None:
    fake, by_move = market(2)
    ask = asked(fake)
    first = await ask("summarize_state", budget_tokens=4_000)
    nothing = await ask("summarize_state", budget_tokens=4_000, cursor=first["cursor"])
    assert nothing["delta"] is True
    assert not any(key in nothing["summary"] for key in by_move)
    assert nothing["tokens"] < 120
    key = by_move[-1]
    price = (await fake.get("latest", key)).value["price"]
    fake.put("latest", key, latest(price * 1.1))
    changed = await ask("summarize_state", budget_tokens=4_000, cursor=nothing["cursor"])
    assert "moves since:" in changed["summary"]
    assert f"{key} +10.0% " in changed["summary"]
    assert sum(one in changed["summary"] for one in by_move) == 1
    again = await ask("summarize_state", budget_tokens=4_000, cursor=changed["cursor"])
    assert key not in again["summary"]


async def test_cursor_of_another_worker_tells_too_much_rather_than_too_little() -> None:
    fake, by_move = market(2)
    cursor = (await asked(fake)("summarize_state"))["cursor"]
    fake.clock.advance(600_000)  # type: ignore[attr-defined]
    fake.put("latest", by_move[0], latest(5.0))
    elsewhere = await asked(fake)("summarize_state", cursor=cursor)
    assert elsewhere["delta"] is False
    assert by_move[0] in elsewhere["summary"]
    assert "cursor is not known here" in elsewhere["left_out"]["note"]


async def test_replay_is_told_to_a_reader_with_the_cursor_of_another_worker() -> None:
    fake = FakeQueries(clock=ManualClock(START))
    fake.put("latest", "x:A-B", latest(100.0), event_time=START - 3_600_000)
    cursor = (await asked(fake)("summarize_state"))["cursor"]
    fake.put("latest", "x:A-B", latest(200.0), event_time=START - 3_500_000)
    assert "x:A-B 200" in (await asked(fake)("summarize_state", cursor=cursor))["summary"]


async def test_changes_that_did_not_fit_are_told_next() -> None:
    fake = FakeQueries(clock=ManualClock(START))
    keys = [f"x:K{number:02}-USD" for number in range(40)]
    for key in keys:
        fake.put("latest", key, latest(100.0))
    ask = asked(fake)
    cursor = (await ask("summarize_state", budget_tokens=100))["cursor"]
    fake.feed_infos = [FeedInfo("x", True, "connected", "", START, 3)]
    for number, key in enumerate(keys):
        fake.put("latest", key, latest(150.0 - number))
    gone, moves = [], []
    for _ in range(60):
        answer = await ask("summarize_state", budget_tokens=150, cursor=cursor)
        cursor = answer["cursor"]
        lines = answer["summary"].splitlines()
        moves += [line.split()[0] for line in lines if line.startswith("x:") and "%" in line]
        gone += [line.split()[0] for line in lines if line.endswith(" 3 gaps")]
        if answer["left_out"]["lines"] == 0:
            break
    assert sorted(set(moves)) == keys
    assert moves[:3] == keys[:3]
    assert sorted(set(gone)) == keys
    last = await ask("summarize_state", cursor=cursor)
    assert not any(key in last["summary"] for key in keys)


async def test_count_is_no_move() -> None:
    info = TableInfo("trades_n", "tumbling", (FieldInfo("n", "integer"),), "k", 4, size_ms=60_000)
    fake = FakeQueries([info, *builtin_tables()], clock=ManualClock(START))
    ask = asked(fake)
    fake.put("trades_n", "x:A-B", {"n": 10}, start=START)
    fake.put("latest", "x:A-B", latest(100.0))
    cursor = (await ask("summarize_state"))["cursor"]
    fake.put("trades_n", "x:A-B", {"n": 500}, start=START)
    fake.put("latest", "x:A-B", latest(80.0))
    told = (await ask("summarize_state", cursor=cursor))["summary"]
    assert "x:A-B -20.0% 80" in told
    assert "x:A-B trades_n.n 500" in told


async def test_unknown_and_silent_keys_are_told(queries: FakeQueries, ask: Asked) -> None:
    answer = await ask("summarize_state", keys=[BTC, "x:TYPO"])
    assert "unknown keys: x:TYPO" in answer["summary"]
    with pytest.raises(UnknownKeyError) as unknown:
        await ask("summarize_state", keys=["coinbase:BTC-US"])
    assert BTC in unknown.value.nearest
    queries.unreachable = {queries.partition("x:OTHES")}
    queries.put("latest", "x:OTHES", latest(1.0))
    assert queries.partition(BTC) not in queries.unreachable
    assert "1 keys did not answer" in (await ask("summarize_state", keys=[BTC, "x:OTHES"]))["summary"]
    queries.unreachable = {queries.partition(BTC)}
    with pytest.raises(OwnerUnreachableError):
        await ask("summarize_state", keys=[BTC], max_staleness_ms=5)
    with pytest.raises(StaleError, match="nothing could be read"):
        await asked(FakeQueries())("summarize_state", max_staleness_ms=5)


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("name", ["exchange-{}-frankfurt-a", "{}" + "v" * 120, "биржа-№{}-московская"])
async def test_head_keeps_to_the_least_budget(queries: FakeQueries, ask: Asked, name: str, style: str) -> None:
    queries.feed_infos = [FeedInfo(name.format(number), False, "gap", "", START, 0) for number in range(9)]
    queries.unreachable = {3}
    for number in range(50):
        queries.put("latest", f"x:K{number}", latest(1.0))
    cursor = None
    for _ in range(2):
        answer = await ask("summarize_state", budget_tokens=100, style=style, cursor=cursor)
        assert answer["tokens"] <= 100
        assert answer["tokens"] == estimate(answer["summary"])
        assert "partitions without an answer" in answer["left_out"]["note"]
        assert "9" in answer["summary"] or "8" in answer["summary"], "how many feeds are down is always told"
        cursor = answer["cursor"]


async def test_nonsense_cursor_is_refused() -> None:
    with pytest.raises(BadParameterError, match="cursor"):
        await asked(FakeQueries())("summarize_state", cursor="!!")


async def test_stale_state_is_refused() -> None:
    fake, _ = market(1)
    with pytest.raises(StaleError):
        await asked(fake)("summarize_state", max_staleness_ms=1)


async def test_keys_and_tables_narrow_it() -> None:
    fake, by_move = market(4)
    answer = await asked(fake)("summarize_state", tables=["latest"], keys=by_move[:2], style="json")
    content = json.loads(answer["summary"])
    assert content["levels"].keys() == set(by_move[:2])
    assert not any(name.startswith("moves") for name in content)


@pytest.mark.parametrize(
    ("bounds", "delta"), [({}, True), ({"summary_cursors_max": 2}, False), ({"summary_values_max": 9}, False)]
)
async def test_cursors_are_remembered_within_the_settings(
    queries: FakeQueries, bounds: dict[str, int], delta: bool
) -> None:
    ask = asked(queries, **bounds)
    cursor = (await ask("summarize_state"))["cursor"]
    for _ in range(100):
        await ask("summarize_state")
    assert (await ask("summarize_state", cursor=cursor))["delta"] is delta


def test_book_forgets_the_oldest() -> None:
    book = CursorBook(cursors_max=2)
    cursors = [book.new_cursor(1_790_000_000_000 + number) for number in range(3)]
    for cursor in cursors:
        book.keep(cursor, {})
    assert [book.find(cursor) is None for cursor in cursors] == [True, False, False]


@pytest.mark.parametrize("tokenizer", REAL)
def test_estimate_is_above_real_tokenizers(tokenizer: str) -> None:
    draw = random.Random(5)
    for _ in range(200):
        symbols = ["".join(draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=draw.randint(2, 6))) for _ in range(8)]
        lines = [f"coinbase:{one}-USD {draw.gauss(0, 5):+.2f}% 1m {10 ** draw.uniform(-6, 6):.6g}" for one in symbols]
        text = "\n".join(lines)
        assert estimate(text) >= real_counter(tokenizer).count(text)
    assert estimate("日本語のテキスト 😀") >= real_counter(tokenizer).count("日本語のテキスト 😀")


def test_counter_may_be_any_function() -> None:
    counter: Any = load_counter("tests.unit.operations.test_summary:words")
    assert counter.count("a b c") == 3
    with pytest.raises(Exception, match="token_counter"):
        load_counter("no.such.module:function")


def words(text: str) -> int:
    return len(text.split())


async def test_means_of_several_tables_are_told_each() -> None:
    infos = [
        TableInfo(name, "tumbling", (FieldInfo("mean", "number"),), "k", 4, size_ms=60_000)
        for name in ("celsius", "bar")
    ]
    fake = FakeQueries(infos, clock=ManualClock(START))
    ask = asked(fake)
    for table, mean in (("celsius", -20.0), ("bar", 3.0)):
        fake.put(table, "boiler", {"mean": mean}, start=START)
    first = await ask("summarize_state")
    assert {"boiler celsius.mean -20", "boiler bar.mean 3"} <= set(first["summary"].split("\n"))
    for table, mean in (("celsius", -10.0), ("bar", 4.5)):
        fake.put(table, "boiler", {"mean": mean}, start=START)
    told = (await ask("summarize_state", cursor=first["cursor"]))["summary"].split("\n")
    assert {"boiler celsius.mean +50.0% -10", "boiler bar.mean +50.0% 4.5"} <= set(told)
    assert sum(line.startswith("boiler ") for line in told) == 2


async def test_keys_that_no_read_takes_are_left_out_and_told(queries: FakeQueries, ask: Asked) -> None:
    for key in ("", "a\nb", "x" * 2_000):
        queries.put("latest", key, latest(3.0))
    told = (await ask("summarize_state"))["summary"]
    assert "left out: nothing; 3 keys cannot be asked for" in told.split("\n")
    assert f"{BTC} " in told


async def test_values_of_other_kinds_do_not_end_a_summary(queries: FakeQueries, ask: Asked) -> None:
    queries.put("latest", "x:Y", {**latest(3.0), "parts": deque([1]), "odd": object()})
    assert "x:Y 3" in (await ask("summarize_state"))["summary"].split("\n")


async def test_summary_reads_in_pages_that_other_workers_take(queries: FakeQueries) -> None:
    assert f"{BTC} +0.96% 105" in (await asked(queries, page_limit_max=1)("summarize_state"))["summary"]
    assert {given["limit"] for name, given in queries.calls if name == "keys"} == {1}


@pytest.mark.parametrize(
    ("later_ms", "ago"), [(65_000, "1m ago"), (3 * 3_600_000, "3h ago"), (49 * 3_600_000, "2d ago")]
)
async def test_moves_and_anomalies_of_long_ago_say_so(later_ms: int, ago: str) -> None:
    clock = ManualClock(START)
    fake = FakeQueries(clock=clock)
    fake.put("candles_1m", BTC, {**candle(100.0), "open": 100.0, "close": 110.0}, start=START)
    anomaly = {"kind": "price_move", "z": -4.25, "value": 1.0, "mean": 0.0, "stddev": 1.0, "window_start": START}
    fake.put("signals", BTC, anomaly)
    clock.advance(60_000)
    now = (await asked(fake)("summarize_state"))["summary"].split("\n")
    assert f"{BTC} +10.0% 110" in now
    clock.advance(later_ms)
    text = (await asked(fake)("summarize_state"))["summary"].split("\n")
    assert f"{BTC} +10.0% 110 {ago}" in text
    assert any(line.startswith(f"{BTC} price_move z=-4.2 ") and line.endswith(" ago") for line in text)
    content = json.loads((await asked(fake)("summarize_state", style="json"))["summary"])
    assert content["moves_1m"][BTC] == [10.0, 110.0, ago]
    assert content["anomalies"][BTC][:2] == ["price_move", -4.2]
    assert content["anomalies"][BTC][2].endswith(" ago")


async def test_value_that_could_not_be_read_for_a_while_is_compared_with_what_was_told_before() -> None:
    fake, by_move = market(2)
    ask = asked(fake)
    key, quiet = by_move[-1], by_move[0]
    price = (await fake.get("latest", key)).value["price"]
    told = await ask("summarize_state", tables=["latest"], budget_tokens=4_000)
    for gone in ("restoring", "unreachable"):
        setattr(fake, gone, {0, 1, 2, 3})
        missing = await ask("summarize_state", tables=["latest"], budget_tokens=4_000, cursor=told["cursor"])
        setattr(fake, gone, set())
        fake.put("latest", key, latest(price * 1.1))
        told = await ask("summarize_state", tables=["latest"], budget_tokens=4_000, cursor=missing["cursor"])
        assert f"{key} +10.0% " in told["summary"]
        assert quiet not in told["summary"], "it has not changed since it was told"
        price *= 1.1


async def test_table_that_is_named_twice_is_told_once(queries: FakeQueries, ask: Asked) -> None:
    queries.put("signals", BTC, {"kind": "price_move", "z": 9.0, "window_start": START})
    twice = await ask("summarize_state", tables=["signals", "signals"])
    assert twice["summary"].count("z=9.0") == 1


@pytest.mark.parametrize("style", ["text", "json"])
async def test_tokenizer_of_single_letters_leaves_the_summary_within_its_budget(style: str) -> None:
    fake, _ = market(3)
    fake.staleness_ms = fake.clock.now_ms()
    fake.unreachable = {3}
    letters = asked(fake, counter=TokenCounter("letters", len))
    cursor = None
    for _ in range(3):
        for budget in (100, 200, 400):
            answer = await letters("summarize_state", budget_tokens=budget, style=style, cursor=cursor)
            assert answer["tokens"] == len(answer["summary"]) <= budget
            assert str(fake.staleness_ms) in answer["summary"], "how old it is is always told"
            assert answer["cursor"] in answer["summary"]
            assert str(answer["left_out"]["lines"]) in answer["summary"] or budget > 100
        cursor = answer["cursor"]
    with pytest.raises(BadParameterError, match="more than 100 tokens"):
        await asked(fake, counter=TokenCounter("dear", lambda text: 9 * len(text)))(
            "summarize_state", budget_tokens=100
        )


async def test_numbers_of_any_size_take_little_of_the_budget() -> None:
    fake = FakeQueries(clock=ManualClock(START + 21_234))
    for number, (first, last) in enumerate([(1e-300, 1e10), (1.0, 1e30), (-1e300, 1e300), (1e12, 1.5e12), (1.0, 1.5)]):
        fake.put("candles_1m", f"x:{number}", {**candle(1.0), "open": first, "close": last}, start=START)
    lines = (await asked(fake)("summarize_state"))["summary"].splitlines()
    assert "x:0 10000000000" in lines[lines.index("levels:") :], "by how much it moved is no number any more"
    assert [line for line in lines if line.startswith("x:") and "%" in line] == [
        "x:1 +1e+32% 1e+30",
        "x:2 +200.0% 1e+300",
        "x:3 +50.0% 1500000000000",
        "x:4 +50.0% 1.5",
    ]
    told = json.loads((await asked(fake)("summarize_state", style="json"))["summary"])
    assert told["moves_1m"]["x:1"] == [1e32, 1e30]
