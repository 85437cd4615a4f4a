"""What is on the topics, as pydantic models: the one declaration of each schema.

All times are integers, milliseconds since the Unix epoch, UTC. Numbers are finite. Unknown fields are ignored, so that a
newer producer does not break an older reader.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Price = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
EpochMs = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """The base of every record of streamapp's own topics."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Trade(Record):
    """One trade, as a venue reported it. Key: `venue:symbol`."""

    venue: str
    symbol: str
    price: Price
    size: Size
    side: Literal["buy", "sell"] | None = Field(default=None, description="the taker's side")
    trade_id: str
    sequence: int | None = None
    event_time: EpochMs
    ingest_time: EpochMs

    @property
    def key(self) -> str:
        """The record's key on its topic."""
        return f"{self.venue}:{self.symbol}"


class Quote(Record):
    """The best bid and ask at one moment. Key: `venue:symbol`."""

    venue: str
    symbol: str
    bid: Price
    bid_size: Size | None = None
    ask: Price
    ask_size: Size | None = None
    sequence: int | None = None
    event_time: EpochMs
    ingest_time: EpochMs

    @property
    def key(self) -> str:
        """The record's key on its topic."""
        return f"{self.venue}:{self.symbol}"


FeedState = Literal["connected", "disconnected", "gap", "recovered", "error"]


class FeedStatus(Record):
    """What the bridge knows about a feed, or about one symbol of it. Key: `venue:symbol` or `venue`."""

    venue: str
    symbol: str | None = None
    state: FeedState
    detail: str = ""
    sequence_expected: int | None = None
    sequence_got: int | None = None
    event_time: EpochMs

    @property
    def key(self) -> str:
        """The record's key on its topic."""
        return f"{self.venue}:{self.symbol}" if self.symbol else self.venue


class DeadLetter(Record):
    """A record that could not be processed, with all that is needed to look into it or to replay it. Key: its own."""

    id: str = Field(description="stable across redeliveries: `topic-partition-offset`, or the feed's frame")
    value_base64: str
    reason: str
    error: str
    topic: str = Field(description="the source topic, or `feed:NAME` for a frame that never reached one")
    partition: int | None = None
    offset: int | None = None
    first_time: EpochMs
    last_time: EpochMs
    attempts: int = 1
