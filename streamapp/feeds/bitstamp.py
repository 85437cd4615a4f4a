"""Bitstamp, version 2 of its WebSocket API.

- `live_trades_*`: `type` is 0 where the taker bought, 1 where it sold; `microtimestamp` is text. Trade ids grow over
  all markets together, so they tell repeats and order, but a jump is no gap.
- `order_book_*` (optional) gives a quote from the best level of each side.
- Nothing comes on a quiet market, so the protocol asks for `bts:heartbeat`.
- `bts:request_reconnect` must be honoured.
"""

import json
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from streamapp.feeds.market import BAD_TIME_LIMIT_MS, MarketProtocol, Number, PriceText, SizeText, Unusable, decode_text
from streamapp.feeds.options import parse_options
from streamapp.feeds.protocol import (
    BAD_TIME,
    IGNORED,
    SIGN_OF_LIFE,
    FeedEvent,
    FeedProtocol,
    ReconnectRequested,
    SendText,
    VenueError,
)
from streamapp.feeds.symbols import SymbolSplitter, joined
from streamapp.settings import FeedSettings

URL = "wss://ws.bitstamp.net"
QUOTE_ASSETS = ("USD", "EUR", "GBP", "USDT", "USDC", "BTC", "ETH", "PAX", "RLUSD", "EURC")
_TRADES = "live_trades_"
_BOOK = "order_book_"


class BitstampOptions(BaseModel):
    """`options` of a Bitstamp feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quotes: bool = Field(default=False, description="whether to subscribe to the order book, for quotes")
    quote_assets: tuple[str, ...] = Field(default=QUOTE_ASSETS)
    ping_ms: int = Field(default=15_000, gt=0, description="bts:heartbeat this often")
    heartbeat_timeout_ms: int = Field(default=45_000, gt=0)
    max_frame_bytes: int = Field(default=4 << 20, gt=0)


class _TradeData(msgspec.Struct, gc=False):
    id: Number
    price: PriceText
    amount: SizeText
    type: Literal[0, 1]
    microtimestamp: Number


class _Trade(msgspec.Struct, tag_field="event", tag="trade", gc=False):
    channel: str
    data: _TradeData


class _Data(msgspec.Struct, tag_field="event", tag="data", gc=False):
    channel: str


_Level = tuple[PriceText, SizeText]


class _BookData(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    microtimestamp: Number


class _Book(msgspec.Struct, gc=False):
    data: _BookData


class _Reconnect(msgspec.Struct, tag_field="event", tag="bts:request_reconnect", gc=False):
    pass


class _Subscribed(msgspec.Struct, tag_field="event", tag="bts:subscription_succeeded", gc=False):
    pass


class _Heartbeat(msgspec.Struct, tag_field="event", tag="bts:heartbeat", gc=False):
    pass


class _Error(msgspec.Struct, tag_field="event", tag="bts:error", gc=False):
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Envelope(msgspec.Struct, gc=False):
    event: str
    channel: str = ""


_decode = msgspec.json.Decoder(
    _Trade | _Data | _Reconnect | _Subscribed | _Heartbeat | _Error,
    strict=False,
).decode
_decode_book = msgspec.json.Decoder(_Book, strict=False).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_READ = frozenset({"trade", "data", "bts:error"})


class BitstampProtocol(MarketProtocol):
    """The public channels of Bitstamp."""

    def __init__(self, feed: FeedSettings) -> None:
        self._options = options = parse_options(BitstampOptions, feed)
        super().__init__(
            venue="bitstamp",
            url=feed.url or URL,
            symbols=feed.symbols,
            heartbeat_timeout_ms=options.heartbeat_timeout_ms,
            max_frame_bytes=options.max_frame_bytes,
        )
        self._splitter = SymbolSplitter(options.quote_assets, feed.symbols)
        self._next_ping_ms = 0

    def symbol_of(self, venue_symbol: str) -> str:
        """`btcusd` -> `BTC-USD`, by the list of quote assets."""
        return self._splitter.split(venue_symbol)

    def resume(self, symbol: str, trade_id: str) -> None:
        """Nothing to resume: the ids have holes."""

    def open_messages(self, now_ms: int) -> list[str]:
        """One `bts:subscribe` per channel."""
        self._next_ping_ms = now_ms + self._options.ping_ms
        channels = [_TRADES + joined(symbol) for symbol in self.symbols]
        if self._options.quotes:
            channels += [_BOOK + joined(symbol) for symbol in self.symbols]
        return [
            json.dumps({"event": "bts:subscribe", "data": {"channel": channel}}, separators=(",", ":"))
            for channel in channels
        ]

    def tick(self, now_ms: int) -> list[FeedEvent]:
        """A `bts:heartbeat` when one is due; the venue answers it."""
        if now_ms < self._next_ping_ms:
            return []
        self._next_ping_ms = now_ms + self._options.ping_ms
        return [SendText('{"event":"bts:heartbeat"}')]

    def _handle(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        message = _decode(frame)
        if isinstance(message, _Trade):
            return self._on_trade(message, now_ms)
        if isinstance(message, _Data):
            if message.channel.startswith(_BOOK) and self._options.quotes:
                return self._on_book(message.channel, _decode_book(frame).data, now_ms)
            return [IGNORED]
        if isinstance(message, _Reconnect):
            return [ReconnectRequested("the venue asked for a new connection")]
        if isinstance(message, _Error):
            return [VenueError(self.venue, None, bytes(message.data).decode("utf-8", "replace")[:500])]
        return [SIGN_OF_LIFE]

    def _undecodable(self, frame: str | bytes, now_ms: int, problem: msgspec.DecodeError) -> list[FeedEvent]:
        envelope = decode_text(_decode_envelope, frame)
        if envelope is not None and envelope.event not in _READ:
            return [IGNORED]
        return super()._undecodable(frame, now_ms, problem)

    def _on_trade(self, message: _Trade, now_ms: int) -> list[FeedEvent]:
        if not message.channel.startswith(_TRADES):
            return [IGNORED]
        trade = message.data
        return [
            self._trade(
                self._instrument(message.channel.removeprefix(_TRADES)),
                price=trade.price,
                size=trade.amount,
                side="sell" if trade.type else "buy",
                trade_id=str(trade.id),
                sequence=trade.id,
                event_time=_milliseconds(trade.microtimestamp),
                now_ms=now_ms,
            )
        ]

    def _on_book(self, channel: str, book: _BookData, now_ms: int) -> list[FeedEvent]:
        if not book.bids or not book.asks:
            return [IGNORED]
        (bid, bid_size), (ask, ask_size) = book.bids[0], book.asks[0]
        return [
            self._quote(
                self._instrument(channel.removeprefix(_BOOK)),
                bid=bid,
                bid_size=bid_size,
                ask=ask,
                ask_size=ask_size,
                sequence=book.microtimestamp,
                event_time=_milliseconds(book.microtimestamp),
                now_ms=now_ms,
            )
        ]


def _milliseconds(microseconds: int) -> int:
    if microseconds // 1000 > BAD_TIME_LIMIT_MS:
        raise Unusable(BAD_TIME, f"expected microseconds since 1970, got {microseconds}")
    return microseconds // 1000


def build(feed: FeedSettings) -> FeedProtocol:
    """The protocol of one Bitstamp feed."""
    return BitstampProtocol(feed)
