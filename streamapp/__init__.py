"""Live state for agents: feeds become exact, windowed, queryable tables.

The public names are imported on first use: the command line and the pure layers stay free of Faust's import time.
"""

import importlib
from typing import TYPE_CHECKING, Any

from streamapp.importing import uncollected

if TYPE_CHECKING:
    from streamapp.app import StreamApp as StreamApp
    from streamapp.app import WindowTable as WindowTable
    from streamapp.records.final import FinalRecord as FinalRecord
    from streamapp.records.models import DeadLetter as DeadLetter
    from streamapp.records.models import FeedStatus as FeedStatus
    from streamapp.records.models import Quote as Quote
    from streamapp.records.models import Trade as Trade
    from streamapp.settings import Settings as Settings
    from streamapp.windows.aggregate import Aggregate as Aggregate
    from streamapp.windows.aggregate import OutputField as OutputField
    from streamapp.windows.basic import Count as Count
    from streamapp.windows.basic import Max as Max
    from streamapp.windows.basic import Mean as Mean
    from streamapp.windows.basic import Min as Min
    from streamapp.windows.basic import Sum as Sum
    from streamapp.windows.candle import Candle as Candle
    from streamapp.windows.definitions import hopping as hopping
    from streamapp.windows.definitions import tumbling as tumbling
    from streamapp.windows.distinct import DistinctCount as DistinctCount
    from streamapp.windows.edges import First as First
    from streamapp.windows.edges import Last as Last
    from streamapp.windows.edges import LogReturn as LogReturn
    from streamapp.windows.flow import Rate as Rate
    from streamapp.windows.flow import Vwap as Vwap
    from streamapp.windows.fold import Fold as Fold
    from streamapp.windows.named import Named as Named
    from streamapp.windows.quantiles import Quantiles as Quantiles
    from streamapp.windows.sessions import session as session
    from streamapp.windows.spread import Parkinson as Parkinson
    from streamapp.windows.spread import RealizedVolatility as RealizedVolatility
    from streamapp.windows.spread import StdDev as StdDev
    from streamapp.windows.spread import Variance as Variance

_WHERE = {
    "StreamApp": "streamapp.app",
    "WindowTable": "streamapp.app",
    "FinalRecord": "streamapp.records.final",
    "Trade": "streamapp.records.models",
    "Quote": "streamapp.records.models",
    "FeedStatus": "streamapp.records.models",
    "DeadLetter": "streamapp.records.models",
    "Settings": "streamapp.settings",
    "Aggregate": "streamapp.windows.aggregate",
    "OutputField": "streamapp.windows.aggregate",
    "Count": "streamapp.windows.basic",
    "Sum": "streamapp.windows.basic",
    "Mean": "streamapp.windows.basic",
    "Min": "streamapp.windows.basic",
    "Max": "streamapp.windows.basic",
    "Candle": "streamapp.windows.candle",
    "hopping": "streamapp.windows.definitions",
    "tumbling": "streamapp.windows.definitions",
    "DistinctCount": "streamapp.windows.distinct",
    "First": "streamapp.windows.edges",
    "Last": "streamapp.windows.edges",
    "LogReturn": "streamapp.windows.edges",
    "Vwap": "streamapp.windows.flow",
    "Rate": "streamapp.windows.flow",
    "Fold": "streamapp.windows.fold",
    "Named": "streamapp.windows.named",
    "Quantiles": "streamapp.windows.quantiles",
    "session": "streamapp.windows.sessions",
    "Variance": "streamapp.windows.spread",
    "StdDev": "streamapp.windows.spread",
    "RealizedVolatility": "streamapp.windows.spread",
    "Parkinson": "streamapp.windows.spread",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined."""
    if name not in _WHERE:
        raise AttributeError(f"module 'streamapp' has no attribute {name!r}; it has {', '.join(__all__)}")
    with uncollected():
        return getattr(importlib.import_module(_WHERE[name]), name)
