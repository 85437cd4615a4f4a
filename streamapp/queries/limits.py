"""How much a caller may ask for: requests per second, and values read per minute.

Both are token buckets that are kept as one number, the moment at which they are full again, so that a check is a
subtraction and a comparison. They are kept per worker: a caller who spreads requests over three workers has three times
as much.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from streamapp.clock import Clock
from streamapp.errors import ConfigurationError, RateLimitedError

#: what is owed for values is forgiven beyond this, so that no answer makes its caller wait longer
_DEBT_MAX_MS = 60_000.0
_DUST_MS = 1e-6  # sums of fractions


class Bucket:
    """Fills at a rate up to a size; what is taken out has to flow in again.

    Args:
        clock: its monotonic time counts.
        per_s: how much flows in.
        size: how much it holds.
    """

    __slots__ = ("_each_ms", "_full_at", "_most_ms", "_now", "_size_ms")

    def __init__(self, clock: Clock, per_s: float, size: float) -> None:
        self._now = clock.monotonic_ms
        self._each_ms = 1000 / per_s
        self._size_ms = max(size, 1) * self._each_ms
        self._most_ms = self._size_ms + _DUST_MS
        self._full_at = -math.inf

    def take(self) -> float:
        """Take one: 0 where it is there, else the milliseconds until it is; refused ones cost nothing."""
        now = self._now()
        full_at = self._full_at
        full_at = (full_at if full_at > now else now) + self._each_ms
        if full_at - now > self._most_ms:
            return full_at - now - self._size_ms
        self._full_at = full_at
        return 0.0

    def wait_ms(self) -> float:
        """The milliseconds until there is one, without taking it."""
        return max(0.0, self._full_at + self._each_ms - self._now() - self._size_ms - _DUST_MS)

    def owe(self, count: int) -> None:
        """Take as many as were needed, there or not."""
        now = self._now()
        self._full_at = min(max(self._full_at, now) + count * self._each_ms, now + self._size_ms + _DEBT_MAX_MS)


@dataclass(frozen=True, slots=True)
class Rates:
    """What one caller may use; 0 is without a bound.

    Attributes:
        requests_per_s: requests, on average.
        burst: requests at once; 0: those of two seconds.
        cost_per_min: values read, a window of a key being one.
    """

    requests_per_s: float = 0.0
    burst: int = 0
    cost_per_min: int = 0


class Limits:
    """The two buckets of one caller.

    Args:
        rates: their sizes.
        clock: their time.
        on_refused: told `requests` or `cost` at every refusal.
    """

    __slots__ = ("_cost", "_on_refused", "_rates", "_requests")

    def __init__(self, rates: Rates, clock: Clock, on_refused: Callable[[str], None]) -> None:
        per_s = rates.requests_per_s
        self._rates = rates
        self._on_refused = on_refused
        self._requests = Bucket(clock, per_s, rates.burst or 2 * per_s) if per_s else None
        self._cost = Bucket(clock, rates.cost_per_min / 60, rates.cost_per_min) if rates.cost_per_min else None

    @property
    def bounds_cost(self) -> bool:
        """Whether values are counted."""
        return self._cost is not None

    def take_request(self) -> None:
        """Count a request; RateLimitedError where it is one too many."""
        if self._requests is not None and (wait_ms := self._requests.take()):
            self._refuse("requests", wait_ms, f"{self._rates.requests_per_s:g} requests per second are let through")

    def takes_request(self) -> bool:
        """Count a request; False, without a word, where it is one too many."""
        bucket = self._requests
        return bucket is None or not bucket.take()

    def check_cost(self) -> None:
        """RateLimitedError while more values have been read than there are for the time."""
        if self._cost is not None and (wait_ms := self._cost.wait_ms()):
            self._refuse("cost", wait_ms, f"{self._rates.cost_per_min} values per minute may be read; ask for fewer")

    def takes_value(self) -> bool:
        """Count one value; False, without a word, where there is none left."""
        return self._cost is None or not self._cost.take()

    def spend(self, values: int) -> None:
        """Count values that were read."""
        if self._cost is not None:
            self._cost.owe(values)

    def _refuse(self, what: str, wait_ms: float, rule: str) -> None:
        self._on_refused(what)
        raise RateLimitedError(f"too much at once: {rule}", retry_after_s=max(1, math.ceil(wait_ms / 1000)))


def parse_token_limits(setting: str, default: Rates) -> dict[str, Rates]:
    """The rates of `name:requests_per_s:burst:cost_per_min,...`; an empty part is the default.

    Raises:
        ConfigurationError: an entry is malformed, or a name occurs twice.
    """
    found: dict[str, Rates] = {}
    for position, entry in enumerate((part.strip() for part in setting.split(",")), start=1):
        if not entry:
            continue
        name, *parts = entry.rsplit(":", 3)  # a name of OAuth has colons of its own
        wrong = ConfigurationError(
            f"token_limits: entry {position} must be name:requests_per_s:burst:cost_per_min, with numbers from 0 (no bound)"
            f" or nothing (the default), got {entry[:100]!r}"
        )
        if len(parts) != 3 or not name:
            raise wrong
        try:
            rates = Rates(
                float(parts[0]) if parts[0] else default.requests_per_s,
                int(parts[1]) if parts[1] else default.burst,
                int(parts[2]) if parts[2] else default.cost_per_min,
            )
        except ValueError:
            raise wrong from None
        if not (0 <= rates.requests_per_s < math.inf and rates.burst >= 0 and rates.cost_per_min >= 0):
            raise wrong
        if name in found:
            raise ConfigurationError(f"token_limits: {name} occurs twice; give each token one entry")
        found[name] = rates
    return found


class LimitBook:
    """The limits of each caller, for a bounded number of them; the least recently seen are forgotten first.

    Args:
        default: rates of callers without an entry of their own.
        own: rates by name.
        clock: time of the buckets.
        on_refused: told the name and the reason at every refusal.
        callers_max: callers remembered.
    """

    def __init__(
        self,
        default: Rates,
        own: dict[str, Rates],
        clock: Clock,
        on_refused: Callable[[str, str], None],
        callers_max: int = 10_000,
    ) -> None:
        self._default = default
        self._own = own
        self._clock = clock
        self._on_refused = on_refused
        self._callers_max = callers_max
        self._limits: OrderedDict[str, Limits] = OrderedDict()

    def of(self, name: str, label: str = "") -> Limits | None:
        """The limits of a caller, the same ones each time; None where nothing is bounded."""
        rates = self._own.get(name, self._default)
        if not (rates.requests_per_s or rates.cost_per_min):
            return None
        limits = self._limits.get(name)
        if limits is None:
            limits = Limits(rates, self._clock, lambda reason: self._on_refused(label or name, reason))
            self._limits[name] = limits
            while len(self._limits) > self._callers_max:
                self._limits.popitem(last=False)
        else:
            self._limits.move_to_end(name)
        return limits

    def __len__(self) -> int:
        return len(self._limits)
