"""Measure this project beside other engines on one embedded Kafka: a table, a plot and a JSON document."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import publish
from benchmarks.engines import ENGINES
from benchmarks.environments import DEFAULT_FOLDER
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.sizes import PROFILES
from benchmarks.suite import PARTS, run

if TYPE_CHECKING:
    from collections.abc import Callable

_OUT = Path(__file__).parent / "out"


def main() -> int:
    """Run what the command line asks for; 0 where everything was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="example: python -m benchmarks --quick --only throughput,latency",
    )
    parser.add_argument("--only", type=_names(PARTS), default=list(PARTS), metavar="A,B", help=", ".join(PARTS))
    parser.add_argument(
        "--engines",
        type=_names([one.name for one in ENGINES], ";"),
        default=[],
        metavar="A;B",
        help="engines of the comparison, by their names in the table; default: all",
    )
    parser.add_argument("--quick", action="store_true", help="the short version, about 5 minutes")
    parser.add_argument("--profile", choices=PROFILES, default="full", help="how large to be; --quick is one of them")
    parser.add_argument("--rounds", type=int, help="of the comparison, instead of the profile's")
    parser.add_argument("--out", type=Path, default=_OUT, help="folder of result.json and result.png")
    parser.add_argument("--envs", type=Path, default=DEFAULT_FOLDER, help="where other engines are installed")
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes in this folder")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing: table and plot of an earlier run")
    parser.add_argument("--publish", action="store_true", help="also write benchmarks/results and docs/benchmarks.md")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    if options.show:
        results = Results.load(options.show)
    else:
        profile = "quick" if options.quick else options.profile
        results = asyncio.run(
            run(
                options.only,
                profile,
                options.envs.resolve(),
                engines=options.engines,
                rounds=options.rounds,
                keep_logs=options.logs.resolve() if options.logs else None,
            )
        )
        results.save(options.out / "result.json")
    print(report(results))
    for path in publish.write_plot(results, options.out / "result.png"):
        print(f"plot: {path}")
    print(f"results: {options.show or options.out / 'result.json'}")
    if options.publish:
        for path in publish.publish(results):
            print(f"published: {path}")
    return results.exit_code


def _names(known: "list[str] | dict[str, int]", separator: str = ",") -> "Callable[[str], list[str]]":
    def parse(text: str) -> list[str]:
        wanted = [name.strip() for name in text.split(separator) if name.strip()]
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise argparse.ArgumentTypeError(f"expected some of: {f'{separator} '.join(known)}; got {text!r}")
        return wanted

    return parse


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
