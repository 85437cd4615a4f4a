"""What is said where settings cannot be used."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from streamapp import StreamApp
from streamapp.cli.main import run
from streamapp.errors import ConfigurationError
from streamapp.settings import Settings, explain


def explained(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    return explain(caught.value)


def test_names_what_was_expected_and_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    said = explained(monkeypatch, STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS="-1", STREAMAPP_LOG_FORMAT="x" * 500)
    assert "STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS: Input should be greater than 0, got '-1'" in said
    assert f"STREAMAPP_LOG_FORMAT: Input should be 'text' or 'json', got '{'x' * 100}'" in said


def test_tells_nothing_that_may_be_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "streamapp.toml"
    lines = (
        "kafka_pasword = 'hush'",
        "kafka_password = 4711",
        "[feeds.a]",
        "venue = 'x'",
        "[feeds.a.auth]",
        "key = 4711",
    )
    file.write_text("\n".join(lines))
    said = explained(monkeypatch, STREAMAPP_CONFIG=str(file))
    assert "kafka_pasword: there is no such setting" in said
    assert "STREAMAPP_KAFKA_PASSWORD: Input should be a valid string" in said
    assert "feeds.a.auth.key: Input should be a valid string" in said
    assert "hush" not in said
    assert "4711" not in said


@pytest.mark.parametrize("content", [None, "partitions = [", b"\xff"])
def test_a_file_that_was_named_is_read_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("STREAMAPP_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match=r"mine.toml.*expected a"):
        Settings()


def test_the_command_says_it_on_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS", "soon")
    monkeypatch.setattr(sys, "argv", ["streamapp", "doctor"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("streamapp: settings: STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS: Input should be a valid integer")
    assert said.endswith(", got 'soon'\n")
    assert said.count("\n") == 1


def test_an_app_says_it_as_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS", "0")
    with pytest.raises(ConfigurationError, match=r"STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS: .* greater than 0, got '0'"):
        StreamApp("app")
