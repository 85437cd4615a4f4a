"""Live state for agents: feeds become exact, windowed, queryable tables.

The public names are imported on first use: the command line and the pure layers stay free of Faust's import time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamapp.app import StreamApp as StreamApp
    from streamapp.records.models import Quote as Quote
    from streamapp.records.models import Trade as Trade
    from streamapp.settings import Settings as Settings
    from streamapp.windows.candle import Candle as Candle
    from streamapp.windows.definitions import hopping as hopping
    from streamapp.windows.definitions import tumbling as tumbling
    from streamapp.windows.sessions import session as session

_WHERE = {
    "StreamApp": "streamapp.app",
    "Settings": "streamapp.settings",
    "Trade": "streamapp.records.models",
    "Quote": "streamapp.records.models",
    "Candle": "streamapp.windows.candle",
    "tumbling": "streamapp.windows.definitions",
    "hopping": "streamapp.windows.definitions",
    "session": "streamapp.windows.sessions",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined."""
    if name not in _WHERE:
        raise AttributeError(f"module 'streamapp' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_WHERE[name]), name)
