"""`streamapp schema`: the tools' schemas for a model's API."""

import json
from typing import Annotated

import typer


def schema(
    format: Annotated[str, typer.Option(help="openai, anthropic or mcp.")] = "openai",
    indent: Annotated[int, typer.Option(help="Spaces per level; 0 prints one line.", min=0, max=8)] = 2,
) -> None:
    """Print every tool as JSON: a list that goes into `tools` of a request as it is.

    Example: streamapp schema --format anthropic > tools.json
    """
    from streamapp.operations.schemas import tool_schemas

    if format not in ("openai", "anthropic", "mcp"):
        raise typer.BadParameter(f"expected openai, anthropic or mcp, got {format!r}", param_hint="--format")
    separators = None if indent else (",", ":")
    print(json.dumps(tool_schemas(format), indent=indent or None, separators=separators))  # type: ignore[arg-type]
