"""An agent of LangChain over MCP, run in an environment of its own: `python langchain_agent.py URL CALLS`.

Its adapters need another major version of the protocol's package than the worker does, so nothing of streamapp is imported
here. Prints one JSON object: what every tool answered, and what the agent answered to each task.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.client import MultiServerMCPClient

#: a task -> what a model would call for it
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "What is x:S3 at?": ("get_current", {"table": "candles", "keys": ["x:S3"]}),
    "Which one is highest?": ("get_top", {"table": "candles", "by": "close", "limit": 1}),
    "Tell me once x:S1 is above 50.": (
        "wait_for",
        {"table": "candles", "key": "x:S1", "condition": "close > 50", "timeout_ms": 5_000},
    ),
}


class Scripted(BaseChatModel):
    """A model that calls what its plan says, and then repeats the tool's words."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> "Scripted":
        names = {tool.name for tool in tools}
        assert {name for name, _ in PLANS.values()} <= names, names
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, HumanMessage):
            name, arguments = PLANS[str(last.content)]
            said = AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "1"}])
        else:
            assert isinstance(last, ToolMessage)
            said = AIMessage(text_of(last.content))
        return ChatResult(generations=[ChatGeneration(message=said)])


def text_of(content: Any) -> str:
    """The text of a message or a tool's answer."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def main() -> None:
    url, calls = sys.argv[1], json.loads(sys.argv[2])
    client = MultiServerMCPClient({"streamapp": {"transport": "streamable_http", "url": url}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    answers = {name: text_of(await tool.ainvoke(calls[name])) for name, tool in tools.items()}
    agent = create_agent(Scripted(), list(tools.values()))
    done = {}
    for task in PLANS:
        result = await agent.ainvoke({"messages": [HumanMessage(task)]})
        done[task] = text_of(result["messages"][-1].content)
    print(json.dumps({"tools": answers, "tasks": done}))


if __name__ == "__main__":
    asyncio.run(main())
