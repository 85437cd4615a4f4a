"""What threads that decode at the same time share."""

import subprocess
import sys

#: polars stands in for numpy until something asks it of the stand-in; when two threads do, the second one fails
LOOK = """
import polars
import streamapp.engine.lane
from polars import _dependencies

assert not isinstance(_dependencies.numpy, _dependencies._LazyModule), "numpy is taken in by the first thread that needs it"
"""


def test_polars_has_taken_numpy_in_before_threads_decode() -> None:
    ran = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
