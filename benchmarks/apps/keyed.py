"""A table with one value per key and no windows."""

import os

from benchmarks.apps.records import Keyed
from streamapp import Last, StreamApp

app = StreamApp(os.environ["BENCH_APP_ID"])
values = app.latest_table("values", source=app.topic(os.environ["BENCH_TOPIC"], value_type=Keyed), aggregate=Last("v"))
