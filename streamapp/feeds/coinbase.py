"""Coinbase Exchange: trades from `matches`, quotes from `ticker`, liveness from `heartbeat`.

- `side` of a match is the maker's; the record carries the taker's, which is the other one.
- Trades come from matches alone. A ticker carries its trade too, but not every trade has one.
- `trade_id` counts per product without holes, so on matches a jump is a gap. `sequence` counts every event of the
  order book and jumps all the time there.
- `last_match` comes once per product after subscribing: the newest trade before it. It is forwarded (repeats are
  recognised by trade id) and, being numbered like the rest, reveals what a reconnect has missed.
- `last_trade_id` of a heartbeat reveals a missing trade on a quiet product. The match may be under way still, so it
  counts as missing only if the next heartbeat of the product still comes before it.
- One event of the order book can be told twice, as the `ticker` of one subscription and the next; the sequence tells.
"""

import json
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from streamapp.feeds.market import (
    Instant,
    Instrument,
    MarketProtocol,
    Number,
    PriceText,
    SizeText,
    decode_text,
    instant_ms,
)
from streamapp.feeds.options import parse_options
from streamapp.feeds.protocol import IGNORED, SIGN_OF_LIFE, FeedEvent, FeedProtocol, VenueError
from streamapp.settings import FeedSettings

URL = "wss://ws-feed.exchange.coinbase.com"
_TAKER = {"buy": "sell", "sell": "buy"}


class CoinbaseOptions(BaseModel):
    """`options` of a Coinbase feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...] = Field(default=("matches", "ticker", "heartbeat"), min_length=1)
    heartbeat_timeout_ms: int = Field(default=10_000, gt=0, description="the heartbeat channel beats once a second")
    max_frame_bytes: int = Field(default=4 << 20, gt=0)


class _Match(msgspec.Struct, tag_field="type", tag="match", gc=False):
    trade_id: Number
    product_id: str
    price: PriceText
    size: SizeText
    side: Literal["buy", "sell"]
    time: Instant
    sequence: Number | None = None


class _LastMatch(_Match, tag="last_match", gc=False):
    pass


class _Ticker(msgspec.Struct, tag_field="type", tag="ticker", gc=False):
    product_id: str
    best_bid: PriceText
    best_ask: PriceText
    time: Instant
    sequence: Number | None = None
    best_bid_size: SizeText | None = None
    best_ask_size: SizeText | None = None


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    product_id: str
    last_trade_id: Number | None = None


class _Book(msgspec.Struct, tag_field="type", tag="l2update", gc=False):
    pass


class _Error(msgspec.Struct, tag_field="type", tag="error", gc=False):
    message: str
    reason: str | None = None


_decode = msgspec.json.Decoder(_Match | _LastMatch | _Ticker | _Heartbeat | _Book | _Error, strict=False).decode


class _Envelope(msgspec.Struct, gc=False):
    type: str


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_KNOWN = frozenset({"match", "last_match", "ticker", "heartbeat", "error"})


class CoinbaseProtocol(MarketProtocol):
    """The public feed of Coinbase Exchange (and of whatever speaks like it, such as `streamapp simulate`)."""

    def __init__(self, feed: FeedSettings) -> None:
        options = parse_options(CoinbaseOptions, feed)
        super().__init__(
            venue="coinbase",
            url=feed.url or URL,
            symbols=tuple(symbol.upper().replace("/", "-") for symbol in feed.symbols),
            heartbeat_timeout_ms=options.heartbeat_timeout_ms,
            max_frame_bytes=options.max_frame_bytes,
        )
        self.channels = options.channels
        self._numbered = bool({"matches", "full"} & set(options.channels))

    def open_messages(self, now_ms: int) -> list[str]:
        """One `subscribe` with all products and channels."""
        message = {"type": "subscribe", "product_ids": list(self.symbols), "channels": list(self.channels)}
        return [json.dumps(message, separators=(",", ":"))]

    def disconnected(self) -> None:
        """A trade that a heartbeat of the old connection announced is judged by the new connection alone."""
        for instrument in self._by_symbol.values():
            instrument.announced_id = None

    def _handle(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        message = _decode(frame)
        if isinstance(message, _Match):
            return self._on_match(message, now_ms)
        if isinstance(message, _Ticker):
            return self._on_ticker(message, now_ms)
        if isinstance(message, _Heartbeat):
            return self._on_heartbeat(message)
        if isinstance(message, _Error):
            detail = f"{message.message}: {message.reason}" if message.reason else message.message
            return [VenueError(self.venue, None, detail[:500])]
        return [IGNORED]

    def _undecodable(self, frame: str | bytes, now_ms: int, problem: msgspec.DecodeError) -> list[FeedEvent]:
        envelope = decode_text(_decode_envelope, frame)
        if envelope is not None and envelope.type not in _KNOWN:
            return [IGNORED]
        return super()._undecodable(frame, now_ms, problem)

    def _on_match(self, match: _Match, now_ms: int) -> list[FeedEvent]:
        instrument = self._instrument(match.product_id)
        record = self._trade(
            instrument,
            price=match.price,
            size=match.size,
            side=_TAKER[match.side],
            trade_id=str(match.trade_id),
            sequence=match.sequence,
            event_time=instant_ms(match.time),
            now_ms=now_ms,
        )
        gap = self._follow(instrument, match.trade_id)
        return [record] if gap is None else [gap, record]

    def _on_ticker(self, ticker: _Ticker, now_ms: int) -> list[FeedEvent]:
        return [
            self._quote(
                self._instrument(ticker.product_id),
                bid=ticker.best_bid,
                bid_size=ticker.best_bid_size,
                ask=ticker.best_ask,
                ask_size=ticker.best_ask_size,
                sequence=ticker.sequence,
                event_time=instant_ms(ticker.time),
                now_ms=now_ms,
            )
        ]

    def _on_heartbeat(self, heartbeat: _Heartbeat) -> list[FeedEvent]:
        if heartbeat.last_trade_id is None or not self._numbered:
            return [SIGN_OF_LIFE]
        instrument = self._instrument(heartbeat.product_id)
        overdue = self._overdue(instrument)
        last = instrument.last_id
        if last is None:
            instrument.last_id = heartbeat.last_trade_id
        elif heartbeat.last_trade_id > (instrument.last_id or 0):
            instrument.announced_id = heartbeat.last_trade_id
        return [SIGN_OF_LIFE] if overdue is None else [overdue, SIGN_OF_LIFE]

    def _overdue(self, instrument: Instrument) -> FeedEvent | None:
        announced, last = instrument.announced_id, instrument.last_id
        instrument.announced_id = None
        if announced is None or last is None or announced <= last:
            return None
        instrument.last_id = announced
        return self._gap(instrument, last + 1, announced + 1)


def build(feed: FeedSettings) -> FeedProtocol:
    """The protocol of one Coinbase feed."""
    return CoinbaseProtocol(feed)
