"""Binance spot: combined streams, named in the URL.

- `trade` (number `t`) and `aggTrade` (number `a`) both become trades. They tell the same trades with different ids, so
  a feed asks for one of them; if a URL of one's own asks for both, the kind that a symbol shows first is the one used.
- `m` says that the buyer was the maker: then the taker sold.
- Both numbers count per symbol without holes, so a jump is a gap.
- `bookTicker` has no time on spot: its event time is the time of arrival. `u` is its sequence (of the whole book, so it
  jumps).
- `serverShutdown` comes minutes before the venue closes; connect anew at once. The venue's pings are answered by the
  socket layer, as RFC 6455 asks.
"""

from typing import Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from streamapp.errors import ConfigurationError
from streamapp.feeds.market import BAD_TIME_LIMIT_MS, MarketProtocol, Number, PriceText, SizeText, Unusable, decode_text
from streamapp.feeds.options import parse_options
from streamapp.feeds.protocol import (
    BAD_TIME,
    IGNORED,
    SIGN_OF_LIFE,
    FeedEvent,
    FeedProtocol,
    ReconnectRequested,
    VenueError,
)
from streamapp.feeds.symbols import SymbolSplitter, joined
from streamapp.settings import FeedSettings

URL = "wss://stream.binance.com:9443"
#: quote assets of binance.com; `option quote_assets` replaces them
QUOTE_ASSETS = (
    "USDT USDC FDUSD TUSD BUSD USDP DAI BTC ETH BNB XRP TRX DOGE SOL EUR GBP TRY BRL AUD RUB UAH NGN ZAR PLN RON ARS JPY "
    "MXN CZK COP IDR BIDR IDRT VAI USDS PAX USD1 EURI USDE"
).split()
#: quote assets of binance.us
QUOTE_ASSETS_US = ("USDT", "USDC", "BUSD", "USD", "BTC", "ETH", "DAI", "BNB")


class BinanceOptions(BaseModel):
    """`options` of a Binance feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trades: Literal["trade", "aggTrade"] = Field(default="trade", description="which stream the trades come from")
    quotes: bool = Field(default=True, description="whether to ask for bookTicker")
    quote_assets: tuple[str, ...] = Field(default=(), description="replaces the built-in list")
    time_unit: Literal["ms", "us"] = Field(default="ms", description="us where the URL asks for timeUnit=microsecond")
    heartbeat_timeout_ms: int = Field(default=60_000, gt=0)
    max_frame_bytes: int = Field(default=4 << 20, gt=0)


class _Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    s: str
    t: Number
    p: PriceText
    q: SizeText
    T: Number
    m: bool


class _AggTrade(msgspec.Struct, tag_field="e", tag="aggTrade", gc=False):
    s: str
    a: Number
    p: PriceText
    q: SizeText
    T: Number
    m: bool


class _Depth(msgspec.Struct, tag_field="e", tag="depthUpdate", gc=False):
    pass


class _Kline(msgspec.Struct, tag_field="e", tag="kline", gc=False):
    pass


class _Shutdown(msgspec.Struct, tag_field="e", tag="serverShutdown", gc=False):
    pass


class _Event(msgspec.Struct, gc=False):
    data: _Trade | _AggTrade | _Depth | _Kline | _Shutdown


class _Book(msgspec.Struct, gc=False):
    u: Number
    s: str
    b: PriceText
    B: SizeText
    a: PriceText
    A: SizeText


class _BookEvent(msgspec.Struct, gc=False):
    data: _Book


class _Stream(msgspec.Struct, gc=False):
    stream: str


class _Kind(msgspec.Struct, gc=False):
    e: str = ""


class _Other(msgspec.Struct, gc=False):
    """What comes outside of a stream: answers, errors, a bare shutdown notice."""

    stream: str | None = None
    e: str | None = None
    data: _Kind | None = None
    error: msgspec.Raw = msgspec.Raw()
    code: int | None = None
    msg: str | None = None
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()


_decode_event = msgspec.json.Decoder(_Event, strict=False).decode
_decode_book = msgspec.json.Decoder(_BookEvent, strict=False).decode
_decode_other = msgspec.json.Decoder(_Other).decode
_READ_KINDS = frozenset({"trade", "aggTrade", "bookTicker"})


class BinanceProtocol(MarketProtocol):
    """The public market streams of Binance spot, combined into one connection."""

    pings_count = True  # every 20 s, whatever the market does

    def __init__(self, feed: FeedSettings) -> None:
        options = parse_options(BinanceOptions, feed)
        streams = [f"{joined(symbol)}@{options.trades}" for symbol in feed.symbols]
        if options.quotes:
            streams += [f"{joined(symbol)}@bookTicker" for symbol in feed.symbols]
        if len(streams) > 1024:
            raise ConfigurationError(
                f"a Binance connection carries at most 1024 streams, got {len(streams)}; "
                "split the symbols over several feeds"
            )
        url = _stream_url(feed.url or URL, streams)
        super().__init__(
            venue="binance",
            url=url,
            symbols=feed.symbols,
            heartbeat_timeout_ms=options.heartbeat_timeout_ms,
            max_frame_bytes=options.max_frame_bytes,
        )
        american = (urlsplit(url).hostname or "").endswith("binance.us")
        assets = options.quote_assets or (QUOTE_ASSETS_US if american else QUOTE_ASSETS)
        self._splitter = SymbolSplitter(assets, feed.symbols)
        self._per_ms = 1000 if options.time_unit == "us" else 1
        self._kinds: dict[str, type[_Trade] | type[_AggTrade]] = {}

    def symbol_of(self, venue_symbol: str) -> str:
        """`OMGBUSD` -> `OMG-BUSD`, by the list of quote assets."""
        return self._splitter.split(venue_symbol)

    def _handle(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        if "bookTicker" in frame if isinstance(frame, str) else b"bookTicker" in frame:
            return self._on_book(_decode_book(frame).data, now_ms)
        data = _decode_event(frame).data
        if isinstance(data, _Trade | _AggTrade):
            return self._on_trade(data, now_ms)
        if isinstance(data, _Shutdown):
            return [ReconnectRequested("the venue announced that it shuts down")]
        return [IGNORED]

    def _undecodable(self, frame: str | bytes, now_ms: int, problem: msgspec.DecodeError) -> list[FeedEvent]:
        other = decode_text(_decode_other, frame)
        if other is None:
            return super()._undecodable(frame, now_ms, problem)
        kind = other.e or (other.data.e if other.data is not None else "")
        if kind == "serverShutdown":
            return [ReconnectRequested("the venue announced that it shuts down")]
        if bytes(other.error) not in (b"", b"null") or other.code is not None:
            detail = bytes(other.error).decode("utf-8", "replace") or f"{other.code}: {other.msg}"
            return [VenueError(self.venue, None, detail[:500])]
        if bytes(other.result) or other.id is not None:
            return [SIGN_OF_LIFE]
        stream_kind = (other.stream or "").partition("@")[2].partition("@")[0]
        if (other.stream is None and not kind) or kind in _READ_KINDS or stream_kind in _READ_KINDS:
            return super()._undecodable(frame, now_ms, problem)
        return [IGNORED]

    def _on_trade(self, trade: _Trade | _AggTrade, now_ms: int) -> list[FeedEvent]:
        kind = type(trade)
        if self._kinds.setdefault(trade.s, kind) is not kind:
            return [IGNORED]
        event_time = trade.T // self._per_ms
        if event_time > BAD_TIME_LIMIT_MS:
            raise Unusable(BAD_TIME, f"expected milliseconds since 1970 in `T`, got {trade.T} (option time_unit)")
        number = trade.t if isinstance(trade, _Trade) else trade.a
        instrument = self._instrument(trade.s)
        record = self._trade(
            instrument,
            price=trade.p,
            size=trade.q,
            side="sell" if trade.m else "buy",
            trade_id=str(number),
            sequence=number,
            event_time=event_time,
            now_ms=now_ms,
        )
        gap = self._follow(instrument, number)
        return [record] if gap is None else [gap, record]

    def _on_book(self, book: _Book, now_ms: int) -> list[FeedEvent]:
        return [
            self._quote(
                self._instrument(book.s),
                bid=book.b,
                bid_size=book.B,
                ask=book.a,
                ask_size=book.A,
                sequence=book.u,
                event_time=now_ms,
                now_ms=now_ms,
            )
        ]


def _stream_url(base: str, streams: list[str]) -> str:
    """The address with the streams in it; one that names its own path or query is left as it is."""
    parts = urlsplit(base)
    if not streams or parts.path.strip("/") or parts.query:
        return base
    return f"{base.rstrip('/')}/stream?streams={'/'.join(streams)}"


def build(feed: FeedSettings) -> FeedProtocol:
    """The protocol of one Binance feed."""
    return BinanceProtocol(feed)
