"""The built-in application, for `faust -A streamapp.worker worker -l info --web-port 6066`.

The only module whose import has an effect: it builds the app from the environment and `streamapp.toml`.
"""

import sys

from streamapp import StreamApp
from streamapp.agents.signals import Signals
from streamapp.errors import StreamAppError
from streamapp.tables.builtin import KEY_FORM, declare_market_tables

try:
    app = StreamApp("streamapp")
except StreamAppError as problem:  # a setting that cannot be used: its text says all, and no caller's frame says more
    if "--debug" in sys.argv:
        raise
    sys.exit(f"streamapp: {problem}")
candles_1m = declare_market_tables(app)
app.latest_table(
    "signals",
    source=candles_1m,
    aggregate=Signals(),
    description="The newest anomaly: a price move or a volume spike of a closed minute, by its z-score.",
    key_form=KEY_FORM,
)
