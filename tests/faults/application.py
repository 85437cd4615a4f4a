"""The application under test, for `faust -A tests.faults.application`: one table of each kind over one topic.

It goes by the environment: `FAULTS_APP` and `FAULTS_TOPIC` name it, `FAULTS_TABLES` picks tables, and what has to be woven
in before the package is imported (kill points, a jumping clock) is done here first.
"""

import os
from datetime import timedelta

from tests.faults import clock_jumps, kill_points

kill_points.install_from_environment()
clock_jumps.install_from_environment()

from streamapp import Candle, Count, Last, StreamApp, Sum, Trade, hopping, session, tumbling  # noqa: E402
from streamapp.engine import checkpoints  # noqa: E402
from streamapp.kafka import producer  # noqa: E402
from tests.faults.tables import GRACE_MS, SHAPES, Shape  # noqa: E402

if "FAULTS_SMALL_TURNS" in os.environ:
    # so small that what only happens to large checkpoints happens to these as well
    checkpoints._WRITE_IN_THREAD_MIN = 60
    checkpoints._MESSAGES_PER_TURN = 2
    producer._RECORDS_PER_TURN = 20

app = StreamApp(os.environ["FAULTS_APP"])
trades = app.topic(os.environ["FAULTS_TOPIC"], value_type=Trade)
_GRACE = timedelta(milliseconds=GRACE_MS)


def _declare(shape: Shape) -> None:
    if not (shape.fixed or shape.gap_ms):
        values = {"price": Last("price"), "count": Count(), "amount": Sum("size")}
        app.latest_table(shape.name, source=trades, aggregate=values)
        return
    retention = timedelta(milliseconds=shape.retention_ms)
    size, step = timedelta(milliseconds=shape.size_ms), timedelta(milliseconds=shape.step_ms)
    if shape.gap_ms:
        window = session(timedelta(milliseconds=shape.gap_ms), grace=_GRACE, retention=retention)
    elif step < size:
        window = hopping(size, step, grace=_GRACE, retention=retention)
    else:
        window = tumbling(size, grace=_GRACE, retention=retention)
    key = "symbol" if shape.by_symbol else None
    app.window_table(shape.name, source=trades, window=window, aggregate=Candle(), key=key)


_picked = os.environ.get("FAULTS_TABLES")
for _shape in SHAPES:
    if _picked is None or _shape.name in _picked.split(","):
        _declare(_shape)

if "FAULTS_STALL_FILE" in os.environ:
    from tests.faults import stalled_agent

    stalled_agent.declare(app, trades)
