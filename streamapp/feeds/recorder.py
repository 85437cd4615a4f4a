"""Recording a feed: a protocol that writes down what passes through it.

It wraps the feed's own protocol, so the connection, its keep-alive and its reconnects are those of the bridge.
Credentials are added behind it, by the connection, and therefore never get into the file.
"""

from collections.abc import Sequence

from streamapp.feeds.auth import redact_url
from streamapp.feeds.protocol import FeedEvent, FeedProtocol, SendText
from streamapp.feeds.recording import RecordingWriter


class RecordingProtocol(FeedProtocol):
    """Passes everything on to `inner` and writes it to `writer`.

    Args:
        inner: the feed's protocol.
        writer: where the lines go; the caller closes it.
    """

    def __init__(self, inner: FeedProtocol, writer: RecordingWriter) -> None:
        super().__init__(
            venue=inner.venue,
            url=inner.url,
            symbols=inner.symbols,
            heartbeat_timeout_ms=inner.heartbeat_timeout_ms,
            max_frame_bytes=inner.max_frame_bytes,
        )
        self.pings_count = inner.pings_count
        self._inner = inner
        self._writer = writer
        self._shown_url = redact_url(inner.url)

    def open_messages(self, now_ms: int) -> list[str]:
        """Note the connection and the texts that open it."""
        self._writer.opened(self._shown_url, now_ms / 1000)
        messages = self._inner.open_messages(now_ms)
        for text in messages:
            self._writer.sent(self._shown_url, text, now_ms / 1000)
        return messages

    def receive(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        """Note the frame as it came."""
        self._writer.received(frame, now_ms / 1000)
        return self._noted(self._inner.receive(frame, now_ms), now_ms)

    def tick(self, now_ms: int) -> list[FeedEvent]:
        """Note what the protocol sends."""
        return self._noted(self._inner.tick(now_ms), now_ms)

    def disconnected(self) -> None:
        """Pass it on."""
        self._inner.disconnected()

    def _noted(self, events: Sequence[FeedEvent], now_ms: int) -> list[FeedEvent]:
        for event in events:
            if isinstance(event, SendText):
                self._writer.sent(self._shown_url, event.text, now_ms / 1000)
        return list(events)
