"""What is on the topics of the measurements."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class BenchTrade(BaseModel):
    """One trade of about 110 bytes; its key is the symbol."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    symbol: str
    price: float
    size: float
    event_time: int
    trade_id: str
    side: Literal["buy", "sell"]


class Keyed(BaseModel):
    """A value of 64 bytes as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    v: str
    event_time: int
