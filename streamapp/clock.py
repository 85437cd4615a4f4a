"""The one place where the time of day comes from.

Everything that needs *processing time* takes a `Clock`; *event time* always comes from a record. Tests pass a
`ManualClock` and move it by hand.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of processing time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC; may jump when the system's clock is set."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary origin; never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds of the machine's monotonic clock."""
        return time.monotonic_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until it is told to move; for tests and simulations.

    Attributes:
        wall_ms: what `now_ms` returns.
        elapsed_ms: what `monotonic_ms` returns.
    """

    def __init__(self, wall_ms: int = 0) -> None:
        self.wall_ms = wall_ms
        self.elapsed_ms = 0

    def now_ms(self) -> int:
        """The wall time that was last set, in milliseconds."""
        return self.wall_ms

    def monotonic_ms(self) -> int:
        """The sum of all advances, in milliseconds."""
        return self.elapsed_ms

    def advance(self, ms: int) -> None:
        """Move both clocks forward by `ms` milliseconds."""
        self.wall_ms += ms
        self.elapsed_ms += ms
