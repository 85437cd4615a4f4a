"""The promises of every command: exit codes, one line for a failure, an example in the help."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from streamapp.cli.main import COMMANDS, run
from streamapp.errors import BrokerUnavailableError


def streamapp(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["streamapp", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subcommand that cannot reach Kafka."""

    def fail() -> None:
        """Example: streamapp failing"""
        raise BrokerUnavailableError("127.0.0.1:1", "no broker answered\n  at 127.0.0.1:1; start one")

    module = ModuleType("tests_failing_command")
    module.failing = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "failing", (module.__name__, "failing", "Fail."))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help_gives_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamapp(monkeypatch, name, "--help") == 0
    _, _, example = " ".join(capsys.readouterr().out.split()).partition("Example: ")
    assert f"streamapp {name}" in example


def test_help_lists_every_command_without_importing_any(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "imaginary", ("streamapp.cli.imaginary", "imaginary", "Not there."))
    assert streamapp(monkeypatch, "--help") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("--nonsense",),
        ("kafka", "--port", "x"),
        ("kafka", "--port", "70000"),
        ("bridge",),
        ("kafka", "x"),
    ],
    ids=" ".join,
)
def test_bad_usage_exits_2_and_says_why(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamapp(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
    assert "Traceback" not in said.err


@pytest.mark.usefixtures("failing")
def test_failure_exits_1_with_one_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamapp(monkeypatch, "failing") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "streamapp: no broker answered at 127.0.0.1:1; start one\n"


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("arguments", [("--debug", "failing"), ("failing", "--debug")], ids=" ".join)
def test_debug_lets_the_traceback_through(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["streamapp", *arguments])
    with pytest.raises(BrokerUnavailableError):
        run()


def test_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert streamapp(monkeypatch, "--version") == 0
    assert "0.1.0" in capsys.readouterr().out


def test_record_of_a_feed_without_settings_names_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert streamapp(monkeypatch, "record", "--feed", "generic", "session.ws") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "expected one of binance, bitstamp, coinbase, kraken, got 'generic'" in told
    assert not (tmp_path / "session.ws").exists()
