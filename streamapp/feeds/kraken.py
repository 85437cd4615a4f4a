"""Kraken, version 2 of its WebSocket API.

- `trade`: a snapshot of the last 50 trades after subscribing, then updates; `side` is the taker's; `trade_id` counts
  per book without holes. The snapshot is put into the order of the ids; after a short break it fills what was missed.
- `ticker`, triggered by changes of the best bid or offer: quotes. Older servers give them no time: then it is the time
  of arrival.
- `heartbeat` comes about once a second when nothing else does; `status` tells maintenance.
- Symbols keep the venue's own base: v2 already says `BTC/USD` where v1 said `XBT/USD`; an `XBT` that comes is left.
- Frames of the retired version 1 (arrays; objects with `event`) are recognised and ignored.
"""

import json
from operator import attrgetter
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from streamapp.feeds.market import (
    Instant,
    MarketProtocol,
    Number,
    PriceText,
    SizeText,
    Unusable,
    decode_text,
    instant_ms,
    reason_of,
)
from streamapp.feeds.options import parse_options
from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, FeedEvent, FeedProtocol, Rejected, SendText, VenueError
from streamapp.settings import FeedSettings

URL = "wss://ws.kraken.com/v2"


class KrakenOptions(BaseModel):
    """`options` of a Kraken feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Literal["trade", "ticker"], ...] = Field(default=("trade", "ticker"), min_length=1)
    snapshot: bool = Field(default=True, description="whether trades before the subscription come along")
    event_trigger: Literal["bbo", "trades"] = Field(default="bbo", description="what makes the venue send a ticker")
    ping_ms: int = Field(default=20_000, ge=0, description="an application-level ping this often; 0: none")
    heartbeat_timeout_ms: int = Field(default=10_000, gt=0)
    max_frame_bytes: int = Field(default=4 << 20, gt=0)


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]
    price: PriceText
    qty: SizeText
    trade_id: Number
    timestamp: Instant


class _Ticker(msgspec.Struct, gc=False):
    symbol: str
    bid: PriceText
    ask: PriceText
    bid_qty: SizeText | None = None
    ask_qty: SizeText | None = None
    timestamp: Instant | None = None


class _System(msgspec.Struct, gc=False):
    system: str = "online"


class _Trades(msgspec.Struct, tag_field="channel", tag="trade", gc=False):
    data: list[_Trade]
    type: str = "update"


class _Tickers(msgspec.Struct, tag_field="channel", tag="ticker", gc=False):
    data: list[_Ticker]


class _Heartbeat(msgspec.Struct, tag_field="channel", tag="heartbeat", gc=False):
    pass


class _Status(msgspec.Struct, tag_field="channel", tag="status", gc=False):
    data: list[_System]


class _Book(msgspec.Struct, tag_field="channel", tag="book", gc=False):
    pass


class _Other(msgspec.Struct, gc=False):
    """Answers to requests, other channels, and version 1."""

    method: str | None = None
    channel: str | None = None
    event: str | None = None
    success: bool | None = None
    error: str | None = None
    symbol: str | None = None


class _Elements(msgspec.Struct, gc=False):
    channel: Literal["trade", "ticker"]
    data: list[msgspec.Raw]
    type: str = "update"


_decode = msgspec.json.Decoder(_Trades | _Tickers | _Heartbeat | _Status | _Book, strict=False).decode
_decode_each = msgspec.json.Decoder(_Elements).decode
_decode_trade = msgspec.json.Decoder(_Trade, strict=False).decode
_decode_ticker = msgspec.json.Decoder(_Ticker, strict=False).decode
_decode_other = msgspec.json.Decoder(_Other).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_READ = frozenset({"trade", "ticker", "heartbeat", "status"})
_by_id = attrgetter("trade_id")


class KrakenProtocol(MarketProtocol):
    """The public market data of Kraken's WebSocket API v2."""

    def __init__(self, feed: FeedSettings) -> None:
        self._options = options = parse_options(KrakenOptions, feed)
        super().__init__(
            venue="kraken",
            url=feed.url or URL,
            symbols=tuple(symbol.upper().replace("/", "-") for symbol in feed.symbols),
            heartbeat_timeout_ms=options.heartbeat_timeout_ms,
            max_frame_bytes=options.max_frame_bytes,
        )
        self._next_ping_ms = 0

    def symbol_of(self, venue_symbol: str) -> str:
        """`BTC/USD` -> `BTC-USD`."""
        return venue_symbol.upper().replace("/", "-")

    def open_messages(self, now_ms: int) -> list[str]:
        """One `subscribe` per channel."""
        self._next_ping_ms = now_ms + self._options.ping_ms
        pairs = [symbol.replace("-", "/") for symbol in self.symbols]
        messages = []
        for channel in self._options.channels:
            params: dict[str, object] = {"channel": channel, "symbol": pairs, "snapshot": True}
            if channel == "trade":
                params["snapshot"] = self._options.snapshot
            else:
                params["event_trigger"] = self._options.event_trigger
            messages.append(json.dumps({"method": "subscribe", "params": params}, separators=(",", ":")))
        return messages

    def tick(self, now_ms: int) -> list[FeedEvent]:
        """A ping when one is due."""
        if not self._options.ping_ms or now_ms < self._next_ping_ms:
            return []
        self._next_ping_ms = now_ms + self._options.ping_ms
        return [SendText('{"method":"ping"}')]

    def _handle(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        message = _decode(frame)
        if isinstance(message, _Trades):
            return self._on_trades(message.data, message.type, now_ms)
        if isinstance(message, _Tickers):
            return [self._on_ticker(ticker, now_ms) for ticker in message.data] or [IGNORED]
        if isinstance(message, _Heartbeat):
            return [SIGN_OF_LIFE]
        if isinstance(message, _Status):
            states = [one.system for one in message.data if one.system != "online"]
            return [VenueError(self.venue, None, f"system status: {state[:100]}") for state in states] or [SIGN_OF_LIFE]
        return [IGNORED]

    def _undecodable(self, frame: str | bytes, now_ms: int, problem: msgspec.DecodeError) -> list[FeedEvent]:
        elements = decode_text(_decode_each, frame)
        if elements is not None:
            return self._salvage(elements, now_ms)
        other = decode_text(_decode_other, frame)
        if other is not None and other.channel not in _READ:
            if other.success is False or other.error:
                symbol = other.symbol and self.symbol_of(other.symbol)
                return [
                    VenueError(self.venue, symbol, f"{other.method or 'request'}: {other.error or 'refused'}"[:500])
                ]
            if other.method is not None or other.event == "heartbeat":
                return [SIGN_OF_LIFE]
            if other.channel is not None or other.event is not None:
                return [IGNORED]
        if is_version_1(frame):
            return [IGNORED]
        return super()._undecodable(frame, now_ms, problem)

    def _salvage(self, elements: _Elements, now_ms: int) -> list[FeedEvent]:
        """Element by element, so that a bad one does not take the good ones of its frame along."""
        trades: list[_Trade] = []
        events: list[FeedEvent] = []
        for raw in elements.data:
            try:
                if elements.channel == "trade":
                    trades.append(_decode_trade(raw))
                else:
                    events.append(self._on_ticker(_decode_ticker(raw), now_ms))
            except msgspec.DecodeError as problem:
                events.append(Rejected(bytes(raw), reason_of(problem), str(problem)))
            except Unusable as problem:
                events.append(Rejected(bytes(raw), problem.reason, str(problem)))
        if trades:
            events += self._on_trades(trades, elements.type, now_ms)
        return events or [IGNORED]

    def _on_trades(self, trades: list[_Trade], kind: str, now_ms: int) -> list[FeedEvent]:
        events: list[FeedEvent] = []
        for trade in sorted(trades, key=_by_id) if kind == "snapshot" else trades:
            try:
                instrument = self._instrument(trade.symbol)
                event_time = instant_ms(trade.timestamp)
            except Unusable as problem:
                events.append(Rejected(msgspec.json.encode(trade), problem.reason, str(problem)))
                continue
            gap = self._follow(instrument, trade.trade_id)
            if gap is not None:
                events.append(gap)
            events.append(
                self._trade(
                    instrument,
                    price=trade.price,
                    size=trade.qty,
                    side=trade.side,
                    trade_id=str(trade.trade_id),
                    sequence=trade.trade_id,
                    event_time=event_time,
                    now_ms=now_ms,
                )
            )
        return events or [IGNORED]

    def _on_ticker(self, ticker: _Ticker, now_ms: int) -> FeedEvent:
        return self._quote(
            self._instrument(ticker.symbol),
            bid=ticker.bid,
            bid_size=ticker.bid_qty,
            ask=ticker.ask,
            ask_size=ticker.ask_qty,
            sequence=None,
            event_time=now_ms if ticker.timestamp is None else instant_ms(ticker.timestamp),
            now_ms=now_ms,
        )


def is_version_1(frame: str | bytes) -> bool:
    """Whether a frame is data of the retired version 1: `[channel id, payload..., "book-10", "XBT/USD"]`."""
    head = frame[:1]
    if head not in ("[", b"["):
        return False
    elements = decode_text(_decode_elements, frame)
    if elements is None or len(elements) < 4:
        return False
    return bytes(elements[0]).isdigit() and all(bytes(one)[:1] == b'"' for one in elements[-2:])


def build(feed: FeedSettings) -> FeedProtocol:
    """The protocol of one Kraken feed."""
    return KrakenProtocol(feed)
