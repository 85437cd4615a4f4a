"""Helpers of the protocol tests: build a protocol, sort its events."""

import json
from typing import Any

from streamapp.feeds.catalog import protocol_for
from streamapp.feeds.protocol import FeedEvent, FeedProtocol, GapDetected, Rejected, TopicRecord
from streamapp.settings import FeedSettings

NOW_MS = 1_790_000_000_000


def protocol(venue: str, *symbols: str, url: str | None = None, **options: Any) -> FeedProtocol:
    return protocol_for(FeedSettings(venue=venue, symbols=symbols, url=url, options=options))


def feed(subject: FeedProtocol, *messages: object) -> list[FeedEvent]:
    return [event for message in messages for event in subject.receive(json.dumps(message), NOW_MS)]


def records(events: list[FeedEvent]) -> list[dict[str, Any]]:
    return [json.loads(event.value) for event in events if isinstance(event, TopicRecord)]


def gaps(events: list[FeedEvent]) -> list[tuple[str, int, int]]:
    return [(event.symbol, event.expected, event.got) for event in events if isinstance(event, GapDetected)]


def reasons(events: list[FeedEvent]) -> list[str]:
    return [event.reason for event in events if isinstance(event, Rejected)]
