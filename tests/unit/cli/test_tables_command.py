import asyncio
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from streamapp.cli.main import run
from streamapp.cli.tables import describe_window, duration, one_line, reading_grid
from streamapp.queries.model import FeedInfo
from streamapp.settings import Settings
from streamapp.views.application import application, runner_options
from streamapp.views.auth import new_token, parse_tokens
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest

BTC = "coinbase:BTC-USD"
START = 1_790_000_040_000


class Worker:
    """The HTTP interface over the fake, in a thread of its own: the commands run a loop themselves."""

    def __init__(self, api_tokens: str = "") -> None:
        self.queries = FakeQueries()
        self.queries.put("candles_1m", BTC, candle(100.5), start=START, final=True)
        self.queries.put("candles_1m", "kraken:A/B,C-USD", candle(7.0), start=START)
        self.queries.put("latest", BTC, {**latest(101.5), "bid": None})
        self.queries.feed_infos = [FeedInfo("coinbase", False, "disconnected", "", None, 3)]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        settings = Settings(api_tokens=api_tokens)
        self.runner = web.AppRunner(application(self.queries, settings), **runner_options(settings))
        self.call(self.runner.setup())
        self.call(self.listen())

    async def listen(self) -> None:
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    def close(self) -> None:
        self.call(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line; exit code, standard output, standard error."""
    monkeypatch.delenv("STREAMAPP_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "160")

    def execute(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["streamapp", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return execute


def test_list_names_every_table_with_its_window_and_keys(command: Any, worker: Worker) -> None:
    code, out, _ = command("tables", "list", "--url", worker.url)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "tumbling" in rows["candles_1m"]
    assert "1 min" in rows["candles_1m"]
    assert "5 min every 30 s" in rows["stats_5m"]
    assert set(rows) >= {"candles_1m", "candles_5m", "stats_5m", "latest", "signals"}


def test_list_as_json_is_the_answer_itself(command: Any, worker: Worker) -> None:
    code, out, _ = command("tables", "list", "--url", worker.url, "--json")
    assert code == 0
    assert json.loads(out)["tables"][0]["name"] == "candles_1m"


def test_get_shows_value_window_and_freshness(command: Any, worker: Worker) -> None:
    code, out, _ = command("tables", "get", "candles_1m", BTC, "--url", worker.url)
    assert code == 0
    assert "100.5" in out
    assert "(final)" in out
    assert "12 ms behind" in out
    assert "feed DISCONNECTED, 3 gap(s)" in out


def test_get_finds_keys_with_any_character(command: Any, worker: Worker) -> None:
    code, out, _ = command("tables", "get", "candles_1m", "kraken:A/B,C-USD", "--url", worker.url, "--json")
    assert (code, json.loads(out)["key"]) == (0, "kraken:A/B,C-USD")
    code, out, _ = command("tables", "get", "candles_1m", BTC, "--at", str(START + 5), "--url", worker.url, "--json")
    assert json.loads(out)["window"]["start"] == START


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("get", "nothing", BTC), "unknown_table"),
        (("get", "candles_1m", "coinbase:BTC-EUR"), f"like it: {BTC}"),
        (("get", "candles_1m", BTC, "--at", "5"), "no_such_window"),
        (("get", "candles_1m", BTC, "--max-staleness-ms", "1"), "stale"),
        (("watch", "nothing"), "unknown_table"),
    ],
)
def test_problem_is_one_line_and_exit_code_1(command: Any, worker: Worker, arguments: Any, expected: str) -> None:
    code, out, err = command("tables", *arguments, "--url", worker.url)
    assert (code, out) == (1, "")
    assert expected in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "nonsense"])
def test_no_worker_is_one_clear_line(command: Any, url: str) -> None:
    for arguments in (("list",), ("watch", "latest")):
        code, out, err = command("tables", *arguments, "--url", url)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "--url" in err


def test_watch_prints_what_is_there_and_ends_after_the_count(command: Any, worker: Worker) -> None:
    code, out, _ = command("tables", "watch", "latest", BTC, "--count", "1", "--url", worker.url)
    assert code == 0
    assert out.startswith(f"{BTC} price=101.5 ")
    assert "bid=- " in out
    code, out, _ = command("tables", "watch", "candles_1m", "--count", "2", "--url", worker.url, "--json")
    assert {json.loads(line)["key"] for line in out.splitlines()} == {BTC, "kraken:A/B,C-USD"}


def test_watch_sees_changes(command: Any, worker: Worker) -> None:
    async def go_on_changing() -> None:
        price = 1_000.0
        while True:
            worker.queries.put("latest", BTC, latest(price))
            price += 1
            await asyncio.sleep(0.01)

    changing = asyncio.run_coroutine_threadsafe(go_on_changing(), worker.loop)
    code, out, _ = command("tables", "watch", "latest", BTC, "--count", "3", "--url", worker.url, "--json")
    changing.cancel()
    prices = [json.loads(line)["value"]["price"] for line in out.splitlines()]
    assert code == 0
    assert len(prices) == 3
    assert prices == sorted(set(prices))
    assert prices[-1] >= 1_001


def test_token_comes_from_the_environment_or_a_private_file(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text, entry = new_token("cli", ["read"])
    worker = Worker(api_tokens=entry)
    try:
        code, _, err = command("tables", "list", "--url", worker.url)
        assert (code, "unauthorized" in err) == (1, True)
        path = tmp_path / "token"
        path.write_text(text + "\n")
        path.chmod(0o600)
        assert command("tables", "list", "--url", worker.url, "--token-file", str(path))[0] == 0
        path.chmod(0o644)
        code, _, err = command("tables", "list", "--url", worker.url, "--token-file", str(path))
        assert (code, "chmod 600" in err) == (1, True)
        assert command("tables", "list", "--url", worker.url, "--token-file", str(tmp_path / "none"))[0] == 1
        monkeypatch.setenv("STREAMAPP_TOKEN", text)
        assert command("tables", "list", "--url", worker.url)[0] == 0
    finally:
        worker.close()


def test_rebuild_asks_first_and_then_calls_the_engine(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Rebuild:
        @staticmethod
        async def rebuild_table(settings: Settings, app_id: str, table: str) -> str:
            calls.append((app_id, table))
            return "candles_1m will be rebuilt from trades"

    monkeypatch.setitem(sys.modules, "streamapp.engine.rebuild", Rebuild)
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    unchanged = "streamapp: nothing was changed; --yes does not ask\n"
    code, _, err = command("tables", "rebuild", "candles_1m")  # nobody is there to ask
    assert (code, err.lstrip("\n")) == (1, unchanged)
    assert calls == []
    monkeypatch.setattr("typer.confirm", lambda _question: False)
    assert command("tables", "rebuild", "candles_1m")[::2] == (1, unchanged)
    assert calls == []
    code, out, _ = command("tables", "rebuild", "candles_1m", "--yes", "--app", "prices")
    assert (code, out.strip()) == (0, "candles_1m will be rebuilt from trades")
    assert calls == [("prices", "candles_1m")]


def test_bad_usage_exits_2(command: Any) -> None:
    assert command("tables", "get", "candles_1m")[0] == 2
    assert command("tables", "get", "candles_1m", BTC, "--at", "x")[0] == 2
    assert command("token")[0] == 2


def test_help_has_an_example(command: Any) -> None:
    for arguments in (
        ("tables",),
        ("tables", "get"),
        ("tables", "list"),
        ("tables", "watch"),
        ("tables", "rebuild"),
        ("token",),
    ):
        code, out, err = command(*arguments, "--help")
        assert (code, err) == (0, "")
        assert "Example: streamapp" in " ".join(out.split())


def test_token_is_printed_once_with_its_entry(command: Any) -> None:
    code, out, err = command("token", "laptop", "--scopes", "read+metrics")
    assert code == 0
    (token,) = parse_tokens(err.split("STREAMAPP_API_TOKENS=")[1].strip())
    assert (token.name, token.scopes) == ("laptop", {"read", "metrics"})
    assert out.strip() not in err
    code, out, err = command("token", "laptop", "--scopes", "write")
    assert (code, out) == (2, "")
    assert "unknown scope" in err
    assert "api_tokens" not in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a b",), "name"), (("a:b",), "name"), (("",), "name"),
        (("a", "--scopes", "read,metrics"), "--scopes"), (("a", "--scopes", " + "), "--scopes"),
        (("a", "--scopes", "metrics:x"), "--scopes"), (("a", "--scopes", "read/*/x*"), "--scopes"),
    ],
)  # fmt: skip
def test_token_that_cannot_be_made_names_the_argument(command: Any, arguments: tuple[str, ...], named: str) -> None:
    code, out, err = command("token", *arguments)
    assert (code, out) == (2, "")
    assert f"Invalid value for {named}" in err.replace("'", "")


def test_token_of_the_environment_may_end_with_a_line_break(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text, entry = new_token("laptop", ["read"])
    worker = Worker(api_tokens=entry)
    try:
        monkeypatch.setenv("STREAMAPP_TOKEN", f" {text}\n")
        assert command("tables", "list", "--url", worker.url)[0] == 0
        monkeypatch.setenv("STREAMAPP_TOKEN", f"{text}\n{text}")
        code, _, err = command("tables", "list", "--url", worker.url)
        assert (code, "a token has no spaces" in err) == (1, True)
        assert text not in err
    finally:
        worker.close()


def test_durations_and_windows_read_well() -> None:
    assert [duration(ms) for ms in (None, 0, 12, 1_500, 60_000, 86_400_000)] == [
        "-",
        "0 ms",
        "12 ms",
        "1.5 s",
        "1 min",
        "1 d",
    ]
    hopping = {"size_ms": 5 * MINUTE, "step_ms": 30_000, "gap_ms": None, "grace_ms": 0, "retention_ms": None}
    assert describe_window(hopping) == "5 min every 30 s"
    assert describe_window({**hopping, "gap_ms": 2_000}) == "gap 2 s"


def test_text_from_a_feed_cannot_steer_the_terminal() -> None:
    reading = {"key": "x\x1b[2J", "window": None, "value": {"side": "a\nb"}, "freshness": {"staleness_ms": 1}}
    assert one_line(reading).isprintable()
    fresh = {"staleness_ms": 1, "age_ms": 1, "lag": 0, "partition": 0, "offset": 1, "restoring": False, "feed": None}
    out = io.StringIO()
    Console(file=out, width=200).print(
        reading_grid({**reading, "table": "t", "value": {"side\x1b[1m": "\x1b]0;t\x07\nnext"}, "freshness": fresh})
    )
    assert all(line.isprintable() for line in out.getvalue().splitlines())
    assert out.getvalue().count("\n") == 3


def test_value_is_printed_whatever_its_numbers_mean_and_whoever_answered() -> None:
    fresh = {"staleness_ms": 1, "age_ms": 1, "lag": 0, "partition": 0, "offset": 1, "restoring": False, "feed": None}
    value = {"close_time": 1_790_000_061_234_567_890, "open_time": START, "time": -(10**17)}
    reading = {"table": "t", "key": "k", "window": None, "value": value, "freshness": {**fresh, "stale": True}}
    out = io.StringIO()
    Console(file=out, width=200).print(reading_grid(reading))
    for text in ("1790000061234567890", "2026-09-21 14:14:00.000Z", "-100000000000000000", "from a copy"):
        assert text in out.getvalue()
    out = io.StringIO()
    Console(file=out, width=200).print(reading_grid({**reading, "freshness": fresh}))
    assert "from a copy" not in out.getvalue()
