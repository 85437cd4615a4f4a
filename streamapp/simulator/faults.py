"""What goes wrong on purpose, seeded: which trades a venue does not tell, tells twice, late, or with garbage before.

Pure. The decisions are drawn per trade, whoever is connected, so a test that knows the seed knows them too.
"""

import random
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Probability = Field(default=0.0, ge=0, le=1)


class FaultSettings(BaseModel):
    """How often what goes wrong; all off by default.

    Attributes:
        gaps: share of the trades that happen but are told to nobody.
        duplicates: share of the trades that are told twice.
        reorder: share of the trades that are told after one to three later ones.
        malformed: share of the trades with a broken frame before them.
        disconnect_every_s: connections break after this long, without a close frame; 0: never.
        silence_every_s: connections fall silent after this long; 0: never.
        silence_s: and stay so for this long; what happens meanwhile is not told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gaps: float = Probability
    duplicates: float = Probability
    reorder: float = Probability
    malformed: float = Probability
    disconnect_every_s: float = Field(default=0.0, ge=0)
    silence_every_s: float = Field(default=0.0, ge=0)
    silence_s: float = Field(default=15.0, gt=0)


class Fault(NamedTuple):
    """What goes wrong with one trade.

    Attributes:
        skip: it is not told.
        copies: how often it is told.
        delay: after how many later trades it is told; 0: in its place.
        garbage: a broken frame that goes before it, or None.
    """

    skip: bool
    copies: int
    delay: int
    garbage: str | None


_NO_FAULT = Fault(False, 1, 0, None)
_GARBAGE = (
    '{"type":"match","trade_id":7,"price":"10',
    '{"type":"match","trade_id":7,"side":"buy","size":"1","price":"NaN","product_id":"BTC-USD","sequence":7,"time":"2024-01-01T00:00:00Z"}',
    '{"type":"match","trade_id":7,"side":"buy","size":"1","price":"-5.00","product_id":"BTC-USD","sequence":7,"time":"2024-01-01T00:00:00Z"}',
    '{"type":"match","trade_id":"x","side":"buy","size":"1","price":"5.00","product_id":"BTC-USD","sequence":7,"time":"2024-01-01T00:00:00Z"}',
    '{"type":"match","trade_id":7,"side":"buy","size":"1","product_id":"BTC-USD","sequence":7,"time":"2024-01-01T00:00:00Z"}',
    '{"type":"ticker","product_id":"BTC-USD","best_bid":{},"best_ask":[],"time":1}',
)


class FaultPlan:
    """The faults of a run, one `draw` per trade in the order of the walk.

    Args:
        seed: same seed and settings, same faults; independent of the walk's own.
        settings: the probabilities.
    """

    def __init__(self, seed: int, settings: FaultSettings) -> None:
        self._random = random.Random(f"faults-{seed}")
        self._settings = settings
        #: whether any trade can have a fault
        self.active = bool(settings.gaps or settings.duplicates or settings.reorder or settings.malformed)

    def draw(self) -> Fault:
        """The fault of the next trade."""
        if not self.active:
            return _NO_FAULT
        draw, settings = self._random.random, self._settings
        skip = draw() < settings.gaps
        copies = 2 if draw() < settings.duplicates else 1
        delay = 1 + int(draw() * 3) if draw() < settings.reorder else 0
        garbage = _GARBAGE[int(draw() * len(_GARBAGE))] if draw() < settings.malformed else None
        return Fault(skip, copies, delay, garbage)
