"""The `streamapp` command: one module per subcommand, imported only when it is used.

Exit codes: 0 success, 2 bad usage, 1 failure with one clear line on standard error. `--debug` shows the traceback.
"""

import importlib
import sys
from typing import Any, cast

import click
import typer

#: subcommand -> (module, attribute, one line for `--help`); listed in the order of the data's way
COMMANDS = {
    "demo": ("streamapp.cli.demo", "demo", "Kafka, simulator, bridge and worker in one command."),
    "kafka": ("streamapp.cli.kafka", "kafka", "Run the embedded Kafka in the foreground."),
    "doctor": ("streamapp.cli.doctor", "doctor", "Check broker, topics, versions, disk and ports."),
    "simulate": ("streamapp.cli.simulate", "simulate", "Serve a venue's protocol from a seeded random walk."),
    "record": ("streamapp.cli.record", "record", "Record a feed's frames to a file."),
    "replay": ("streamapp.cli.replay", "replay", "Serve recorded frames over a WebSocket."),
    "bridge": ("streamapp.cli.bridge", "bridge", "Forward feeds into Kafka."),
    "tables": ("streamapp.cli.tables", "tables", "List, read, watch and rebuild tables."),
    "mcp": ("streamapp.cli.mcp", "mcp", "Serve a worker's tables to an MCP client over standard input and output."),
    "schema": ("streamapp.cli.schema", "schema", "Print the tools' schemas for a model's API."),
    "token": ("streamapp.cli.token", "token", "Make an access token for the HTTP API."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when it is called, so that `--help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All subcommands, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and build one subcommand; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        target: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(target, click.Command):
            return target
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(name=cmd_name)(target)
            target = single
        # typer brings a click of its own, whose commands behave alike without being related
        command = cast("click.Command", typer.main.get_command(target))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in COMMANDS])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: streamapp demo --duration 60",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="streamapp")
def main(debug: bool) -> None:
    """Live state for agents: feeds become exact, windowed, queryable tables."""


def run() -> None:
    """The console entry point."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        outcome = main.main(standalone_mode=False)
        sys.exit(outcome if isinstance(outcome, int) else 0)
    except (KeyboardInterrupt, click.Abort, typer.Abort):
        sys.exit(130)
    except Exception as problem:
        # typer brings a click of its own, so usage errors and `--help` come as one of two unrelated families
        exit_code = getattr(problem, "exit_code", None)
        if isinstance(exit_code, int):
            if hasattr(problem, "show"):
                problem.show()
            sys.exit(exit_code)
        if debug:
            raise
        print(f"streamapp: {_line(problem)}", file=sys.stderr)
        sys.exit(1)


def _line(problem: Exception) -> str:
    # by its title: the model takes long to load; its own text has several lines, and the values of secrets
    if getattr(problem, "title", None) == "Settings":
        from streamapp.settings import explain

        return f"settings: {explain(cast('Any', problem))}"
    return " ".join(str(problem).split()) or type(problem).__name__
