"""Records that the bridge makes itself, apart from the venues' own: feed statuses and dead letters."""

import base64
import hashlib

from streamapp.bridge.outbox import Entry
from streamapp.records.models import DeadLetter, FeedStatus

STATUS_TOPIC = "feed-status"
DEAD_LETTER_TOPIC = "dead-letters"


def status_entry(status: FeedStatus, *, barrier: bool = False) -> Entry:
    """A status on its way."""
    value = status.__pydantic_serializer__.to_json(status)
    return Entry(STATUS_TOPIC, status.key.encode(), value, status.venue, barrier=barrier)


def dead_letter_entry(
    *, key: bytes, venue: str, source: str, raw: bytes, reason: str, error: str, now_ms: int, kept_bytes: int
) -> Entry:
    """A dead letter on its way.

    Args:
        key: the record's own key; the venue where a frame has none.
        venue: for the metrics.
        source: the topic that it was meant for, or `feed:NAME` for a frame.
        raw: what could not be used; may be empty where it was never read.
        reason: a stable word.
        error: a sentence for people.
        now_ms: processing time.
        kept_bytes: of `raw` at most this much is embedded; the error says when it was cut.
    """
    kept = raw[:kept_bytes]
    if len(kept) < len(raw):
        error = f"{error} (the first {len(kept)} of {len(raw)} bytes are kept)"
    digest = hashlib.blake2b(raw or str(now_ms).encode(), digest_size=12).hexdigest()
    letter = DeadLetter(
        id=f"{source}:{digest}",
        value_base64=base64.b64encode(kept).decode(),
        reason=reason,
        error=error[:2_000],
        topic=source,
        first_time=now_ms,
        last_time=now_ms,
    )
    return Entry(DEAD_LETTER_TOPIC, key, letter.__pydantic_serializer__.to_json(letter), venue)
