"""An agent that answers "what is BTC doing, and is the number fresh?" through MCP.

    streamapp demo &
    python examples/agent.py                       # a scripted model: no network, no key
    AGENT_MODEL=a-model-of-anthropic python examples/agent.py   # a real one; `pip install anthropic`, ANTHROPIC_API_KEY

The loop is that of every agent: the model is shown the tools, asks for some, reads what they say, and answers in the end.
"""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2  # what the protocol's client speaks HTTP with
from mcp.client import Client
from mcp_types import CallToolResult, TextContent

QUESTION = "What is BTC doing, and is the number fresh?"
TURNS_MAX = 8
FRESH_MS = 10_000  # a view that may be further behind than this is not called fresh


@dataclass
class ToolUse:
    """A tool that the model wants called."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass
class Turn:
    """What a model says: tools to call, or its answer."""

    text: str = ""
    tools: list[ToolUse] = field(default_factory=list)


class Model(Protocol):
    """Anything that takes turns."""

    async def turn(self, results: list[tuple[ToolUse, CallToolResult]]) -> Turn: ...


class ScriptedModel:
    """Stands in for a model: it does what a good one does, step by step, and reads the same answers."""

    def __init__(self) -> None:
        self._turns = 0

    async def turn(self, results: list[tuple[ToolUse, CallToolResult]]) -> Turn:
        self._turns += 1
        if self._turns == 1:
            return Turn(tools=[ToolUse("1", "find_keys", {"query": "btc", "table": "latest"})])
        _, result = results[-1]
        if result.is_error:
            return Turn(text=f"I cannot tell: {text_of(result)}")
        said = result.structured_content
        if self._turns == 2:
            if not said["keys"]:
                return Turn(text="There is no BTC here (yet).")
            key = said["keys"][0]["key"]
            return Turn(tools=[ToolUse("2", "get_current", {"table": "latest", "keys": [key]})])
        item, freshness = said["items"][0], said["freshness"]
        return Turn(
            text=f"{item['key']} trades at {item['value']['price']}; {verdict(item, freshness)}: the view is at most"
            f" {freshness['staleness_ms']} ms behind, and the newest event is {freshness['age_ms']} ms old."
        )


def verdict(item: dict[str, Any], freshness: dict[str, Any]) -> str:
    """Whether the number may be called fresh: its feed, its partition and the distance of the view all have a say."""
    if item["freshness"]["feed_connected"] is False or item["key"].partition(":")[0] in freshness["feeds_down"]:
        return f"its feed is DOWN, so the number is {freshness['age_ms']} ms old"
    if freshness["restoring"]:
        return "it is NOT known to be fresh, since state is being restored"
    if item["freshness"]["stale"]:
        return "it is NOT fresh, since it comes from a copy"
    if freshness["staleness_ms"] is None or freshness["staleness_ms"] > FRESH_MS:
        return "it is NOT fresh"
    return "it is fresh"


class AnthropicModel:
    """A real model, by its vendor's SDK."""

    def __init__(self, name: str, tools: list[dict[str, Any]]) -> None:
        import anthropic

        self._client = anthropic.AsyncAnthropic()
        self._name = name
        self._tools = tools
        self._messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]

    async def turn(self, results: list[tuple[ToolUse, CallToolResult]]) -> Turn:
        if results:
            content = [
                {"type": "tool_result", "tool_use_id": use.id, "content": text_of(result), "is_error": result.is_error}
                for use, result in results
            ]
            self._messages.append({"role": "user", "content": content})
        reply = await self._client.messages.create(
            model=self._name, max_tokens=1_000, tools=self._tools, messages=self._messages
        )
        self._messages.append({"role": "assistant", "content": reply.content})
        wanted = [ToolUse(one.id, one.name, dict(one.input)) for one in reply.content if one.type == "tool_use"]
        return Turn("".join(one.text for one in reply.content if one.type == "text"), wanted)


def text_of(result: CallToolResult) -> str:
    """What a model reads of a result."""
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


async def ask(url: str, model_name: str = "") -> str:
    """The agent's answer to the question."""
    async with Client(f"{url}/mcp") as client:
        model: Model = ScriptedModel()
        if model_name:
            listed = (await client.list_tools()).tools
            tools = [{"name": t.name, "description": t.description, "input_schema": t.input_schema} for t in listed]
            model = AnthropicModel(model_name, tools)
        results: list[tuple[ToolUse, CallToolResult]] = []
        for _ in range(TURNS_MAX):
            turn = await model.turn(results)
            if not turn.tools:
                return turn.text
            results = [(use, await client.call_tool(use.name, use.arguments)) for use in turn.tools]
        return "No answer within the turns allowed."


def main() -> int:
    """Ask the worker at the address given, or at the usual one; 1 where there is none."""
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:6066"
    status = 1
    try:
        print(asyncio.run(ask(address, os.environ.get("AGENT_MODEL", ""))))
        status = 0
    except* httpx2.ConnectError:
        print(
            f"expected a worker at {address}, but nothing listens there: `streamapp demo` starts one", file=sys.stderr
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
