"""Session windows in a partition's state: sessions grow and merge, and each record finds its own.

Closing, too, is judged record by record: a session that the watermark has closed takes nothing more, even if an event
that is not late itself falls within the gap of it; that event begins a new session.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from streamapp.state.batch import Applied, Batch, LateRecord
from streamapp.state.entry import Entry, split_data_key
from streamapp.windows.aggregate import State
from streamapp.windows.sessions import Session, join, overlapping

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState


class SessionLane:
    """The open sessions of a partition, per key in order of start, and the heap of when they close."""

    def __init__(self, state: "PartitionState") -> None:
        assert isinstance(state.window, Session)
        self._state = state
        self._window = state.window
        self._open: dict[str, dict[int, Entry]] = {}
        self._closing: list[tuple[int, str, int]] = []  # (closes at, key, start); may hold times that are out of date
        self._closed: list[tuple[str, int]] = []  # closed, but their final records are not planned yet

    def is_open(self, key: str, start: int) -> bool:
        """Whether this session can still grow, or waits for its final record."""
        return start in self._open.get(key, ()) or (key, start) in self._closed

    def last_close(self) -> int:
        """The stream time at which all open sessions are closed; -1 where none is open."""
        return max(
            (self._closes_at(entry) for sessions in self._open.values() for entry in sessions.values()), default=-1
        )

    def merge(self, batch: Batch, first: int, outcome: Applied) -> None:
        """Merge the records from position `first` on, in order of offset."""
        state, window, origin, source = self._state, self._window, batch.origin, batch.source
        aggregate, horizon = state.aggregate, state.horizon[batch.origin]
        for position in range(first, len(batch.offsets)):
            time, offset, key = batch.times[position], batch.offsets[position], batch.keys[position]
            state.advance(origin, time if batch.stream_times is None else batch.stream_times[position])
            watermark = state.watermark
            self._close_until(watermark)
            # lateness first: a late record may lie within a session that counted later ones, and is late again on a replay
            seen = state.stream_times[origin]
            if window.is_late(time, seen):
                outcome.late += 1
                state.late.append(LateRecord(key, source, origin, offset, time, seen, (time,), batch.records[position]))
                continue
            if offset <= horizon and self._holds(key, time, origin, offset):
                outcome.repeated += 1
                continue
            partial = aggregate.initial()
            place = offset if state.origins == 1 else offset * state.origins + origin  # as in `merge_records`
            try:
                aggregate.add(partial, batch.records[position], (time, batch.sequences[position], place), source)
            except Exception as problem:  # a user's code, or a value that this aggregate cannot use
                outcome.failed.append((position, problem))
                continue
            try:
                start, entry = self._place(key, time, partial)
            except Exception as problem:  # a user's merge
                outcome.failed.append((position, problem))
                continue
            entry.offsets[origin] = max(entry.offsets[origin], offset)
            state.touch(key, start, entry)
            heappush(self._closing, (self._closes_at(entry), key, start))
            outcome.merged += 1

    def _place(self, key: str, time: int, partial: State) -> tuple[int, Entry]:
        """Count a record's partial into the session that holds its instant from now on.

        What that session covers is merged into it and forgotten. Nothing has changed where a merge raises.
        """
        state, window = self._state, self._window
        merge = state.aggregate.merge
        sessions = self._open.get(key, {})
        spans = self._spans(sessions)
        touched = [spans[index] for index in overlapping(spans, window.span_of(time))]
        if not touched:
            # no closed session can stand under this start: its last event came earlier than this one, which is not late
            return time, self._keep(key, time, Entry([-1] * state.origins, time, partial))
        start, _ = join([window.span_of(time), *touched])
        members = [sessions[begin] for begin, _ in touched]
        entry = members[0]
        if len(members) == 1:
            merge(entry.state, partial)
            if start == touched[0][0]:
                entry.newest = max(entry.newest, time)
                return start, entry
        else:
            merged = state.aggregate.initial()
            for member in members:
                merge(merged, member.state)
            merge(merged, partial)
            offsets = [max(column) for column in zip(*(member.offsets for member in members), strict=True)]
            entry = Entry(offsets, members[-1].newest, merged)
        entry.newest = max(entry.newest, time)
        for begin, _ in touched:
            del sessions[begin]
            state.forget(key, begin)
        return start, self._keep(key, start, entry)

    def _keep(self, key: str, start: int, entry: Entry) -> Entry:
        state = self._state
        state.revive(key, start)
        state.register(key, start)
        state.cache_entry(key, start, entry)
        self._open.setdefault(key, {})[start] = entry
        return entry

    def _holds(self, key: str, time: int, origin: int, offset: int) -> bool:
        """Whether a session that was restored has already counted this record.

        Such a session holds the instant between its first and last event, is the only one that does, and is open, as the
        record is not late.
        """
        return any(
            start <= time <= entry.newest and entry.offsets[origin] >= offset
            for start, entry in self._open.get(key, {}).items()
        )

    def _close_until(self, watermark: int) -> None:
        while self._closing and self._closing[0][0] <= watermark:
            closes_at, key, start = heappop(self._closing)
            entry = self._open.get(key, {}).get(start)
            if entry is None or self._closes_at(entry) != closes_at:
                continue  # it has grown or has been covered since
            del self._open[key][start]
            if not self._open[key]:
                del self._open[key]
            self._closed.append((key, start))

    def any_closed(self, watermark: int) -> bool:
        """Whether final records may have to be planned."""
        return bool(self._closed) or bool(self._closing and self._closing[0][0] <= watermark)

    def take_closed(self, watermark: int) -> list[tuple[str, int]]:
        """Sessions closed since the last call, in the order in which they closed."""
        self._close_until(watermark)
        closed, self._closed = self._closed, []
        return closed

    def _closes_at(self, entry: Entry) -> int:
        return self._window.closes_at_end(entry.newest + self._window.gap_ms)

    def _spans(self, sessions: dict[int, Entry]) -> Sequence[tuple[int, int]]:
        gap = self._window.gap_ms
        return sorted((start, entry.newest + gap) for start, entry in sessions.items())

    def load(self) -> None:
        """Find the open sessions in a restored store, and forget what a merged session covers.

        A crash between a merged session and the tombstones of what it covers leaves both in the changelog.
        """
        state = self._state
        widest: tuple[str, int] | None = None  # key, newest
        for raw_key, raw in state.store.scan(b"d", b"e"):
            key, start = split_data_key(raw_key)
            entry = Entry.decode(raw)
            if widest is not None and widest[0] == key and start <= widest[1]:
                state.forget(key, start)
                continue
            widest = (key, entry.newest)
            if self._closes_at(entry) > state.closed:
                self._open.setdefault(key, {})[start] = entry
                state.cache_entry(key, start, entry)
                heappush(self._closing, (self._closes_at(entry), key, start))
