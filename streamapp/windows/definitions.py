"""Window definitions: which windows an instant of event time belongs to, when they close and when they are forgotten.

All instants are event time in ms since the Unix epoch, never negative; a window is half-open, `[start, end)`. *Stream
time* is the greatest event time that a partition has seen. Drawn for a size of 6 and, for hopping, a step of 2:

    time       0  1  2  3  4  5  6  7  8  9 10 11
    tumbling   [--- 0 ----------][--- 6 ----------]
    hopping    [--- 0 ----------]
                     [--- 2 ----------]
                           [--- 4 ----------]
    session    a gap of 3, events at 1, 2 and 8:
                  [-- 1 -----)         [-- 8 --)
                  first      last + gap
"""

from dataclasses import dataclass
from datetime import timedelta
from math import gcd
from typing import TypeAlias

from streamapp.errors import ConfigurationError
from streamapp.importing import pl
from streamapp.windows.aggregate import TIME, WINDOW

DAY_MS = 86_400_000


def _milliseconds(what: str, value: object, *, least: int) -> int:
    if not isinstance(value, timedelta):
        raise ConfigurationError(
            f"{what}: expected a timedelta, got {value!r}; write timedelta(seconds=...), so that the unit is plain"
        )
    ms, rest = divmod(value, timedelta(milliseconds=1))
    if rest or ms < least:
        raise ConfigurationError(f"{what}: expected whole milliseconds, at least {least}; got {value!r}")
    return ms


def _retention(kind: str, value: timedelta | None, least_ms: int) -> int:
    if value is None:
        return max(DAY_MS, 2 * least_ms)
    ms = _milliseconds(f"{kind} retention", value, least=1)
    if ms < least_ms:
        raise ConfigurationError(
            f"{kind} retention: {ms} ms is shorter than a window and its grace ({least_ms} ms); windows would be"
            " dropped before they close. Make it at least that long"
        )
    return ms


def _not_negative(time_ms: int) -> None:
    if time_ms < 0:
        raise ValueError(f"event time must be at least 0 ms since the epoch, got {time_ms}")


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows of one size that start every step; an instant belongs to several of them.

    Windows that would begin before the epoch do not exist, so only instants below `size_ms` belong to fewer.

    Attributes:
        size_ms: length of a window.
        step_ms: distance of two starts, at most the size; starts are multiples of it.
        grace_ms: how long after its end a window still takes late events.
        retention_ms: how long after its start a window can be read; at least size plus grace.
    """

    size_ms: int
    step_ms: int
    grace_ms: int = 0
    retention_ms: int = DAY_MS

    @property
    def kind(self) -> str:
        """`hopping`."""
        return "hopping"

    def starts_for(self, time_ms: int) -> range:
        """The starts of all windows that hold the instant, ascending.

        Raises:
            ValueError: the time is negative.
        """
        _not_negative(time_ms)
        step = self.step_ms
        first = max(0, ((time_ms - self.size_ms) // step + 1) * step)
        return range(first, time_ms + 1, step)

    def end_of(self, start: int) -> int:
        """The first instant after the window."""
        return start + self.size_ms

    def closes_at(self, start: int) -> int:
        """The stream time from which on the window takes nothing more: its end plus the grace."""
        return start + self.size_ms + self.grace_ms

    def expires_at(self, start: int) -> int:
        """The stream time from which on the window may be dropped; never before it closes."""
        return start + self.retention_ms

    def first_open_start(self, stream_time_ms: int) -> int:
        """The smallest start whose window is still open at that stream time; those before it are closed."""
        step = self.step_ms
        return max(0, ((stream_time_ms - self.size_ms - self.grace_ms) // step + 1) * step)

    def first_kept_start(self, stream_time_ms: int) -> int:
        """The smallest start whose window has not expired at that stream time."""
        step = self.step_ms
        return max(0, ((stream_time_ms - self.retention_ms) // step + 1) * step)

    @property
    def pane_ms(self) -> int:
        """The longest slice that lies wholly in or wholly out of every window: gcd(size, step).

        A batch may be aggregated once per slice and the slices merged into their windows, instead of counting every
        record into each of its windows.
        """
        return gcd(self.size_ms, self.step_ms)

    def assign(self, frame: "pl.DataFrame") -> "pl.DataFrame":
        """`frame` with the window's start in `__window`: one row per record and window, in the order of the records.

        Args:
            frame: holds `__time`, integers >= 0 without nulls.
        """
        time, step = pl.col(TIME), self.step_ms
        first = ((time - self.size_ms) // step + 1) * step
        starts = pl.int_ranges(pl.max_horizontal(first, pl.lit(0, pl.Int64)), time + 1, step, dtype=pl.Int64)
        return frame.with_columns(starts.alias(WINDOW)).explode(WINDOW)

    def fingerprint(self) -> str:
        """What stored windows depend on; grace and retention may be changed freely."""
        return f"hopping({self.size_ms}, {self.step_ms})"


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of one size, end to end; an instant belongs to exactly one.

    Attributes:
        size_ms: length of a window; starts are multiples of it.
        grace_ms: how long after its end a window still takes late events.
        retention_ms: how long after its start a window can be read; at least size plus grace.
    """

    size_ms: int
    grace_ms: int = 0
    retention_ms: int = DAY_MS

    @property
    def kind(self) -> str:
        """`tumbling`."""
        return "tumbling"

    @property
    def step_ms(self) -> int:
        """The distance of two starts: the size."""
        return self.size_ms

    @property
    def pane_ms(self) -> int:
        """The longest slice that lies wholly in or wholly out of every window: the size."""
        return self.size_ms

    def starts_for(self, time_ms: int) -> range:
        """The start of the window that holds the instant, as a range of one.

        Raises:
            ValueError: the time is negative.
        """
        _not_negative(time_ms)
        start = time_ms - time_ms % self.size_ms
        return range(start, start + 1)

    def end_of(self, start: int) -> int:
        """The first instant after the window."""
        return start + self.size_ms

    def closes_at(self, start: int) -> int:
        """The stream time from which on the window takes nothing more: its end plus the grace."""
        return start + self.size_ms + self.grace_ms

    def expires_at(self, start: int) -> int:
        """The stream time from which on the window may be dropped; never before it closes."""
        return start + self.retention_ms

    def first_open_start(self, stream_time_ms: int) -> int:
        """The smallest start whose window is still open at that stream time; those before it are closed."""
        size = self.size_ms
        return max(0, ((stream_time_ms - size - self.grace_ms) // size + 1) * size)

    def first_kept_start(self, stream_time_ms: int) -> int:
        """The smallest start whose window has not expired at that stream time."""
        size = self.size_ms
        return max(0, ((stream_time_ms - self.retention_ms) // size + 1) * size)

    def assign(self, frame: "pl.DataFrame") -> "pl.DataFrame":
        """`frame` with the window's start in `__window`; rows and their order stay as they are.

        Args:
            frame: holds `__time`, integers >= 0 without nulls.
        """
        time = pl.col(TIME)
        return frame.with_columns((time - time % self.size_ms).alias(WINDOW))

    def fingerprint(self) -> str:
        """What stored windows depend on; grace and retention may be changed freely."""
        return f"tumbling({self.size_ms})"


def tumbling(size: timedelta, *, grace: timedelta = timedelta(0), retention: timedelta | None = None) -> Tumbling:
    """Windows of `size`, end to end, starting at multiples of the size since the epoch.

    Args:
        size: length of a window.
        grace: how long after its end, in event time, a window still takes late events.
        retention: how long after its start a window can be read; default one day, or twice size plus grace if longer.

    Raises:
        ConfigurationError: not a timedelta, not whole milliseconds, not positive, or a retention below size plus grace.
    """
    size_ms = _milliseconds("tumbling size", size, least=1)
    grace_ms = _milliseconds("tumbling grace", grace, least=0)
    return Tumbling(size_ms, grace_ms, _retention("tumbling", retention, size_ms + grace_ms))


def hopping(
    size: timedelta, step: timedelta, *, grace: timedelta = timedelta(0), retention: timedelta | None = None
) -> Hopping:
    """Windows of `size` that start at every multiple of `step` since the epoch.

    Args:
        size: length of a window.
        step: distance of two starts, at most the size.
        grace: how long after its end, in event time, a window still takes late events.
        retention: how long after its start a window can be read; default one day, or twice size plus grace if longer.

    Raises:
        ConfigurationError: as for `tumbling`, or a step above the size, which would leave instants uncovered.
    """
    size_ms = _milliseconds("hopping size", size, least=1)
    step_ms = _milliseconds("hopping step", step, least=1)
    if step_ms > size_ms:
        raise ConfigurationError(
            f"hopping step: {step_ms} ms is above the size of {size_ms} ms, so events between two windows would be"
            " lost; make the step at most the size"
        )
    grace_ms = _milliseconds("hopping grace", grace, least=0)
    return Hopping(size_ms, step_ms, grace_ms, _retention("hopping", retention, size_ms + grace_ms))


FixedWindow: TypeAlias = Tumbling | Hopping
"""Windows whose end follows from their start."""
