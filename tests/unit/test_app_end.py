"""A worker that failed ends, even where its own stop hangs."""

import subprocess
import sys

PROGRAM = """
import logging
import threading
from streamapp import StreamApp

logging.basicConfig()
app = StreamApp("hanging", stop_timeout_ms=200)
app._end_in_time()
threading.Event().wait(60)
"""


def test_a_failed_worker_that_hangs_ends_its_process():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "ending the process, nothing is lost by it" in ran.stderr
