"""`streamapp doctor`: what is there, what is missing, what to do about it."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamapp.cli.findings import Finding, examine, failures
from streamapp.errors import StreamAppError
from streamapp.settings import Settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_PIPE_WIDTH = 160


def doctor(
    port: Annotated[int, typer.Option(help="The HTTP port that a worker is going to use.", min=1, max=65535)] = 6066,
) -> None:
    """Check Python, packages, Java, broker, topics, disk and ports, and say what to do about each finding.

    Exits 1 if any check fails; warnings do not count.

    Example: STREAMAPP_KAFKA_BROKERS=kafka.example:9092 streamapp doctor
    """
    # a finding says that Kafka is away: what its client says with every try to connect is not wanted beside it
    logging.getLogger("streamapp").addHandler(logging.NullHandler())
    findings = asyncio.run(examine(Settings(), port))
    _print(findings)
    failed = failures(findings)
    if failed:
        raise StreamAppError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}")


def _print(findings: Sequence[Finding]) -> None:
    table = Table("", "check", "found", "what to do", box=box.SIMPLE_HEAD, pad_edge=False)
    for finding in findings:
        status = Text(finding.status, style=_COLOURS[finding.status])
        # plain text: square brackets of an extra's name are no markup
        table.add_row(status, Text(finding.check), Text(finding.found), Text(finding.advice))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
