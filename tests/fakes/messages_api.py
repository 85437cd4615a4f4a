"""The vendor of a model, on this machine: requests are checked against its SDK's own types, and answered by a plan.

The SDK and its HTTP are real; only the model behind them is a script.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

_REQUEST = TypeAdapter(MessageCreateParamsNonStreaming)
API_KEY = "a-key"


class MessagesApi:
    """Answers the n-th request with the n-th turn of its plan, a list of content blocks."""

    def __init__(self, plan: Sequence[list[dict[str, Any]]]) -> None:
        self._plan = plan
        self.requests: list[dict[str, Any]] = []

    async def _create(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {API_KEY}"
        given = await request.json()
        _REQUEST.validate_python(given)
        for tool in given["tools"]:
            Draft202012Validator.check_schema(tool["input_schema"])
        _check_turns(given["messages"])
        self.requests.append(given)
        content = self._plan[len(self.requests) - 1]
        asks = any(block["type"] == "tool_use" for block in content)
        return web.json_response(
            {
                "id": f"msg_{len(self.requests)}",
                "type": "message",
                "role": "assistant",
                "model": given["model"],
                "content": content,
                "stop_reason": "tool_use" if asks else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
        )

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on loopback; the address."""
        application = web.Application()
        application.router.add_post("/v1/messages", self._create)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def _check_turns(messages: list[dict[str, Any]]) -> None:
    """Turns alternate, and every tool that was asked for is answered in the next one, as the vendor demands."""
    asked: set[str] = set()
    for number, message in enumerate(messages):
        assert message["role"] == ("user", "assistant")[number % 2], messages
        blocks = message["content"] if isinstance(message["content"], list) else []
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        assert answered == asked, messages
        asked = {block["id"] for block in blocks if block["type"] == "tool_use"}
