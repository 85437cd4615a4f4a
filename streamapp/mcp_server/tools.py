"""MCP tools, made of the operations: schemas, annotations, structured content and the same as compact text."""

import mcp_types as types

from streamapp.errors import QueryError
from streamapp.operations.answers import Answer, Summary
from streamapp.operations.catalogue import OPERATIONS, Operation
from streamapp.operations.failures import failure
from streamapp.operations.text import render


def tool(operation: Operation) -> types.Tool:
    """An operation as a tool: it only reads, and of this system alone."""
    return types.Tool(
        name=operation.name,
        title=operation.title,
        description=operation.description,
        input_schema=operation.input_schema(),
        output_schema=operation.output_schema(),
        annotations=types.ToolAnnotations(
            title=operation.title,
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
    )


#: in the order of the catalogue, always
TOOLS: tuple[types.Tool, ...] = tuple(tool(operation) for operation in OPERATIONS)


def answered(answer: Answer) -> types.CallToolResult:
    """An answer as a tool's result."""
    # a summary's budget is for the whole of what a model reads
    text = answer.summary if isinstance(answer, Summary) else render(answer)
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=answer.model_dump(mode="json")
    )


def refused(error: QueryError) -> types.CallToolResult:
    """A refusal as a result, not as a protocol error, so that a model reads it and can correct itself."""
    return types.CallToolResult(content=[types.TextContent(text=failure(error).text())], is_error=True)
