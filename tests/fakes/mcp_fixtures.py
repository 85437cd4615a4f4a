"""An MCP server with what the conformance suite expects to find by name, behind the worker's own bridge and checks.

`python -m tests.fakes.mcp_fixtures` serves it on a free port of 127.0.0.1, which it prints, until it is ended.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import mcp_types as types
from aiohttp import web
from mcp.server import MCPServer, ServerRequestContext
from mcp.server.mcpserver import Context, RequestStateSecurity
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field

from streamapp.clock import SystemClock
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.views.application import runner_options
from streamapp.views.auth import Authenticator
from streamapp.views.binding import HostCheck
from streamapp.views.guard import Guard
from streamapp.views.mcp import McpView

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
STEP_S = 0.05
WHAT = "A fixture of the conformance suite."


class Events(EventStore):
    """Events of all streams in one list; a place in it is an event's id."""

    def __init__(self) -> None:
        self._all: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._all.append((stream_id, message))
        return str(len(self._all))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        place = int(last_event_id) if last_event_id.isdigit() else 0
        if not 0 < place <= len(self._all):
            return None
        stream = self._all[place - 1][0]
        for number, (owner, message) in enumerate(self._all[place:], place + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def text(content: str) -> types.TextContent:
    return types.TextContent(text=content)


def embedded(uri: str, kind: str, content: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=kind, text=content))


IMAGE = types.ImageContent(data=PIXEL, mime_type="image/png")


def form(message: str, **properties: str) -> types.ElicitRequest:
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(question: str) -> types.CreateMessageRequest:
    said = types.SamplingMessage(role="user", content=text(question))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[said], max_tokens=50))


def entered(answer: Any, field: str) -> str:
    content = answer.content if isinstance(answer, types.ElicitResult) else None
    return str((content or {}).get(field, "?"))


def plain_tools(server: MCPServer) -> None:
    @server.tool(description=WHAT)
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool(description=WHAT)
    def test_image_content() -> list[types.ImageContent]:
        return [IMAGE]

    @server.tool(description=WHAT)
    def test_audio_content() -> list[types.AudioContent]:
        return [types.AudioContent(data=SILENCE, mime_type="audio/wav")]

    @server.tool(description=WHAT)
    def test_embedded_resource() -> list[types.EmbeddedResource]:
        return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]

    @server.tool(description=WHAT)
    def test_multiple_content_types() -> list[types.TextContent | types.ImageContent | types.EmbeddedResource]:
        data = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
        return [text("Multiple content types test:"), IMAGE, data]

    @server.tool(description=WHAT)
    def test_error_handling() -> str:
        raise RuntimeError("This tool intentionally returns an error for testing")

    @server.tool(description=WHAT)
    def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "none",
    ) -> str:
        return region

    @server.tool(description=WHAT)
    def json_schema_2020_12_tool() -> str:
        return "ok"

    # the package has no public way to give a tool a schema of its own
    server._tool_manager._tools["json_schema_2020_12_tool"].parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("street", "city")},
            }
        },
        "properties": {
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            **{name: {"type": "string"} for name in ("name", "phone", "email")},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }


class Answered(BaseModel):
    response: str


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field("active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


def titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in pairs]


class Choices(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": ["active", "inactive", "pending"]})
    titledSingle: str = Field(
        json_schema_extra={"oneOf": titled(("low", "Low"), ("medium", "Medium"), ("high", "High"))}
    )
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": ["read", "write", "run"]}})
    titledMulti: list[str] = Field(
        json_schema_extra={"items": {"anyOf": titled(("feature", "Feature"), ("bug", "Bug"), ("docs", "Docs"))}}
    )
    legacyEnum: str = Field(
        json_schema_extra={"enum": ["small", "medium", "large"], "enumNames": ["Small", "Medium", "Large"]}
    )


def talking_tools(server: MCPServer) -> None:
    @server.tool(description=WHAT)
    async def test_tool_with_logging(ctx: Context) -> str:
        for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.info(said)
            await asyncio.sleep(STEP_S)
        return "done"

    @server.tool(description=WHAT)
    async def test_tool_with_progress(ctx: Context) -> str:
        for step in (0, 50, 100):
            await ctx.report_progress(progress=step, total=100, message=f"Completed step {step} of 100")
            await asyncio.sleep(STEP_S)
        return "done"

    @server.tool(description=WHAT)
    async def test_sampling(prompt: str, ctx: Context) -> str:
        said = types.SamplingMessage(role="user", content=text(prompt))
        result = await ctx.session.create_message(messages=[said], max_tokens=100, related_request_id=ctx.request_id)
        return f"LLM response: {result.content.text if result.content.type == 'text' else ''}"

    async def asked(ctx: Context, message: str, schema: type[BaseModel]) -> str:
        result = await ctx.elicit(message=message, schema=schema)
        content = result.data.model_dump_json() if result.action == "accept" else "{}"
        return f"action={result.action}, content={content}"

    @server.tool(description=WHAT)
    async def test_elicitation(message: str, ctx: Context) -> str:
        return f"User response: {await asked(ctx, message, Answered)}"

    @server.tool(description=WHAT)
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        return f"Elicitation completed: {await asked(ctx, 'Please answer', Defaults)}"

    @server.tool(description=WHAT)
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        return f"Elicitation completed: {await asked(ctx, 'Please choose', Choices)}"

    @server.tool(description=WHAT)
    async def test_reconnection(ctx: Context) -> str:
        await ctx.close_sse_stream()
        await asyncio.sleep(4 * STEP_S)
        return "Reconnection test completed"

    @server.tool(description=WHAT)
    async def test_missing_capability(ctx: Context) -> str:
        have = ctx.session.client_capabilities
        if have is None or have.sampling is None:
            needed = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool needs sampling", needed)
        return "ok"

    @server.tool(description=WHAT)
    async def test_trigger_tool_change(ctx: Context) -> str:
        server.add_tool(lambda: "x", name="test_dynamic_tool")
        server.remove_tool("test_dynamic_tool")
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool(description=WHAT)
    async def test_trigger_prompt_change(ctx: Context) -> str:
        server.add_prompt(Prompt.from_function(lambda: "x", name="test_dynamic_prompt"))
        server.remove_prompt("test_dynamic_prompt")
        await ctx.notify_prompts_changed()
        return "changed"


Rounds = str | types.InputRequiredResult


def tools_of_several_rounds(server: MCPServer) -> None:
    def needs(state: str | None = None, **requests: Any) -> types.InputRequiredResult:
        return types.InputRequiredResult(input_requests=requests, request_state=state)

    @server.tool(description=WHAT)
    async def test_input_required_result_elicitation(ctx: Context) -> Rounds:
        given = ctx.input_responses or {}
        if "user_name" in given:
            return f"Hello, {entered(given['user_name'], 'name')}!"
        return needs(user_name=form("What is your name?", name="string"))

    @server.tool(description=WHAT)
    async def test_input_required_result_sampling(ctx: Context) -> Rounds:
        said = (ctx.input_responses or {}).get("capital_question")
        if isinstance(said, types.CreateMessageResult):
            return f"Model said: {said.content.text if said.content.type == 'text' else ''}"
        return needs(capital_question=sampling("What is the capital of France?"))

    @server.tool(description=WHAT)
    async def test_input_required_result_list_roots(ctx: Context) -> Rounds:
        said = (ctx.input_responses or {}).get("client_roots")
        if isinstance(said, types.ListRootsResult):
            return f"{len(said.roots)} root(s)"
        return needs(client_roots=types.ListRootsRequest())

    @server.tool(description=WHAT)
    async def test_input_required_result_request_state(ctx: Context) -> Rounds:
        if "confirm" in (ctx.input_responses or {}) and ctx.request_state == "nonce":
            return "state-ok"
        return needs("nonce", confirm=form("Please confirm", ok="boolean"))

    @server.tool(description=WHAT)
    async def test_input_required_result_multiple_inputs(ctx: Context) -> Rounds:
        if {"user_name", "greeting", "client_roots"} <= (ctx.input_responses or {}).keys():
            return "all there"
        return needs(
            "several",
            user_name=form("What is your name?", name="string"),
            greeting=sampling("Greet"),
            client_roots=types.ListRootsRequest(),
        )

    @server.tool(description=WHAT)
    async def test_input_required_result_multi_round(ctx: Context) -> Rounds:
        given = ctx.input_responses or {}
        state = json.loads(ctx.request_state or '{"round":0}')
        if state["round"] == 1 and "step1" in given:
            state = {"round": 2, "name": entered(given["step1"], "name")}
            return needs(json.dumps(state), step2=form("Your colour?", color="string"))
        if state["round"] == 2 and "step2" in given:
            return f"{state['name']} likes {entered(given['step2'], 'color')}"
        return needs('{"round":1}', step1=form("Your name?", name="string"))

    @server.tool(description=WHAT)
    async def test_input_required_result_tampered_state(ctx: Context) -> Rounds:
        return "state-ok" if ctx.request_state else needs("round-1", confirm=form("Please confirm", ok="boolean"))

    @server.tool(description=WHAT)
    async def test_input_required_result_capabilities(ctx: Context) -> types.InputRequiredResult:
        have = ctx.client_capabilities
        requests: dict[str, Any] = {}
        if have is None or have.sampling is not None:
            requests["sample"] = sampling("Say hello")
        if have is None or have.elicitation is not None:
            requests["ask"] = form("Your name?", name="string")
        return needs("gated", **requests)


def resources_and_prompts(server: MCPServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return base64.b64decode(PIXEL)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource("test://watched-resource")
    def watched() -> str:
        return "watched"

    def said(*contents: Any) -> list[UserMessage]:
        return [UserMessage(content=content) for content in contents]

    @server.prompt(description=WHAT)
    def test_simple_prompt() -> list[UserMessage]:
        return said(text("This is a simple prompt for testing."))

    @server.prompt(description=WHAT)
    def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        return said(text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))

    @server.prompt(description=WHAT)
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        return said(embedded(resourceUri, "text/plain", "Embedded resource content for testing."), text("Read it."))

    @server.prompt(description=WHAT)
    def test_prompt_with_image() -> list[UserMessage]:
        return said(IMAGE, text("Please look at it."))

    @server.prompt(description=WHAT)
    async def test_input_required_result_prompt(ctx: Context) -> list[UserMessage] | types.InputRequiredResult:
        given = ctx.input_responses or {}
        if "user_context" in given:
            return said(text(entered(given["user_context"], "context")))
        return types.InputRequiredResult(input_requests={"user_context": form("Which context?", context="string")})

    @server.completion()
    async def complete(*_: Any) -> types.Completion:
        return types.Completion(values=[], total=0, has_more=False)


class FixtureServer:
    """The fixtures, as the worker's view runs a server."""

    def __init__(self) -> None:
        key = b"of no worth, but of more than thirty-two bytes"
        self._server = MCPServer("fixtures", version="0", request_state_security=RequestStateSecurity(keys=[key]))
        for add in (plain_tools, talking_tools, tools_of_several_rounds, resources_and_prompts):
            add(self._server)

        async def taken(_ctx: ServerRequestContext[Any, Any], _params: Any) -> types.EmptyResult:
            return types.EmptyResult()

        low = self._server._lowlevel_server
        low.add_request_handler("logging/setLevel", types.SetLevelRequestParams, taken)
        low.add_request_handler("resources/subscribe", types.SubscribeRequestParams, taken)
        low.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, taken)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Any]:
        manager = StreamableHTTPSessionManager(
            self._server._lowlevel_server,
            event_store=Events(),
            retry_interval=100,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        async with manager.run():
            yield manager.handle_request

    def close(self) -> None:
        pass


async def main() -> None:
    settings = Settings()
    application = web.Application()
    metrics = Metrics()
    guard = Guard(settings, metrics, Authenticator(settings, SystemClock(), metrics), HostCheck(settings))
    view = McpView(FixtureServer, settings)
    for route in view.routes():
        application.router.add_route(route.method, route.path, guard.wrap(route))
    application.on_shutdown.append(view.close)
    runner = web.AppRunner(application, **runner_options(settings))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
