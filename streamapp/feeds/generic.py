"""Any JSON feed, by configuration only: into any pydantic model and any topic.

    [feeds.plant]
    venue = "generic"
    url = "wss://sensors.example.org/live"
    symbols = ["line-1"]

    [feeds.plant.options]
    name = "plant"                                   # in keys, statuses and metrics
    model = "plant.models.Reading"
    topic = "readings"
    key = "{feed}:{device}"                          # {feed}: the name; the rest: fields of the model
    open = ['{"subscribe": {symbols}}']              # {symbols}: a JSON list; {symbol}: one message per symbol
    records = "$.data[*]"                            # one record per node; default: the frame itself
    where = { "$.type" = "reading" }                 # other frames are ignored
    sequence = "$.n"                                 # counts per key without holes: a jump is a gap
    dedup = ["device", "n"]
    ping = { message = '{"op":"ping"}', every_ms = 15000 }

    [feeds.plant.options.fields]
    device = "$.id"
    celsius = { path = "$.t", kind = "number" }
    event_time = { path = "$.ts", kind = "s" }

Fields that are not named: `venue` becomes the name, `ingest_time` the time of arrival, `event_time` the same; the rest is
the model's default. Every record is validated by the model itself, as JSON.
"""

import importlib
import json
import string
from collections.abc import Callable
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamapp.errors import ConfigurationError
from streamapp.feeds.field_rules import FieldRule, convert
from streamapp.feeds.jsonpath import MISSING, getter, selector
from streamapp.feeds.market import MAX_INSTRUMENTS, Unusable
from streamapp.feeds.options import parse_options
from streamapp.feeds.protocol import (
    BAD_NUMBER,
    IGNORED,
    MALFORMED_JSON,
    MISSING_FIELD,
    SIGN_OF_LIFE,
    TOO_MANY_SYMBOLS,
    WRONG_SCHEMA,
    WRONG_TYPE,
    DedupKey,
    FeedEvent,
    FeedProtocol,
    GapDetected,
    Rejected,
    SendText,
    TopicRecord,
    VenueError,
    frame_bytes,
)
from streamapp.settings import FeedSettings


class PingRule(BaseModel):
    """A text to send regularly.

    Attributes:
        message: the text; `{now_ms}` is replaced by the time.
        every_ms: how often.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str
    every_ms: int = Field(default=15_000, gt=0)


class GenericOptions(BaseModel):
    """`options` of a generic feed; see the module's example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="generic", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    model: str
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    key: str | None = Field(default=None, description="a template over the model's fields; default: the model's `key`")
    open: tuple[str | dict[str, Any], ...] = ()
    records: str = "$"
    where: dict[str, Any] = Field(default_factory=dict, description="path -> value: frames that carry records")
    heartbeat: dict[str, Any] = Field(default_factory=dict, description="path -> value: frames that are signs of life")
    error: str | None = Field(default=None, description="a path; where it leads somewhere, the frame is an error")
    fields: dict[str, FieldRule]
    sequence: FieldRule | None = None
    dedup: tuple[str, ...] = Field(default=(), description="fields of the model that tell a repeat")
    replaceable: bool = Field(default=False, description="a newer record of a key makes an older one worthless")
    ping: PingRule | None = None
    pings_count: bool = Field(default=False, description="the venue's WebSocket pings are its heartbeat")
    heartbeat_timeout_ms: int = Field(default=60_000, gt=0)
    max_frame_bytes: int = Field(default=1 << 20, gt=0)


class GenericProtocol(FeedProtocol):
    """A feed whose records are described by paths."""

    def __init__(self, feed: FeedSettings) -> None:
        options = self._options = parse_options(GenericOptions, feed)
        if feed.url is None:
            raise ConfigurationError("a generic feed needs a url")
        super().__init__(
            venue=options.name,
            url=feed.url,
            symbols=feed.symbols,
            heartbeat_timeout_ms=options.heartbeat_timeout_ms,
            max_frame_bytes=options.max_frame_bytes,
        )
        self.topics = (options.topic,)
        self.pings_count = options.pings_count
        model = self._model = load_model(options.model)
        self._validate = model.__pydantic_validator__.validate_json
        self._dump = model.__pydantic_serializer__.to_json
        self._check_names([*options.fields, *options.dedup])
        rules = self._with_defaults(options.fields)
        self._take = [(name, rule.compile()) for name, rule in rules.items()]
        self._select = selector(options.records)
        self._where = _conditions(options.where)
        self._beats = _conditions(options.heartbeat)
        self._error = getter(options.error) if options.error else None
        self._sequence = options.sequence.compile() if options.sequence else None
        self._key = self._key_of(options.key)
        self._last: dict[str, int] = {}
        self._next_ping_ms = 0
        trade_id = options.fields.get("trade_id")
        self._resumable = bool(options.sequence and trade_id and trade_id.path == options.sequence.path)

    def open_messages(self, now_ms: int) -> list[str]:
        """The configured messages, with the symbols in them."""
        self._next_ping_ms = now_ms + (self._options.ping.every_ms if self._options.ping else 0)
        messages = []
        for message in self._options.open:
            text = message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))
            text = text.replace("{symbols}", json.dumps(self.symbols))
            if "{symbol}" in text:
                messages += [text.replace("{symbol}", json.dumps(symbol)[1:-1]) for symbol in self.symbols]
            else:
                messages.append(text)
        return messages

    def tick(self, now_ms: int) -> list[FeedEvent]:
        """The configured ping when it is due."""
        ping = self._options.ping
        if ping is None or now_ms < self._next_ping_ms:
            return []
        self._next_ping_ms = now_ms + ping.every_ms
        return [SendText(ping.message.replace("{now_ms}", str(now_ms)))]

    def resume(self, symbol: str, trade_id: str) -> None:
        """See `FeedProtocol.resume`; works where the sequence is the trade id and the model names a symbol."""
        if self._resumable and trade_id.isascii() and trade_id.isdigit():
            key = f"{self.venue}:{symbol}"
            self._last[key] = max(int(trade_id), self._last.get(key, 0))

    def record_id(self, topic: str, value: bytes) -> str | None:
        """See `FeedProtocol.record_id`; told by the model, so nothing is known of a record that it would not take today."""
        if not self._options.dedup or topic != self._options.topic:
            return None
        try:
            return self._identity(self._validate(value))
        except Exception:  # somebody else's record, or one of another version; validators may raise anything
            return None

    def _identity(self, record: BaseModel) -> str:
        return "|".join(str(getattr(record, name)) for name in self._options.dedup)

    def _receive(self, frame: str | bytes, now_ms: int) -> list[FeedEvent]:
        try:
            whole = msgspec.json.decode(frame)
        except msgspec.DecodeError as problem:
            return [Rejected(frame_bytes(frame), MALFORMED_JSON, str(problem))]
        if self._error is not None and (said := self._error(whole)) not in (MISSING, None, ""):
            text = said if isinstance(said, str) else json.dumps(said)
            return [VenueError(self.venue, None, text[:500])]
        if self._beats and all(get(whole) == value for get, value in self._beats):
            return [SIGN_OF_LIFE]
        if not all(get(whole) == value for get, value in self._where):
            return [IGNORED]
        events: list[FeedEvent] = []
        for element in self._select(whole):
            try:
                events += self._record(element, whole, now_ms)
            except Unusable as problem:
                raw = frame_bytes(frame) if element is whole else json.dumps(element).encode()
                events.append(Rejected(raw, problem.reason, str(problem)))
        return events or [IGNORED]

    def _record(self, element: Any, whole: Any, now_ms: int) -> list[FeedEvent]:
        values = {}
        for name, take in self._take:
            value = take(element, whole, now_ms)
            if value is not MISSING:
                values[name] = value
        record = self._validated(values)
        key = self._key(record)
        symbol = getattr(record, "symbol", None)
        symbol = symbol if isinstance(symbol, str) else key
        number = self._number(element, whole, now_ms)
        gap = None if number is None else self._follow(key, symbol, number)
        stamp = getattr(record, "event_time", None)
        dedup = None
        if self._options.dedup:
            dedup = DedupKey(f"{self._options.topic}|{key}", self._identity(record), number)
        out = TopicRecord(
            self._options.topic,
            key.encode(),
            self._dump(record),
            self.venue,
            symbol,
            stamp if isinstance(stamp, int) else now_ms,
            dedup,
            self._options.replaceable,
        )
        return [out] if gap is None else [gap, out]

    def _validated(self, values: dict[str, Any]) -> BaseModel:
        try:
            record: BaseModel = self._validate(msgspec.json.encode(values))
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Unusable(_reason(first["type"]), f"{first['msg']} - at `$.{where}`") from None
        except Exception as problem:  # the model's own validators may raise anything; a frame must not stop the feed
            raise Unusable(WRONG_SCHEMA, f"{type(problem).__name__}: {problem}") from problem
        return record

    def _number(self, element: Any, whole: Any, now_ms: int) -> int | None:
        if self._sequence is None:
            return None
        found = self._sequence(element, whole, now_ms)
        if found is MISSING:
            raise Unusable(MISSING_FIELD, "the sequence is missing")
        number = convert(found, "integer", "the sequence")
        return int(number)

    def _follow(self, key: str, symbol: str, number: int) -> GapDetected | None:
        last = self._last.get(key)
        if last is None and len(self._last) >= MAX_INSTRUMENTS:
            raise Unusable(TOO_MANY_SYMBOLS, f"more than {MAX_INSTRUMENTS} keys in one feed")
        self._last[key] = number if last is None else max(number, last)
        if last is None or number <= last + 1:
            return None
        return GapDetected(self.venue, symbol, last + 1, number, f"sequences {last + 1} to {number - 1} are missing")

    # --- configuration ----------------------------------------------------------------------------------------------

    def _with_defaults(self, rules: dict[str, FieldRule]) -> dict[str, FieldRule]:
        found = dict(rules)
        if "venue" in self._model.model_fields:
            found.setdefault("venue", FieldRule(value=self.venue))
        for name in ("event_time", "ingest_time"):
            if name in self._model.model_fields:
                found.setdefault(name, FieldRule(arrival=True))
        return found

    def _check_names(self, names: list[str]) -> None:
        unknown = [name for name in names if name not in self._model.model_fields]
        if unknown:
            raise ConfigurationError(
                f"{self._options.model} has no field {unknown[0]!r}; it has: {', '.join(self._model.model_fields)}"
            )

    def _key_of(self, template: str | None) -> Callable[[BaseModel], str]:
        if template is None:
            if not isinstance(getattr(self._model, "key", None), property) and "key" not in self._model.model_fields:
                raise ConfigurationError(
                    f"{self._options.model} has no `key`; give the option key, e.g. '{{feed}}:{{device}}'"
                )
            return lambda record: str(getattr(record, "key"))  # noqa: B009 - the model is the user's
        parts: list[tuple[str, str | None]] = []
        try:
            for text, name, spec, conversion in string.Formatter().parse(template):
                if spec or conversion:
                    raise ValueError("formats are not supported")
                parts.append((text, name))
        except ValueError as problem:
            raise ConfigurationError(f"option key {template!r}: {problem}") from None
        own = self._options.name
        self._check_names([name for _, name in parts if name is not None and name != "feed"])

        def build(record: BaseModel) -> str:
            done = []
            for text, name in parts:
                value = "" if name is None else own if name == "feed" else getattr(record, name)
                done.append(f"{text}{value}")
            return "".join(done)

        return build


def load_model(path: str) -> type[BaseModel]:
    """Import a pydantic model by its dotted path.

    Raises:
        ConfigurationError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ConfigurationError(f"option model: cannot import {path!r}: {problem}") from None
    if not isinstance(found, type) or not issubclass(found, BaseModel):
        raise ConfigurationError(f"option model: expected a pydantic model at {path!r}, got {found!r}")
    return found


def _conditions(rules: dict[str, Any]) -> list[tuple[Callable[[Any], Any], Any]]:
    return [(getter(path), value) for path, value in rules.items()]


def _reason(kind: str) -> str:
    if kind == "missing":
        return MISSING_FIELD
    if kind.startswith(("greater_than", "less_than", "finite_number", "multiple_of")) or kind.endswith("_parsing"):
        return BAD_NUMBER
    return WRONG_TYPE if kind.endswith("_type") else WRONG_SCHEMA


def build(feed: FeedSettings) -> FeedProtocol:
    """The protocol of one generic feed."""
    return GenericProtocol(feed)
