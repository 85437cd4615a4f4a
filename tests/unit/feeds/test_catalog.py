"""From settings to protocols."""

import pytest

from streamapp.errors import ConfigurationError
from streamapp.feeds.catalog import VENUES, protocol_for
from streamapp.settings import FeedSettings


@pytest.mark.parametrize("venue", sorted(set(VENUES) - {"generic"}))
def test_catalog_builds_every_venue_with_its_own_address(venue):
    subject = protocol_for(FeedSettings(venue=venue, symbols=("BTC-USD",)))

    assert subject.venue == venue
    assert subject.url.startswith("wss://")
    assert subject.heartbeat_timeout_ms > 0


def test_catalog_error_lists_the_venues():
    with pytest.raises(ConfigurationError, match="binance, bitstamp, coinbase, generic, kraken"):
        protocol_for(FeedSettings(venue="mtgox"))


@pytest.mark.parametrize("venue", sorted(set(VENUES) - {"generic"}))
def test_catalog_names_an_option_that_does_not_exist(venue):
    with pytest.raises(ConfigurationError, match=r"(?s)'colour'.*heartbeat_timeout_ms"):
        protocol_for(FeedSettings(venue=venue, options={"colour": "blue"}))
