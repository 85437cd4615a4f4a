"""Run seeds: `python -m tests.simulation --seeds 0:10000`, or one of them again: `python -m tests.simulation --seed N`."""

import sys

from tests.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
