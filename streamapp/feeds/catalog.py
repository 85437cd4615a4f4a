"""From a feed's settings to its protocol."""

import importlib
from typing import TYPE_CHECKING

from streamapp.errors import ConfigurationError
from streamapp.feeds.protocol import FeedProtocol
from streamapp.settings import FeedSettings

if TYPE_CHECKING:
    from collections.abc import Callable

#: venue -> module; each has a `build(feed: FeedSettings) -> FeedProtocol`, imported on first use
VENUES = {
    "binance": "streamapp.feeds.binance",
    "bitstamp": "streamapp.feeds.bitstamp",
    "coinbase": "streamapp.feeds.coinbase",
    "generic": "streamapp.feeds.generic",
    "kraken": "streamapp.feeds.kraken",
}


def protocol_for(feed: FeedSettings) -> FeedProtocol:
    """A fresh protocol object for one feed.

    Raises:
        ConfigurationError: no such venue, or its options cannot be used.
    """
    module = VENUES.get(feed.venue)
    if module is None:
        known = ", ".join(sorted(VENUES))
        raise ConfigurationError(
            f"feed venue {feed.venue!r} is not known; expected one of: {known}. "
            "Any other JSON feed works with venue 'generic'."
        )
    build: Callable[[FeedSettings], FeedProtocol] = importlib.import_module(module).build
    return build(feed)
