"""The `signals` table: the newest anomaly of each instrument, judged over its final 1-minute candles.

What depends on order cannot be a mergeable partial, so it runs over the sequence of final windows. For each of price and
volume the candles go through a pipe of operators:

    candle ──▶ ln(close / open) ──▶ z-score against the 30 before ──▶ |z| >= 3 ──▶ price_move
    candle ──▶ volume           ──▶ z-score against the 30 before ──▶ |z| >= 3 ──▶ volume_spike
"""

from collections.abc import Mapping
from typing import Any

from streamapp.operators.baseline import against_baseline
from streamapp.operators.operator import Operator, pipe
from streamapp.operators.selecting import filter_, map_
from streamapp.windows.aggregate import Aggregate, Json, Order, OutputField, State
from streamapp.windows.edges import log_ratio

BASELINE = 30
LEAST_Z = 3.0


def _log_return(candle: Mapping[str, Any]) -> float | None:
    return log_ratio(candle.get("close"), candle.get("open"))


def _volume(candle: Mapping[str, Any]) -> float | None:
    return candle.get("volume")


class Signals(Aggregate):
    """The newest anomaly per key, over `FinalRecord`s of 1-minute candles in order of their windows.

    An anomaly is a candle whose log return or volume lies at least `least_z` sample standard deviations from the mean of
    those of the `baseline` candles before it; fewer candles before it, and nothing is judged. Minutes without a trade have
    no candle and are not counted. If return and volume are both out of bounds, the larger |z| is told (price_move on a tie).
    A baseline that does not vary gives no signal: its standard deviation is 0, and no z would be finite.

    `ordered`: there is no merge. A final record may come again after a crash; one whose window does not start after the last
    one judged is skipped. Before its first anomaly a key is not `visible`.

    State: start of the last window judged, states of the two pipes, the newest anomaly's fields or None.
    """

    kind = "signals"
    ordered = True
    slots = 4
    fields = (
        OutputField("kind", "string", nullable=False, description="price_move or volume_spike"),
        OutputField("z", nullable=False, description="(value - mean) / stddev"),
        OutputField("value", nullable=False, description="log return, or volume, of the candle"),
        OutputField("mean", nullable=False, description="mean of the candles before it"),
        OutputField("stddev", nullable=False, description="sample standard deviation of the candles before it"),
        OutputField("window_start", "integer", "ms", nullable=False, description="start of the candle's minute"),
    )

    def __init__(self, baseline: int = BASELINE, least_z: float = LEAST_Z) -> None:
        self.baseline = baseline
        self.least_z = least_z
        self._price = self._watch("price_move", map_(_log_return))
        self._volume = self._watch("volume_spike", map_(_volume))

    def _watch(self, kind: str, measure: Operator) -> Operator:
        least = self.least_z
        return pipe(
            measure,
            against_baseline(self.baseline),
            filter_(lambda judged: abs(judged["z"]) >= least),
            map_(lambda judged: [kind, judged["z"], judged["value"], judged["mean"], judged["stddev"]]),
        )

    def inputs(self, source: int) -> tuple[str, ...]:
        """Start and value of a final window."""
        return ("window_start", "value")

    def initial(self) -> State:
        """Nothing seen."""
        return [-1, self._price.initial(), self._volume.initial(), None]

    def add(self, state: State, record: Any, order: Order, source: int = 0) -> None:
        """Judge one final candle; a repeat is skipped."""
        start = record.window_start
        if start <= state[0]:
            return
        price, moved = self._price.step(state[1], start, record.value)
        volume, surged = self._volume.step(state[2], start, record.value)
        anomaly = max((found for _, found in moved + surged), key=lambda found: abs(found[1]), default=None)
        state[:3] = start, price, volume
        if anomaly is not None:
            state[3] = [*anomaly, start]

    def merge(self, into: State, other: State) -> None:
        """There is none.

        Raises:
            TypeError: always; the aggregate is `ordered`.
        """
        raise TypeError("Signals depends on the order of its candles and has no merge; add them one by one")

    def visible(self, state: State) -> bool:
        """Whether there has been an anomaly yet."""
        return state[3] is not None

    def result(self, state: State, window: tuple[int, int] | None) -> dict[str, Json]:
        """The newest anomaly; all null before the first."""
        newest = state[3] or [None] * len(self.fields)
        return {field.name: value for field, value in zip(self.fields, newest, strict=True)}

    def parameters(self) -> tuple[object, ...]:
        """Length of the baseline and least |z|."""
        return (self.baseline, self.least_z)
