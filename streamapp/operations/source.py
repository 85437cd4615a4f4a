"""What operations read from, and how the freshness of their answers is put together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamapp.clock import Clock
from streamapp.errors import BadParameterError, QueryError, StaleError, UnknownKeyError
from streamapp.operations.answers import Freshness, Item, ItemFreshness, Missing, Span
from streamapp.operations.untrusted import is_askable, shown_fields, shown_key, shown_word
from streamapp.queries.model import Queries, Reading, TableInfo
from streamapp.settings import Settings

SIGNALS_TABLE = "signals"
_ANOMALY_KINDS = ("price_move", "volume_spike")
_FEEDS_MAX = 20
_SURROUNDINGS_MS = 250


@dataclass(frozen=True, slots=True)
class _Around:
    """What the worker says of itself and of the feeds, as of a moment."""

    read_ms: int
    restoring: bool
    lag: int
    feeds_down: tuple[str, ...]


@dataclass(slots=True)
class Surroundings:
    """What was last collected, for all callers who may see the same."""

    known: _Around | None = None


class Source:
    """The reads of a caller, which answer for the whole cluster, and what bounds the operations over them.

    Args:
        queries: the reads, bound to the caller.
        settings: bounds.
        clock: local time.
        owner: to whom cursors belong.
        surroundings: shared with those who may see the same.
        again: the same reads, not counted: for what a call has paid for and looks at again; default: `queries`.
    """

    def __init__(
        self,
        queries: Queries,
        settings: Settings,
        clock: Clock,
        *,
        owner: str = "",
        surroundings: Surroundings | None = None,
        again: Queries | None = None,
    ) -> None:
        self.queries = queries
        self.again = queries if again is None else again
        self.settings = settings
        self.clock = clock
        self.owner = owner
        self._surroundings = surroundings or Surroundings()

    def _around(self) -> _Around:
        """The surroundings, at most a quarter of a second old: collecting them costs several times a read."""
        now_ms = self.clock.monotonic_ms()
        known = self._surroundings.known
        if known is None or now_ms - known.read_ms >= _SURROUNDINGS_MS:
            worker = self.queries.worker()
            down = tuple(shown_key(feed.venue) for feed in self.queries.feeds() if not feed.connected)[:_FEEDS_MAX]
            known = _Around(now_ms, bool(worker.restoring), sum(worker.lag.values()), down)
            self._surroundings.known = known
        return known

    def freshness(self, readings: Sequence[Reading] = (), missing_partitions: Sequence[int] = ()) -> Freshness:
        """The worst of several values' freshness; without any, what the worker says of itself."""
        around = self._around()
        blocks = [reading.freshness for reading in readings]
        lags = [block.lag for block in blocks]
        # the gaps are those of a key's feed, whichever table it is read from
        gaps = {reading.key: reading.freshness.feed.gaps for reading in readings if reading.freshness.feed is not None}
        return Freshness(
            as_of=max((block.as_of for block in blocks), default=self.clock.now_ms()),
            watermark=min((block.watermark for block in blocks if block.watermark is not None), default=None),
            staleness_ms=max((block.staleness_ms for block in blocks), default=None),
            age_ms=max((block.age_ms for block in blocks if block.age_ms is not None), default=None),
            lag=_most(lags) if lags else around.lag,
            restoring=around.restoring or any(block.restoring for block in blocks),
            feeds_down=around.feeds_down,
            gaps=sum(gaps.values()),
            missing_partitions=sorted(missing_partitions),
        )


def _most(lags: Sequence[int | None]) -> int | None:
    known = [lag for lag in lags if lag is not None]
    return max(known) if len(known) == len(lags) else None


def refuse_stale(freshness: Freshness, max_staleness_ms: int | None) -> None:
    """StaleError where an answer is further behind than its caller accepts, or of nothing, as nobody answered."""
    staleness = freshness.staleness_ms
    if max_staleness_ms is not None and staleness is None and freshness.missing_partitions:
        raise nothing_read(freshness.as_of)
    if max_staleness_ms is not None and staleness is not None and staleness > max_staleness_ms:
        raise StaleError(
            f"the view may be {staleness} ms behind, more than max_staleness_ms={max_staleness_ms}", staleness
        )


def nothing_read(as_of: int) -> StaleError:
    """Why an answer of nothing is none where its caller wants to know how old it is."""
    return StaleError("nothing could be read, so nothing is known of how far it is behind", as_of)


def item(reading: Reading) -> Item:
    """A reading as answers show it."""
    block, window = reading.freshness, reading.window
    value = shown_fields(reading.value)
    if reading.table == SIGNALS_TABLE and "kind" in value:
        value["kind"] = anomaly_kind(value["kind"])
    return Item(
        key=shown_key(reading.key),
        window=None if window is None else Span(start=window.start, end=window.end, final=window.final),
        value=value,
        freshness=ItemFreshness(
            age_ms=block.age_ms,
            staleness_ms=block.staleness_ms,
            lag=block.lag,
            feed_connected=None if block.feed is None else block.feed.connected,
            stale=block.stale is True,
        ),
    )


def anomaly_kind(kind: object) -> str:
    """The kind of an anomaly, which is a word of a list."""
    return shown_word(str(kind), _ANOMALY_KINDS)


def missing(key: str, error: QueryError) -> Missing:
    """Why one of several keys has no value."""
    nearest = filter(is_askable, error.nearest) if isinstance(error, UnknownKeyError) else ()
    return Missing(
        key=shown_key(key), code=error.code, detail=str(error)[:200], nearest=[shown_key(one) for one in nearest]
    )


def numeric_fields(info: TableInfo) -> list[str]:
    """The fields of a table that are numbers, in order."""
    return [field.name for field in info.fields if field.type in ("number", "integer", "any")]


def number_field(info: TableInfo, wanted: str | None, preferred: Sequence[str]) -> str:
    """The numeric field that is asked for, else the first of the preferred ones, else the table's first.

    Raises:
        BadParameterError: the table has no such field.
    """
    known = numeric_fields(info)
    if wanted is None:
        found = next((name for name in preferred if name in known), known[0] if known else None)
        if found is not None:
            return found
    elif wanted in known:
        return wanted
    raise BadParameterError(
        "field",
        f"field {str(wanted)[:100]!r}: expected a numeric field of {info.name}: {', '.join(known) or 'it has none'}",
    )


def number(value: object) -> float | None:
    """A value as a number; None where it is none, or one that JSON has no form for."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:  # of a user's fold
        return None
    return found if math.isfinite(found) else None
