"""`streamapp tables`: the same reads as the HTTP interface, in a terminal."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamapp.cli.http_client import DEFAULT_URL, WorkerClient, find_token, path_of

tables = typer.Typer(
    name="tables",
    help="List, read, watch and rebuild tables.\n\nExample: streamapp tables get candles_1m coinbase:BTC-USD",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Url = Annotated[str, typer.Option("--url", envvar="STREAMAPP_URL", help="Where a worker listens.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="A file with the token; else STREAMAPP_TOKEN is used.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the worker answered, as JSON.")]


@tables.command("list", short_help="List every table.")
def list_tables(url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """List every table with its kind, window, fields and number of keys.

    Example: streamapp tables list --json
    """

    async def show(client: WorkerClient) -> None:
        answer = await client.read(path_of("v1", "tables"))
        if as_json:
            print_json(answer)
            return
        grid = Table("table", "kind", "window", "keys", "fields", box=None, header_style="bold")
        grid.columns[3].justify = "right"
        for column in grid.columns[:4]:
            column.no_wrap = True
        for one in answer["tables"]:
            grid.add_row(
                *map(escape, (one["name"], one["kind"], describe_window(one["window"]))),
                "-" if one["keys"] is None else f"{one['keys']:,}",
                escape(", ".join(field["name"] for field in one["fields"])),
            )
        Console().print(grid)

    run(url, token_file, show)


@tables.command("get", short_help="Print the current value of a key.")
def get_value(
    table: Annotated[str, typer.Argument(help="A table's name.")],
    key: Annotated[str, typer.Argument(help="A key, e.g. coinbase:BTC-USD.")],
    at: Annotated[int | None, typer.Option(help="The window that holds this instant, epoch ms.", min=0)] = None,
    max_staleness_ms: Annotated[int | None, typer.Option(help="Refuse what may be further behind.", min=0)] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the current value of a key and how fresh it is.

    Example: streamapp tables get candles_1m coinbase:BTC-USD --max-staleness-ms 1000
    """

    async def show(client: WorkerClient) -> None:
        path = path_of("v1", "tables", table, "keys", key, at=at, max_staleness_ms=max_staleness_ms)
        reading = await client.read(path)
        if as_json:
            print_json(reading)
        else:
            Console().print(reading_grid(reading))

    run(url, token_file, show)


@tables.command("watch", short_help="Print the values there are, then every change.")
def watch_table(
    table: Annotated[str, typer.Argument(help="A table's name.")],
    key: Annotated[str | None, typer.Argument(help="Only this key.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only keys that begin so.")] = None,
    condition: Annotated[str | None, typer.Option(help="Only values for which it holds.")] = None,
    count: Annotated[int | None, typer.Option(help="Stop after this many lines.", min=1)] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the values there are, then every change, one per line, until Ctrl-C.

    Example: streamapp tables watch candles_1m --prefix coinbase: --condition 'close > 70000'
    """
    path = path_of("v1", "tables", table, "changes", key=key, prefix=prefix, condition=condition)

    async def show(client: WorkerClient) -> None:
        left = count
        async for _, reading in client.events(path):
            print(json.dumps(reading) if as_json else one_line(reading), flush=True)
            if left is not None:
                left -= 1
                if left == 0:
                    return

    run(url, token_file, show)


@tables.command("rebuild", short_help="Build a table again from its sources.")
def rebuild(
    name: Annotated[str, typer.Argument(help="A table's name.")],
    app: Annotated[str, typer.Option(help="The id of the application, as in StreamApp(ID).")] = "streamapp",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a table's state, so that it is built again from what its sources still hold.

    All workers of the application must be stopped. Takes Kafka and the data directory from the settings, as a worker does.

    Example: streamapp tables rebuild candles --app prices --yes
    """
    if not yes and not _agreed(f"Drop the state of {name} of {app} and process its sources again?"):
        print("streamapp: nothing was changed; --yes does not ask", file=sys.stderr)
        raise typer.Exit(1)
    from streamapp.engine.rebuild import rebuild_table
    from streamapp.settings import Settings

    print(asyncio.run(rebuild_table(Settings(), app, name)))


def _agreed(question: str) -> bool:
    """What is answered; no, where nobody is there to ask."""
    try:
        return typer.confirm(question)
    except typer.Abort:
        print(file=sys.stderr)  # the question has no line break
        return False


def run(url: str, token_file: Path | None, show: Callable[[WorkerClient], Awaitable[None]]) -> None:
    """Run one command with a client; a closed pipe on standard output is no error."""

    async def with_client() -> None:
        async with WorkerClient(url, find_token(token_file)) as client:
            await show(client)

    try:
        asyncio.run(with_client())
    except BrokenPipeError:
        sys.stderr.close()


def print_json(answer: Any) -> None:
    """Indented JSON on standard output."""
    print(json.dumps(answer, indent=2))


def duration(ms: int | None) -> str:
    """Milliseconds in the largest unit that divides them well enough to read."""
    if ms is None:
        return "-"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms >= size:
            return f"{ms / size:g} {unit}" if ms % size == 0 else f"{ms / size:.1f} {unit}"
    return f"{ms} ms"


def instant(ms: int | None) -> str:
    """An instant as UTC text; the number as it is where no calendar has it."""
    if ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        return str(ms)


def describe_window(window: dict[str, Any] | None) -> str:
    """A table's window in a few words."""
    if window is None:
        return "-"
    if window["gap_ms"] is not None:
        return f"gap {duration(window['gap_ms'])}"
    step = f" every {duration(window['step_ms'])}" if window["step_ms"] not in (None, window["size_ms"]) else ""
    return f"{duration(window['size_ms'])}{step}"


def number(value: object) -> str:
    """A field's value as text; floats with up to ten significant digits."""
    return f"{value:,.10g}" if isinstance(value, float) else "-" if value is None else str(value)


def freshness_line(freshness: dict[str, Any]) -> str:
    """How fresh a reading is, in one line."""
    parts = [
        f"{duration(freshness['staleness_ms'])} behind",
        f"newest event {duration(freshness['age_ms'])} old",
        f"lag {number(freshness['lag'])}",
        f"partition {freshness['partition']} offset {number(freshness['offset'])}",
    ]
    if freshness["restoring"]:
        parts.append("restoring")
    if freshness.get("stale"):
        parts.append("from a copy, as its worker is gone")
    if feed := freshness["feed"]:
        parts.append(f"feed {'connected' if feed['connected'] else 'DISCONNECTED'}, {feed['gaps']} gap(s)")
    return " · ".join(parts)


def reading_grid(reading: dict[str, Any]) -> Table:
    """One value as a table: its window, its fields, its freshness."""
    grid = Table(
        title=escape(printable(f"{reading['table']}  {reading['key']}")),
        title_justify="left",
        box=None,
        show_header=False,
    )
    grid.add_column(style="dim")
    grid.add_column()
    if window := reading["window"]:
        state = "final" if window["final"] else "building"
        grid.add_row("window", f"{instant(window['start'])} - {instant(window['end'])} ({state})")
    for name, value in reading["value"].items():
        shown = number(value)
        if name.endswith(("time", "window_start")) and isinstance(value, int):
            shown = instant(value)
        grid.add_row(escape(printable(name)), escape(printable(shown)))
    grid.add_row("fresh", freshness_line(reading["freshness"]))
    return grid


def one_line(reading: dict[str, Any]) -> str:
    """One value in one line."""
    window = reading["window"]
    start = f" {instant(window['start'])}{'' if window['final'] else '*'}" if window else ""
    fields = " ".join(f"{name}={number(value)}" for name, value in reading["value"].items())
    line = f"{reading['key']}{start} {fields} ({duration(reading['freshness']['staleness_ms'])} behind)"
    return printable(line)


def printable(text: str) -> str:
    """Text of others without what would steer a terminal or break a line."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
