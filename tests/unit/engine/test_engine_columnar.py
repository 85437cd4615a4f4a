"""What threads that decode at the same time share, and when it is imported."""

import subprocess
import sys

#: polars stands in for numpy until something asks it of the stand-in; when two threads do, the second one fails
FIRST_USE = """
import sys
import streamapp.engine.lane, streamapp.app, streamapp.worker

early = [name for name in ("polars", "polars._plr") if name in sys.modules]
assert not early, f"{early}: a worker is not to wait for them before it is ready"

from streamapp.state.grouping import pl

pl.Series
from polars import _dependencies

assert not isinstance(_dependencies.numpy, _dependencies._LazyModule), "numpy is taken in by the first thread that needs it"
"""


def test_polars_comes_with_the_first_use_and_has_taken_numpy_in() -> None:
    ran = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
