"""The operations as LangChain tools, called from both worlds."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage

from streamapp.operations.catalogue import OPERATIONS
from streamapp.tools import state_tools
from tests.unit.mcp_server.conftest import BTC, ETH, Serve, clock, metrics, queries, serve
from tests.unit.mcp_server.test_mcp_over_http import CALLS

__all__ = ["clock", "metrics", "queries", "serve"]  # fixtures


async def test_every_tool_has_a_schema_and_answers(serve: Serve) -> None:
    tools = state_tools(await serve())
    assert [tool.name for tool in tools] == [operation.name for operation in OPERATIONS]
    for tool, operation in zip(tools, OPERATIONS, strict=True):
        assert tool.args_schema is operation.arguments
        content = await tool.ainvoke(CALLS[tool.name])
        assert "kraken" in content, "the freshness tells which feed is down"
        message = await tool.ainvoke(ToolCall(name=tool.name, args=CALLS[tool.name], id="1", type="tool_call"))
        assert isinstance(message, ToolMessage)
        assert message.artifact["freshness"]["feeds_down"] == ["kraken"]


async def test_tool_works_without_an_event_loop_and_within_one(serve: Serve) -> None:
    url = await serve()
    tool = {tool.name: tool for tool in state_tools(url)}["find_keys"]
    assert BTC in await asyncio.to_thread(tool.invoke, {"query": "btc"})


async def test_refusal_comes_back_as_content(serve: Serve) -> None:
    tool = {tool.name: tool for tool in state_tools(await serve())}["get_current"]
    message = await tool.ainvoke(
        ToolCall(name="get_current", args={"table": "latest", "keys": ["coinbase:BTC-US"]}, id="1", type="tool_call")
    )
    assert message.status == "error"
    assert BTC in message.content
    assert "find_keys" in message.content


async def test_bad_argument_comes_back_as_content(serve: Serve) -> None:
    tool = {tool.name: tool for tool in state_tools(await serve())}["get_windows"]
    call = ToolCall(
        name="get_windows", args={"table": "latest", "key": BTC, "max_points": 100_000}, id="1", type="tool_call"
    )
    for message in (await tool.ainvoke(call), await asyncio.to_thread(tool.invoke, call)):
        assert message.status == "error"
        assert "bad_parameter: max_points" in message.content
        assert "next:" in message.content


@pytest.mark.parametrize(
    ("question", "script", "expected"),
    [
        (
            "what is BTC doing",
            [("find_keys", {"query": "btc"}), ("get_current", {"table": "latest", "keys": [BTC]})],
            "101.5",
        ),
        ("is the feed up", [("get_feed_health", {})], "kraken,false"),
        ("which moved more", [("compare", {"table": "candles_1m", "keys": [BTC, ETH]})], "change_pct"),
    ],
)
async def test_scripted_agent_completes_its_task(
    serve: Serve, question: str, script: list[tuple[str, dict[str, object]]], expected: str
) -> None:
    """The loop of an agent: a model asks for tools until it has its answer; here its turns are written down."""
    tools = {tool.name: tool for tool in state_tools(await serve())}
    said = [
        AIMessage("", tool_calls=[ToolCall(name=n, args=a, id=str(i), type="tool_call")])
        for i, (n, a) in enumerate(script)
    ]
    heard = ""
    for message in said:
        for call in message.tool_calls:
            answer = await tools[call["name"]].ainvoke(call)
            assert answer.status == "success", question
            heard += answer.content
    assert expected in heard
    assert "staleness_ms=" in heard
