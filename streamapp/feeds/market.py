"""What all market-data venues share: instruments, encoding of trades and quotes, numbering of trades.

The hot path is msgspec only. The types `PriceText` and `SizeText` do the validating while a frame is decoded (venues
send most numbers as JSON strings, which a decoder with `strict=False` accepts), so that what is encoded here satisfies
the pydantic models `Trade` and `Quote` without another pass; a property test holds the two together.
"""

import datetime
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec

from streamapp.feeds.protocol import (
    BAD_NUMBER,
    BAD_SYMBOL,
    BAD_TIME,
    MALFORMED_JSON,
    MISSING_FIELD,
    TOO_MANY_SYMBOLS,
    WRONG_TYPE,
    DedupKey,
    FeedEvent,
    FeedProtocol,
    GapDetected,
    Rejected,
    TopicRecord,
    frame_bytes,
)
from streamapp.records.models import Quote, Trade

TRADES_TOPIC = "trades"
QUOTES_TOPIC = "quotes"

_LARGEST_DOUBLE = 1.7976931348623157e308
_LARGEST_INT64 = 2**63 - 1

#: finite and > 0; a JSON number or, in a decoder with strict=False, a JSON string of one
PriceText = Annotated[float, msgspec.Meta(gt=0, le=_LARGEST_DOUBLE)]
#: finite and >= 0
SizeText = Annotated[float, msgspec.Meta(ge=0, le=_LARGEST_DOUBLE)]
#: an id or a sequence that fits into 64 bits
Number = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_INT64)]
#: RFC 3339 with its zone
Instant = Annotated[datetime.datetime, msgspec.Meta(tz=True)]

#: instruments of one feed; beyond this a peer that invents names would eat the memory
MAX_INSTRUMENTS = 10_000

#: year 9999; a larger number of milliseconds is another unit
BAD_TIME_LIMIT_MS = 253_402_300_799_999

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9._/\-]{0,63}")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)

#: rows with the models' fields in the order of their declaration
_TradeRow: Callable[..., msgspec.Struct] = msgspec.defstruct("TradeRow", list(Trade.model_fields), gc=False)
_QuoteRow: Callable[..., msgspec.Struct] = msgspec.defstruct("QuoteRow", list(Quote.model_fields), gc=False)
_encode = msgspec.json.Encoder().encode

Decoded = TypeVar("Decoded")


class Unusable(Exception):
    """A frame, or an element of one, that ends in `Rejected`; never leaves the feeds package.

    Attributes:
        reason: one of the constants of `streamapp.feeds.protocol`.
    """

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(error)
        self.reason = reason


class Instrument:
    """One symbol of one feed, with what is computed once per symbol and what is known of its numbering.

    Attributes:
        symbol: `BASE-QUOTE`, or the venue's own form in upper case.
        key: the Kafka key.
        trades: the `DedupKey.stream` of its trades.
        quotes: the `DedupKey.stream` of its quotes.
        last_id: the highest trade number seen, or None before the first.
        announced_id: the highest trade number that a heartbeat has named but no trade has carried yet.
    """

    __slots__ = ("announced_id", "key", "last_id", "quotes", "symbol", "trades")

    def __init__(self, venue: str, symbol: str) -> None:
        key = f"{venue}:{symbol}"
        self.symbol = symbol
        self.key = key.encode()
        self.trades = f"{TRADES_TOPIC}|{key}"
        self.quotes = f"{QUOTES_TOPIC}|{key}"
        self.last_id: int | None = None
        self.announced_id: int | None = None


class MarketProtocol(FeedProtocol):
    """The base of the venues that yield trades and quotes.

    Gaps: where a venue numbers its trades per symbol without holes, a number above the next one is a gap. What is known
    stays over reconnects and may be handed in by `resume`. A number at or below the highest one seen is no gap: it is a
    repeat or a late arrival, which the `DedupKey` tells apart.
    """

    def symbol_of(self, venue_symbol: str) -> str:
        """The project's form of a venue's symbol. The default leaves it as it is, in upper case."""
        return venue_symbol.upper()

    def resume(self, symbol: str, trade_id: str) -> None:
        """See `FeedProtocol.resume`; ids that are no numbers are ignored."""
        if trade_id.isascii() and trade_id.isdigit():
            instrument = self._of_symbol(symbol)
            instrument.last_id = max(int(trade_id), instrument.last_id or 0)

    def _receive(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        try:
            return self._handle(frame, now_ms)
        except msgspec.DecodeError as problem:
            return self._undecodable(frame, now_ms, problem)
        except Unusable as problem:
            return [Rejected(frame_bytes(frame), problem.reason, str(problem))]

    def _handle(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        raise NotImplementedError

    def _undecodable(self, frame: str | bytes, now_ms: int, problem: msgspec.DecodeError) -> list[FeedEvent]:
        """Turn what the fast decoder refused into events; overridden to let unknown kinds of frames pass."""
        return [Rejected(frame_bytes(frame), reason_of(problem), str(problem))]

    _by_venue_symbol: dict[str, Instrument]
    _by_symbol: dict[str, Instrument]

    def __init__(self, **of_the_base: Any) -> None:
        super().__init__(**of_the_base)
        self._by_venue_symbol = {}
        self._by_symbol = {}

    def _instrument(self, venue_symbol: str) -> Instrument:
        """The instrument behind a venue's symbol; raises Unusable for what cannot be one."""
        found = self._by_venue_symbol.get(venue_symbol)
        if found is None:
            if len(self._by_venue_symbol) >= MAX_INSTRUMENTS:
                raise Unusable(TOO_MANY_SYMBOLS, f"more than {MAX_INSTRUMENTS} symbols in one feed")
            symbol = self.symbol_of(venue_symbol)
            if not _SYMBOL.fullmatch(symbol):
                raise Unusable(BAD_SYMBOL, f"expected a symbol of letters and digits, got {venue_symbol[:80]!r}")
            found = self._by_venue_symbol[venue_symbol] = self._of_symbol(symbol)
        return found

    def _of_symbol(self, symbol: str) -> Instrument:
        found = self._by_symbol.get(symbol)
        if found is None:
            found = self._by_symbol[symbol] = Instrument(self.venue, symbol)
        return found

    def _follow(self, instrument: Instrument, number: int) -> GapDetected | None:
        """Note a trade's number; the gap before it, if there is one."""
        last = instrument.last_id
        if last is None or number == last + 1:
            instrument.last_id = number
            return None
        if number <= last:
            return None
        instrument.last_id = number
        return self._gap(instrument, last + 1, number)

    def _gap(self, instrument: Instrument, expected: int, got: int) -> GapDetected:
        count = got - expected
        detail = f"{count} trade{'s' if count > 1 else ''} missing: ids {expected} to {got - 1}"
        return GapDetected(self.venue, instrument.symbol, expected, got, detail)

    def _trade(
        self,
        instrument: Instrument,
        *,
        price: float,
        size: float,
        side: str | None,
        trade_id: str,
        sequence: int | None,
        event_time: int,
        now_ms: int,
    ) -> TopicRecord:
        """Encode a trade whose numbers the decoder has checked. `side` is the taker's."""
        value = _encode(
            _TradeRow(self.venue, instrument.symbol, price, size, side, trade_id, sequence, event_time, now_ms)
        )
        dedup = DedupKey(instrument.trades, trade_id, sequence)
        return TopicRecord(TRADES_TOPIC, instrument.key, value, self.venue, instrument.symbol, event_time, dedup, False)

    def _quote(
        self,
        instrument: Instrument,
        *,
        bid: float,
        bid_size: float | None,
        ask: float,
        ask_size: float | None,
        sequence: int | None,
        event_time: int,
        now_ms: int,
    ) -> TopicRecord:
        """Encode a quote whose numbers the decoder has checked; a repeat is told by its sequence, where it has one."""
        value = _encode(
            _QuoteRow(self.venue, instrument.symbol, bid, bid_size, ask, ask_size, sequence, event_time, now_ms)
        )
        dedup = DedupKey(instrument.quotes, str(sequence), sequence) if sequence is not None else None
        return TopicRecord(QUOTES_TOPIC, instrument.key, value, self.venue, instrument.symbol, event_time, dedup, True)


def instant_ms(instant: datetime.datetime) -> int:
    """Milliseconds since the epoch, rounded down; raises Unusable before 1970."""
    milliseconds = (instant - _EPOCH) // _MILLISECOND
    if milliseconds < 0:
        raise Unusable(BAD_TIME, f"expected a time after 1970, got {instant.isoformat()}")
    return milliseconds


def decode_text(decoder: Callable[[str | bytes], Decoded], frame: str | bytes) -> Decoded | None:
    """Decode, or None where the frame does not fit; for the second look at a frame that was refused."""
    try:
        return decoder(frame)
    except msgspec.DecodeError:
        return None


def reason_of(problem: msgspec.DecodeError) -> str:
    """The stable reason for what msgspec says about a frame.

    msgspec's messages are the only thing that tells its errors apart; a test pins them.
    """
    text = str(problem)
    if not isinstance(problem, msgspec.ValidationError):
        return MALFORMED_JSON
    if "missing required field" in text:
        return MISSING_FIELD
    if "out of range" in text or text.startswith(("Expected `float` ", "Expected `int` ")):
        return BAD_NUMBER
    if "`float`, got `str`" in text or "`float | null`, got `str`" in text:
        return BAD_NUMBER
    if "datetime" in text:
        return BAD_TIME
    return WRONG_TYPE
