"""`streamapp schema`: what a model's API takes as it is."""

import json
import sys

import pytest
from jsonschema import Draft202012Validator

from streamapp.cli.main import run
from streamapp.mcp_server.tools import TOOLS
from streamapp.operations.catalogue import OPERATIONS


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["streamapp", "schema", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "place"), [("openai", "parameters"), ("anthropic", "input_schema"), ("mcp", "inputSchema")]
)
def test_every_operation_has_its_schema(
    form: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = printed(monkeypatch, capsys, "--format", form, "--indent", "0")
    assert code == 0
    assert text.count("\n") == 1
    tools = [tool["function"] if form == "openai" else tool for tool in json.loads(text)]
    assert [tool["name"] for tool in tools] == [operation.name for operation in OPERATIONS]
    for tool, operation in zip(tools, OPERATIONS, strict=True):
        Draft202012Validator.check_schema(tool[place])
        assert tool[place] == operation.input_schema()
        assert tool[place]["type"] == "object"
        assert tool["description"]
        for name, described in tool[place]["properties"].items():
            assert described.get("description") or name == "key", f"{operation.name}.{name} tells a model nothing"


def test_mcp_schema_is_what_the_server_lists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = printed(monkeypatch, capsys, "--format", "mcp")
    assert json.loads(text) == [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in TOOLS]


def test_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(monkeypatch, capsys, "--format", "yaml")[0] == 2
