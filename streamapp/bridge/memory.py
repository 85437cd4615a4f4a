"""What the topics tell the bridge after a restart: ids that it must not send again, and where each symbol stood."""

import logging
from collections.abc import Mapping, Sequence

from streamapp.bridge.dedup import DedupMemory
from streamapp.bridge.outbox import Entry
from streamapp.bridge.tail import TailReader, record_id
from streamapp.clock import Clock
from streamapp.feeds.market import QUOTES_TOPIC, TRADES_TOPIC
from streamapp.feeds.protocol import FeedProtocol
from streamapp.settings import Settings

log = logging.getLogger(__name__)


class Resumption:
    """Reads the ends of `trades`, of `quotes`, and of the topics that feeds have for themselves.

    Bound: `bridge_seed_records` per partition, and up to `bridge_seed_max_records` for subscribed symbols whose last
    trade lies further back. A venue repeats a symbol's newest trades at most, so what lies beyond is not asked for.
    """

    def __init__(self, settings: Settings, memory: DedupMemory, clock: Clock) -> None:
        self._settings = settings
        self._memory = memory
        self._reader = TailReader(settings, clock)
        self._topics: dict[str, int] = {}
        self._tellers: dict[str, list[FeedProtocol]] = {}

    async def resume(self, protocols: Sequence[FeedProtocol], partitions: Mapping[str, int]) -> None:
        """Fill the memory, and tell each protocol the newest trade of every symbol of its venue.

        Args:
            protocols: of all feeds.
            partitions: how many each topic of theirs has.

        Raises:
            KafkaError: the topics cannot be read in time.
        """
        for protocol in protocols:
            for topic in protocol.topics:
                self._tellers.setdefault(topic, []).append(protocol)
        self._topics = {topic: partitions[topic] for topic in (TRADES_TOPIC, QUOTES_TOPIC, *self._tellers)}
        newest: dict[bytes, str] = {}
        add = self._memory.add

        def visit(topic: str, key: bytes, value: bytes) -> None:
            for identity in self._record_ids(topic, value):
                add(f"{topic}|{key.decode()}", identity)
            if topic == TRADES_TOPIC and (trade_id := record_id(topic, value)) is not None:
                known = newest.get(key)
                if known is None or not (known.isdigit() and trade_id.isdigit()) or int(trade_id) > int(known):
                    newest[key] = trade_id

        wanted = [
            (TRADES_TOPIC, f"{protocol.venue}:{symbol}".encode())
            for protocol in protocols
            for symbol in protocol.symbols
        ]
        count = await self._reader.read(self._topics, visit, wanted=wanted)
        for key, trade_id in newest.items():
            venue, _, symbol = key.decode().partition(":")
            for protocol in protocols:
                if protocol.venue == venue:
                    protocol.resume(symbol, trade_id)
        log.info("bridge: read %d records; %d symbols go on where they stood", count, len(newest))

    async def already_there(self, entries: list[Entry]) -> set[Entry]:
        """Of these unacknowledged entries, those that are on their topics all the same.

        Raises:
            KafkaError: the topics cannot be read in time.
        """
        sought = {
            (entry.topic, entry.key, entry.dedup.record_id): entry
            for entry in entries
            if entry.dedup is not None and entry.topic in self._topics
        }
        if not sought:
            return set()
        found: set[Entry] = set()

        def visit(topic: str, key: bytes, value: bytes) -> None:
            for identity in self._record_ids(topic, value):
                if (entry := sought.get((topic, key, identity))) is not None:
                    found.add(entry)

        # others may write to the same partitions, so look further back than what was under way
        await self._reader.read(self._topics, visit, at_least=max(2 * len(entries), self._settings.bridge_seed_records))
        return found

    def _record_ids(self, topic: str, value: bytes) -> set[str]:
        """What each feed that writes there would call a stored record."""
        told = [
            record_id(topic, value),
            *(protocol.record_id(topic, value) for protocol in self._tellers.get(topic, ())),
        ]
        return {identity for identity in told if identity is not None}
