"""`python -m tests.faults`: the fault suite over many seeds, until told to stop, with a table at the end."""

import argparse
import importlib
import itertools
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from streamapp.local.broker import EmbeddedKafka
from tests.conftest import pytest_configure
from tests.faults.lab import FAULTS, OUTCOMES, Fault, Outcome, as_json, execute, markdown

_BROKER_RUNS = 25
"""Runs that share one broker; then a fresh one, so that what deleted topics leave behind does not pile up."""


def main() -> int:
    """Run what was asked for; 1 where something differed."""
    options = _options()
    pytest_configure()
    picked = _picked(options.only, options.without)
    if options.list:
        for fault in picked:
            print(f"{fault.number:>3}  {fault.name:<28} {fault.title}")
        return 0
    # a polite stop goes the way of Ctrl-C, in the background as well: children end and the table is printed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    seeds = [options.seed] if options.seed is not None else itertools.count(options.first)
    if options.seed is None and options.seeds:
        seeds = range(options.first, options.first + options.seeds)
    broker = _Broker()
    try:
        for seed in seeds:
            for fault in picked:
                _run(fault, seed, broker, options.keep)
                _write(options)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
    finally:
        broker.stop()
        _write(options)
        print("\n" + markdown(OUTCOMES))
    failed = [outcome for outcome in OUTCOMES if outcome.state == "failed"]
    for outcome in failed:
        print(f"again: python -m tests.faults --only {outcome.name} --seed {outcome.seed}")
    return 1 if failed else 0


class _Broker:
    """The broker that runs share; it starts when the first one needs it."""

    def __init__(self) -> None:
        self._kafka: EmbeddedKafka | None = None
        self._runs = 0

    def begin(self) -> None:
        """Another run."""
        self._runs += 1
        if self._runs > _BROKER_RUNS or (self._kafka is not None and not self._kafka.running):
            self.stop()

    def address(self) -> str:
        """`host:port`."""
        if self._kafka is None:
            self._kafka = EmbeddedKafka()
            self._kafka.start_blocking()
        return self._kafka.bootstrap

    def stop(self) -> None:
        kafka, self._kafka, self._runs = self._kafka, None, 0
        if kafka is not None:
            kafka.stop_blocking()


def _run(fault: Fault, seed: int, broker: _Broker, keep: bool) -> None:
    broker.begin()
    folder = Path(tempfile.mkdtemp(prefix=f"streamapp-faults-{fault.number}-{seed}-"))
    outcome: Outcome | None = None
    try:
        outcome = execute(fault, seed, broker.address, folder)
    finally:
        if outcome is not None and outcome.state == "failed" and keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    figures = " ".join(f"{name}={value}" for name, value in outcome.figures.items())
    said = f"{outcome.number:>3} {outcome.name:<20} seed {seed:<4} {outcome.state:<8}"
    said += f"{outcome.seconds:>6.1f} s ({outcome.cpu_s:.0f} s of processor)"
    print(f"{said}  {outcome.events} events, {outcome.compared} compared, {outcome.differences} differ  {figures}")
    if outcome.state != "passed":
        print(f"    {outcome.detail[:4_000]}")
    if outcome.state == "failed":
        print(f"    again: python -m tests.faults --only {fault.name} --seed {seed}")
    sys.stdout.flush()


def _write(options: argparse.Namespace) -> None:
    for path, text in ((options.markdown, markdown), (options.json, as_json)):
        if path is not None:
            path.write_text(text(OUTCOMES), encoding="utf-8")


def _picked(only: str | None, without: str | None) -> list[Fault]:
    for module in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.faults.{module.stem}")
    ordered = sorted(FAULTS, key=lambda fault: (fault.number, fault.name))
    wanted = set(only.split(",")) if only else None
    unwanted = set(without.split(",")) if without else set()
    known = {name for fault in ordered for name in (fault.name, str(fault.number))}
    if unknown := ((wanted or set()) | unwanted) - known:
        raise SystemExit(f"expected numbers or names of {sorted(known)}, got {sorted(unknown)}")
    return [
        fault
        for fault in ordered
        if (wanted is None or {fault.name, str(fault.number)} & wanted)
        and not {fault.name, str(fault.number)} & unwanted
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", help="numbers or names of faults, comma separated; default: all")
    parser.add_argument("--without", help="numbers or names to leave out")
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds; 0: until Ctrl-C")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="this seed alone: replays a failure")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--json", type=Path, help="write every run there")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of a run that failed")
    parser.add_argument("--list", action="store_true", help="list the faults")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
