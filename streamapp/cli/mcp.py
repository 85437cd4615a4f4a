"""`streamapp mcp`: a worker's tables for MCP clients that start their servers as processes."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamapp.cli.http_client import DEFAULT_URL, find_token


def mcp(
    url: Annotated[str, typer.Option(help="Where a worker listens; any of a cluster will do.")] = DEFAULT_URL,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with a token; default: the environment's STREAMAPP_TOKEN.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Bound on one request to the worker, in seconds.", min=0.1)] = 15.0,
) -> None:
    """Serve the Model Context Protocol on standard input and output, asking a worker for every answer.

    Ends when the client closes its end. A worker that cannot be reached is told to the model as a tool's error.

    Example: streamapp mcp --url http://127.0.0.1:6066
    """
    from streamapp.client.stream_client import StreamClient
    from streamapp.mcp_server.remote import serve_stdio
    from streamapp.settings import Settings

    client = StreamClient(url, token=find_token(token_file), timeout_s=timeout_s)
    try:
        asyncio.run(serve_stdio(client, Settings()))
    except BrokenPipeError:
        sys.exit(0)  # the client is gone
