"""The operations as the tool schemas of models' APIs."""

from typing import Any, Literal

from streamapp.operations.catalogue import OPERATIONS, Operation

Format = Literal["openai", "anthropic", "mcp"]


def tool_schema(operation: Operation, form: Format) -> dict[str, Any]:
    """One operation as an entry of `tools` in a request to a model."""
    if form == "openai":
        return {
            "type": "function",
            "function": {
                "name": operation.name,
                "description": operation.description,
                "parameters": operation.input_schema(),
            },
        }
    if form == "anthropic":
        return {
            "name": operation.name,
            "description": operation.description,
            "input_schema": operation.input_schema(),
        }
    return {
        "name": operation.name,
        "title": operation.title,
        "description": operation.description,
        "inputSchema": operation.input_schema(),
        "outputSchema": operation.output_schema(),
        "annotations": {
            "title": operation.title,
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": False,
        },
    }


def tool_schemas(form: Format) -> list[dict[str, Any]]:
    """All operations, in the order of the catalogue."""
    return [tool_schema(operation, form) for operation in OPERATIONS]
