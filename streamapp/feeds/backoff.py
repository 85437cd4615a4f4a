"""When to try again: exponential back-off with full jitter, and a circuit breaker on top of it.

Pure arithmetic over a clock and a random generator: nothing here sleeps.
"""

import random
from dataclasses import dataclass

from streamapp.clock import Clock, SystemClock
from streamapp.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How long to pause after failures. Times are milliseconds.

    Attributes:
        initial_ms: upper bound of the first pause; it doubles with each failure in a row.
        max_delay_ms: the upper bound never grows beyond this.
        max_tries: failures in a row after which no more try is made; None: try for ever.
        stable_ms: a connection that lived this long forgives all failures before it.
        circuit_failures: failures in a row that open the circuit.
        circuit_pause_ms: pause between single probes while the circuit is open.
    """

    initial_ms: int = 500
    max_delay_ms: int = 30_000
    max_tries: int | None = None
    stable_ms: int = 30_000
    circuit_failures: int = 8
    circuit_pause_ms: int = 120_000

    def __post_init__(self) -> None:
        """Refuse figures that would mean a busy loop or no try at all."""
        if self.initial_ms <= 0 or self.max_delay_ms < self.initial_ms:
            raise ConfigurationError(
                f"back-off: expected 0 < initial_ms <= max_delay_ms, got {self.initial_ms} and {self.max_delay_ms}"
            )
        if self.max_tries is not None and self.max_tries < 1:
            raise ConfigurationError(f"back-off: expected max_tries >= 1 or none, got {self.max_tries}")
        if self.circuit_failures < 1 or self.circuit_pause_ms <= 0:
            raise ConfigurationError(
                "back-off: expected circuit_failures >= 1 and circuit_pause_ms > 0, "
                f"got {self.circuit_failures} and {self.circuit_pause_ms}"
            )


class Backoff:
    """The state of one connection's retries.

    The pause after failure number n (from 0) is uniform in [0, min(max_delay, initial * 2**n)): "full jitter" of Marc
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Where the circuit is open the pause is long
    on purpose, so there it is uniform in [pause / 2, pause) ("equal jitter" of the same article).
    """

    def __init__(self, policy: BackoffPolicy, *, rng: random.Random | None = None, clock: Clock | None = None) -> None:
        self._policy = policy
        self._rng = rng or random.Random()
        self._clock = clock or SystemClock()
        self._failures = 0
        self._connected_at_ms: int | None = None

    @property
    def failures(self) -> int:
        """Failures in a row so far."""
        return self._failures

    @property
    def circuit_open(self) -> bool:
        """Whether tries are only probes now; closes once a connection has proved stable."""
        self._forgive_if_stable()
        return self._failures >= self._policy.circuit_failures

    @property
    def exhausted(self) -> bool:
        """Whether the maximum number of tries is used up."""
        return self._policy.max_tries is not None and self._failures >= self._policy.max_tries

    def connected(self) -> None:
        """A connection is up; the failures before it are forgiven once it has lasted the stable period."""
        self._connected_at_ms = self._clock.monotonic_ms()

    def failed(self) -> int | None:
        """A try failed or a connection ended: the milliseconds to pause, or None when no try is left."""
        self._forgive_if_stable()
        self._connected_at_ms = None
        self._failures += 1
        if self.exhausted:
            return None
        policy = self._policy
        if self._failures >= policy.circuit_failures:
            return int(policy.circuit_pause_ms * (0.5 + self._rng.random() / 2))
        exponent = min(self._failures - 1, 32)  # beyond this the bound is the maximum anyway
        return int(self._rng.random() * min(policy.max_delay_ms, policy.initial_ms << exponent))

    def _forgive_if_stable(self) -> None:
        since = self._connected_at_ms
        if since is not None and self._clock.monotonic_ms() - since >= self._policy.stable_ms:
            self._failures = 0
