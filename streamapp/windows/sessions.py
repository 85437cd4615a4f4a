"""Session windows: bursts of events with less than a gap between neighbours, which merge when an event joins them.

A session is the half-open span `[first event, last event + gap)`; it is stored under its start. Two events less than
the gap apart belong together; exactly the gap apart, they do not. A late event may bridge two sessions (gap 4):

    before   [-- 1 2 ----)        [-- 9 ---)
    event 5              5
    after    [-- 1 2 ---- 5 ----- 9 ---)        starts 1 and 9 become start 1; the session under 9 is gone
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import TypeAlias

from streamapp.importing import pl
from streamapp.windows.aggregate import TIME, WINDOW
from streamapp.windows.definitions import DAY_MS, _milliseconds, _not_negative, _retention

Span: TypeAlias = tuple[int, int]
"""Start and end of a session in ms; the end is the last event plus the gap."""

END = "__end"
"""The column beside `__window` that holds a session's end."""

_start: "itemgetter[int]" = itemgetter(0)
_end: "itemgetter[int]" = itemgetter(1)


@dataclass(frozen=True, slots=True)
class Session:
    """Windows that follow the events of each key.

    Attributes:
        gap_ms: the silence that ends a session.
        grace_ms: how long after its end a session still takes late events.
        retention_ms: how long after its last event a session can be read; at least gap plus grace.
    """

    gap_ms: int
    grace_ms: int = 0
    retention_ms: int = DAY_MS

    @property
    def kind(self) -> str:
        """`session`."""
        return "session"

    def span_of(self, time_ms: int) -> Span:
        """The session that a lone event makes.

        Raises:
            ValueError: the time is negative.
        """
        _not_negative(time_ms)
        return time_ms, time_ms + self.gap_ms

    def closes_at_end(self, end: int) -> int:
        """The stream time from which on the session that ends there takes nothing more: its end plus the grace."""
        return end + self.grace_ms

    def expires_at_end(self, end: int) -> int:
        """The stream time from which on the session that ends there may be dropped; never before it closes."""
        return end - self.gap_ms + self.retention_ms

    def is_late(self, time_ms: int, stream_time_ms: int) -> bool:
        """Whether an event, alone, makes a session that is closed already; it may still join an open one."""
        return time_ms + self.gap_ms + self.grace_ms <= stream_time_ms

    def assign(self, frame: "pl.DataFrame", key: str) -> "pl.DataFrame":
        """The frame's own sessions: `__window` (start) and `__end`, as if no session existed before.

        Each (key, `__window`) of the answer is a partial that `insert` fits into the sessions known so far.

        Args:
            frame: holds `key` and `__time`, integers >= 0 without nulls.
            key: the column to tell keys apart by.

        Returns:
            The rows sorted by key and time, stable.
        """
        time = pl.col(TIME)
        fresh = (time - time.shift(1) >= self.gap_ms).fill_null(value=True) | (pl.col(key) != pl.col(key).shift(1))
        numbered = frame.sort(key, TIME, maintain_order=True).with_columns(
            fresh.fill_null(value=True).cum_sum().alias("__session")
        )
        return numbered.with_columns(
            time.min().over("__session").alias(WINDOW), (time.max().over("__session") + self.gap_ms).alias(END)
        ).drop("__session")

    def fingerprint(self) -> str:
        """What stored sessions depend on; grace and retention may be changed freely."""
        return f"session({self.gap_ms})"


def session(gap: timedelta, *, grace: timedelta = timedelta(0), retention: timedelta | None = None) -> Session:
    """Windows of each key's own bursts of events, ended by a silence of `gap`.

    Args:
        gap: two events of a key closer than this belong together.
        grace: how long after its end, in event time, a session still takes late events.
        retention: how long after its last event a session can be read; default one day, or twice gap plus grace.

    Raises:
        ConfigurationError: not a timedelta, not whole milliseconds, not positive, or a retention below gap plus grace.
    """
    gap_ms = _milliseconds("session gap", gap, least=1)
    grace_ms = _milliseconds("session grace", grace, least=0)
    return Session(gap_ms, grace_ms, _retention("session", retention, gap_ms + grace_ms))


def overlapping(sessions: Sequence[Span], span: Span) -> range:
    """Which sessions of a key a new span touches: their indices, adjacent and ascending; all of them merge with it.

    Args:
        sessions: sorted by start and disjoint, as sessions of one key always are.
        span: of an event (`Session.span_of`) or of a partial.
    """
    start, end = span
    return range(bisect_right(sessions, start, key=_end), bisect_left(sessions, end, key=_start))


def join(spans: Iterable[Span]) -> Span:
    """The session that several, at least one, become together."""
    members = list(spans)
    return min(map(_start, members)), max(map(_end, members))


def insert(sessions: Sequence[Span], span: Span) -> tuple[list[Span], Span, list[Span]]:
    """Fit a span into a key's sessions.

    Returns:
        The sessions afterwards, the one that now holds the span, and those that it took the place of, ascending. Of
        these the first may have the same start as the new one: it is overwritten, the others need a tombstone.
    """
    touched = overlapping(sessions, span)
    covered = [sessions[index] for index in touched]
    merged = join([span, *covered])
    return [*sessions[: touched.start], merged, *sessions[max(touched.start, touched.stop) :]], merged, covered
