"""What a venue's protocol is, without any I/O: frames and the time go in, events and texts to send come out.

A protocol object belongs to one feed and outlives its connections: what it knows about sequences stays over a
reconnect, so that whatever was missed meanwhile shows up as a gap. It never raises on input: anything that a peer sends
ends in events. It does no I/O and asks no clock; `now_ms` is always handed in (processing time, milliseconds since the
epoch).

Delivery: records come out in the order in which the venue sent them, repeats included. Dropping repeats is the caller's
task, by `DedupKey`.
"""

from collections.abc import Sequence

import msgspec

#: reasons of `Rejected`, stable: they end up in metrics and dead letters
MALFORMED_JSON = "malformed_json"
WRONG_TYPE = "wrong_type"
BAD_NUMBER = "bad_number"
BAD_TIME = "bad_time"
BAD_SYMBOL = "bad_symbol"
MISSING_FIELD = "missing_field"
OVERSIZED = "oversized"
WRONG_SCHEMA = "wrong_schema"
TOO_MANY_SYMBOLS = "too_many_symbols"
#: a defect of the protocol itself met this frame; the frame is kept and the feed goes on
INTERNAL_ERROR = "internal_error"

#: how much of an oversized frame is kept for the dead letter
KEPT_OVERSIZED_BYTES = 64 << 10


class DedupKey(msgspec.Struct, frozen=True, gc=False):
    """What makes two records of one feed the same event.

    Rule: two records are repeats of each other if and only if `stream` and `record_id` are equal. `sequence` is the
    record's own `sequence` field; it grows along a stream, so it tells how old a record is (which ids a bounded memory
    may forget first), but a smaller sequence alone is no repeat: it may be a late arrival that was never forwarded.

    Attributes:
        stream: topic and key, e.g. `trades|coinbase:BTC-USD`.
        record_id: the venue's id within the stream (trade id, or the sequence of a quote).
        sequence: the record's `sequence` field, or None.
    """

    stream: str
    record_id: str
    sequence: int | None


class TopicRecord(msgspec.Struct, frozen=True, gc=False):
    """One validated record, encoded, ready for its topic.

    Attributes:
        topic: where it goes.
        key: the Kafka key, UTF-8.
        value: JSON with exactly the fields of the topic's model; always valid against that model.
        venue: the venue's name, as in the record.
        symbol: the instrument (`BASE-QUOTE`), or the key's text where the model knows no symbol.
        event_time: milliseconds, as in the record; the time of arrival where the model has none.
        dedup: what identifies it, or None where the venue gives nothing that would.
        replaceable: True if a newer record of the same key makes this one worthless (quotes). Such a record may be
            dropped under pressure; every other one may not.
    """

    topic: str
    key: bytes
    value: bytes
    venue: str
    symbol: str
    event_time: int
    dedup: DedupKey | None
    replaceable: bool


class GapDetected(msgspec.Struct, frozen=True, gc=False):
    """The venue's own numbering says that events are missing.

    The missing numbers are `expected` up to, not including, `got`. They may still arrive (reordering): then they come
    as ordinary records.

    Attributes:
        venue: the venue's name.
        symbol: the instrument.
        expected: the first missing number (trade id, or the sequence that the venue numbers without holes).
        got: the first number after the hole.
        detail: one sentence for people.
    """

    venue: str
    symbol: str
    expected: int
    got: int
    detail: str


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A frame, or one element of it, that cannot be used; it belongs in the dead letters.

    Attributes:
        raw: the original bytes (the whole frame; the beginning of it where it was oversized).
        reason: one of the constants of this module.
        error: one sentence for people: where, expected, got.
    """

    raw: bytes
    reason: str
    error: str


class VenueError(msgspec.Struct, frozen=True, gc=False):
    """The venue reports a problem (a refused subscription, maintenance); the connection stays.

    Attributes:
        venue: the venue's name.
        symbol: the instrument concerned, or None.
        detail: the venue's words, bounded.
    """

    venue: str
    symbol: str | None
    detail: str


class ReconnectRequested(msgspec.Struct, frozen=True, gc=False):
    """The venue wants this connection replaced; close it and open a new one.

    Attributes:
        detail: why.
    """

    detail: str


class SendText(msgspec.Struct, frozen=True, gc=False):
    """A text frame to send now.

    Attributes:
        text: the frame's payload.
    """

    text: str


class SignOfLife(msgspec.Struct, frozen=True, gc=False):
    """The venue is there, and has nothing else to say."""


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A valid frame that carries nothing of interest (acknowledgements, books, candles)."""


FeedEvent = TopicRecord | GapDetected | Rejected | VenueError | ReconnectRequested | SendText | SignOfLife | Ignored

#: events without content are shared
SIGN_OF_LIFE = SignOfLife()
IGNORED = Ignored()


class FeedProtocol:
    """The base of every venue's protocol.

    Subclasses override `open_messages`, `_receive` and, where needed, `tick`, `disconnected`, `resume` and `record_id`.

    Attributes:
        venue: the name that goes into records, keys and statuses.
        url: the WebSocket's address.
        heartbeat_timeout_ms: a connection without any frame for this long is dead.
        max_frame_bytes: a longer frame is rejected unread.
        symbols: the instruments that were asked for, as `BASE-QUOTE` where known.
        topics: where its records go, beside or instead of `trades` and `quotes`; the bridge creates those that are missing.
        pings_count: whether the venue's WebSocket pings are its heartbeat. Elsewhere they prove a gateway alive, no more.
    """

    pings_count = False
    topics: Sequence[str] = ()

    def __init__(
        self,
        *,
        venue: str,
        url: str,
        symbols: Sequence[str] = (),
        heartbeat_timeout_ms: int = 30_000,
        max_frame_bytes: int = 4 << 20,
    ) -> None:
        self.venue = venue
        self.url = url
        self.symbols = tuple(symbols)
        self.heartbeat_timeout_ms = heartbeat_timeout_ms
        self.max_frame_bytes = max_frame_bytes

    def open_messages(self, now_ms: int) -> list[str]:
        """The texts to send, in order, when a connection has just opened (subscriptions)."""
        return []

    def receive(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        """Turn one frame into events, in order.

        Args:
            frame: the payload of one text or binary frame.
            now_ms: when it arrived; becomes `ingest_time`.

        Returns:
            At least one event; never raises, whatever the frame holds.
        """
        if len(frame) > self.max_frame_bytes:
            kept = frame_bytes(frame[:KEPT_OVERSIZED_BYTES])
            text = f"frame of {len(frame)} bytes; the limit is {self.max_frame_bytes} (max_frame_bytes)"
            return [Rejected(kept, OVERSIZED, text)]
        try:
            return self._receive(frame, now_ms)
        except RecursionError:
            return [Rejected(frame_bytes(frame), MALFORMED_JSON, "nested too deeply")]
        except (UnicodeDecodeError, UnicodeEncodeError) as problem:
            return [Rejected(frame_bytes(frame), MALFORMED_JSON, f"not UTF-8: {problem.reason}")]
        except Exception as problem:  # untrusted input must not be able to stop a feed, whatever was overlooked
            return [Rejected(frame_bytes(frame), INTERNAL_ERROR, f"{type(problem).__name__}: {problem}")]

    def tick(self, now_ms: int) -> list[FeedEvent]:
        """Called about once a second while connected: pings to send and whatever only time can tell."""
        return []

    def disconnected(self) -> None:
        """The connection is gone: forget what belongs to it. What is known about sequences stays."""

    def record_id(self, topic: str, value: bytes) -> str | None:
        """The `DedupKey.record_id` that a record stored on one of `topics` had; None where it cannot be told."""
        return None

    def resume(self, symbol: str, trade_id: str) -> None:
        """Tell the protocol, before the first connection, which trade of `symbol` was the last one stored.

        After a restart this is what makes trades missed meanwhile a gap. Venues without a numbering ignore it.

        Args:
            symbol: as in the stored record.
            trade_id: as in the stored record; the newest one.
        """

    def _receive(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        raise NotImplementedError


def frame_bytes(frame: str | bytes) -> bytes:
    """The frame as it was on the wire."""
    return frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")
