"""The tables under test, as numbers that the application declares them from and the reference works them out from."""

from dataclasses import dataclass

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
DAY_MS = 24 * 60 * MINUTE_MS
GRACE_MS = 10 * SECOND_MS


@dataclass(frozen=True)
class Shape:
    """One table. Times are milliseconds; `gap_ms` makes it a table of sessions, `by_symbol` a re-keyed one."""

    name: str
    size_ms: int = 0
    step_ms: int = 0
    gap_ms: int = 0
    retention_ms: int = DAY_MS
    by_symbol: bool = False

    @property
    def fixed(self) -> bool:
        """Whether its windows lie where they lie, whatever comes."""
        return self.size_ms > 0


MINUTES = Shape("minutes", MINUTE_MS, MINUTE_MS)
#: short retention, so that a run deletes windows as well
HOPS = Shape("hops", 5 * MINUTE_MS, MINUTE_MS, retention_ms=20 * MINUTE_MS)
BURSTS = Shape("bursts", gap_ms=4 * SECOND_MS)
SYMBOLS = Shape("symbols", 5 * MINUTE_MS, 5 * MINUTE_MS, by_symbol=True)
NEWEST = Shape("newest")
#: a value per key and no windows comes last: it has no final topic
SHAPES = (MINUTES, HOPS, BURSTS, SYMBOLS, NEWEST)
WINDOWED = SHAPES[:-1]
