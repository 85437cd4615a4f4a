"""The operations as LangChain tools: `pip install streamapp[langchain]`, then `state_tools("http://127.0.0.1:6066")`."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import SecretStr, ValidationError

try:
    from langchain_core.tools import BaseTool, ToolException
except ImportError as missing:
    raise ImportError("streamapp.tools needs langchain-core; install streamapp[langchain]") from missing

from streamapp.client.activation import Activation
from streamapp.client.stream_client import DEFAULT_URL, StreamClient
from streamapp.errors import QueryError
from streamapp.operations.answers import Answer, Summary
from streamapp.operations.catalogue import OPERATIONS, Operation
from streamapp.operations.failures import bad_arguments, failure
from streamapp.operations.text import render
from streamapp.operations.untrusted import shown_fields, shown_key


def _said_of_arguments(problem: Any) -> str:
    """What a model reads of arguments that do not fit the schema."""
    if isinstance(problem, ValidationError):
        return failure(bad_arguments(problem)).text()
    return "error bad_parameter: the arguments do not fit the tool's schema"


class StateTool(BaseTool):
    """One operation; its content is compact text with the freshness at its end, its artifact the whole answer.

    Works from synchronous and from asynchronous agents. A refusal comes back as the tool's content, with what to do next,
    so that the model can correct itself.
    """

    url: str
    token: SecretStr | None = None
    timeout_s: float = 15.0
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    handle_validation_error: Any = _said_of_arguments

    async def _arun(self, **given: Any) -> tuple[str, dict[str, Any]]:
        token = self.token.get_secret_value() if self.token is not None else None
        try:
            # a session of its own: agents call from event loops that come and go
            async with StreamClient(self.url, token=token, timeout_s=self.timeout_s) as client:
                answer = await client.call(self.name, _plain(given))
        except QueryError as error:
            raise ToolException(failure(error).text()) from None
        return _content(answer), answer.model_dump(mode="json")

    def _run(self, **given: Any) -> tuple[str, dict[str, Any]]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._arun(**given))
        # called by synchronous code inside an event loop, which must not be entered twice
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._arun(**given)).result()


class EventTriggeredTool:
    """A tool that a state change starts; hand it to `streamapp.client.activation.OnChange` as its action.

    Args:
        tool: any LangChain tool.
        arguments: makes its arguments from what started it, whose text is a feed's own; default: table, key and value, with
            texts that are no plain words wrapped as data, since a model may read what the tool is given.
    """

    def __init__(self, tool: BaseTool, arguments: Callable[[Activation], dict[str, Any]] | None = None) -> None:
        self.tool = tool
        self._arguments = arguments or _of_activation

    async def __call__(self, activation: Activation) -> Any:
        """Run the tool; its own errors go up, so that they are retried."""
        return await self.tool.ainvoke(self._arguments(activation))


def _of_activation(activation: Activation) -> dict[str, Any]:
    return {"table": activation.table, "key": shown_key(activation.key), "value": shown_fields(activation.value)}


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _content(answer: Answer) -> str:
    return answer.summary if isinstance(answer, Summary) else render(answer)


def state_tool(operation: Operation, url: str, token: str | None, timeout_s: float) -> StateTool:
    """One operation as a tool."""
    return StateTool(
        name=operation.name,
        description=operation.description,
        args_schema=operation.arguments,
        url=url,
        token=SecretStr(token) if token else None,
        timeout_s=timeout_s,
    )


def state_tools(url: str = DEFAULT_URL, *, token: str | None = None, timeout_s: float = 15.0) -> list[BaseTool]:
    """Every operation of a worker as a LangChain tool, in the order of the catalogue.

    Args:
        url: where the worker listens.
        token: a bearer token, where the worker asks for one.
        timeout_s: bound on one request; `wait_for` takes its own deadline on top.
    """
    return [state_tool(operation, url, token, timeout_s) for operation in OPERATIONS]
