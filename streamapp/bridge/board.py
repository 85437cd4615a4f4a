"""What is known about each feed, and the statuses that follow from what happens to it."""

from dataclasses import dataclass

from streamapp.clock import Clock
from streamapp.feeds.connection import Disconnected
from streamapp.feeds.protocol import GapDetected, VenueError
from streamapp.records.models import FeedState, FeedStatus

#: a venue's complaints beyond this many per heartbeat period are not published one by one
_ERRORS_PER_PERIOD = 20


@dataclass(slots=True)
class _Feed:
    venue: str
    connected: bool = False
    detail: str = "starting"
    since_ms: int = 0
    ever_connected: bool = False
    circuit_open: bool = False
    errors: int = 0


class FeedBoard:
    """The state of every feed of this bridge, by name; a venue is connected if all of its feeds are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._feeds: dict[str, _Feed] = {}

    def add(self, name: str, venue: str) -> None:
        """A feed that will be connected soon."""
        self._feeds[name] = _Feed(venue, since_ms=self._clock.monotonic_ms())

    def connected(self, name: str) -> FeedStatus:
        """The feed is up: `connected` the first time, `recovered` after that."""
        feed = self._feeds[name]
        now_ms = self._clock.monotonic_ms()
        state: FeedState = "recovered" if feed.ever_connected else "connected"
        text = f"feed {name}: connected"
        if feed.ever_connected:
            text += f" again after {now_ms - feed.since_ms} ms"
        feed.connected = feed.ever_connected = True
        feed.detail, feed.since_ms = text, now_ms
        if not self.is_connected(feed.venue):
            # another feed of the venue is still down, and the venue's state is what counts
            return self._status(feed.venue, "disconnected", self._details(feed.venue))
        return self._status(feed.venue, state, text)

    def disconnected(self, name: str, event: Disconnected) -> FeedStatus:
        """The feed is down, or still down."""
        feed = self._feeds[name]
        if feed.connected:
            feed.connected = False
            feed.since_ms = self._clock.monotonic_ms()
        feed.circuit_open = event.circuit_open
        if event.pause_ms is None:
            following = "no further try"
        elif event.circuit_open:
            following = f"circuit open after {event.failures} failures, next try in {event.pause_ms} ms"
        else:
            following = f"next try in {event.pause_ms} ms"
        feed.detail = f"feed {name}: {event.detail}; {following}"
        return self._status(feed.venue, "disconnected", feed.detail)

    def gap(self, event: GapDetected) -> FeedStatus:
        """Numbers are missing."""
        return FeedStatus(
            venue=event.venue,
            symbol=event.symbol,
            state="gap",
            detail=event.detail[:500],
            sequence_expected=event.expected,
            sequence_got=event.got,
            event_time=self._clock.now_ms(),
        )

    def error(self, name: str, event: VenueError) -> FeedStatus | None:
        """The venue complains; None once it has done so too often since the last heartbeat."""
        feed = self._feeds[name]
        feed.errors += 1
        if feed.errors > _ERRORS_PER_PERIOD:
            return None
        return FeedStatus(
            venue=event.venue,
            symbol=event.symbol,
            state="error",
            detail=event.detail[:500],
            event_time=self._clock.now_ms(),
        )

    def heartbeats(self) -> list[FeedStatus]:
        """The current state of every venue."""
        for feed in self._feeds.values():
            feed.errors = 0
        return [
            self._status(venue, "connected" if self.is_connected(venue) else "disconnected", self._details(venue))
            for venue in self.venues()
        ]

    def venues(self) -> list[str]:
        """All venues, in order of their first feed."""
        return list(dict.fromkeys(feed.venue for feed in self._feeds.values()))

    def is_connected(self, venue: str) -> bool:
        """Whether all feeds of the venue are up."""
        return all(feed.connected for feed in self._feeds.values() if feed.venue == venue)

    def circuit_open(self, venue: str) -> bool:
        """Whether any feed of the venue only probes."""
        return any(feed.circuit_open and not feed.connected for feed in self._feeds.values() if feed.venue == venue)

    def _details(self, venue: str) -> str:
        feeds = [feed for feed in self._feeds.values() if feed.venue == venue]
        down = [feed.detail for feed in feeds if not feed.connected]
        return "; ".join(down or [feed.detail for feed in feeds])[:1_000]

    def _status(self, venue: str, state: FeedState, detail: str) -> FeedStatus:
        return FeedStatus(venue=venue, state=state, detail=detail, event_time=self._clock.now_ms())
