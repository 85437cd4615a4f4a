"""How a program under measurement says how far it is. Standard library only: every engine's environment has it."""

import json
import os
import sys
import time


def mark(name: str, **content: object) -> None:
    """One line that the harness reads."""
    # Faust puts its log in the place of sys.stdout
    out = sys.__stdout__
    assert out is not None
    out.write(f"BENCH {json.dumps({'mark': name, **content})}\n")
    out.flush()


class Meter:
    """Counts events; says `first` at the first, and `done` with the seconds between at the last.

    After the last it holds the program still, so that the harness finds it as it was.
    """

    def __init__(self) -> None:
        self.wanted = int(os.environ["BENCH_EVENTS"])
        self.seen = 0
        self.begin = 0.0

    def tick(self) -> None:
        """One more event."""
        seen = self.seen = self.seen + 1
        if seen == 1:
            self.begin = time.perf_counter()
            mark("first")
        elif seen == self.wanted:
            self.finish(seen - 1)

    def finish(self, events: int) -> None:
        """All events are done, so many since `begin`; does not return."""
        mark("done", events=events, seconds=time.perf_counter() - self.begin)
        while True:
            time.sleep(60)
