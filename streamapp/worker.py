"""The built-in application, for `faust -A streamapp.worker worker -l info --web-port 6066`.

The only module whose import has an effect: it builds the app from the environment and `streamapp.toml`.
"""

from streamapp import StreamApp
from streamapp.agents.signals import Signals
from streamapp.tables.builtin import KEY_FORM, declare_market_tables

app = StreamApp("streamapp")
candles_1m = declare_market_tables(app)
app.latest_table(
    "signals",
    source=candles_1m,
    aggregate=Signals(),
    description="The newest anomaly: a price move or a volume spike of a closed minute, by its z-score.",
    key_form=KEY_FORM,
)
