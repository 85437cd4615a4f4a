"""Owning a changelog partition: the claim on taking it over, and saying again what a replaced owner wrote over.

A claim is the first record of a new owner, with an epoch above all that it has seen. It is right only if nothing came
between what was restored and the claim; else that is restored as well, and claimed again.

A replaced owner may go on to write for a moment: what its client holds is sent when the process wakes up. Its records have
a lower epoch, so no reader of the changelog believes them, but compaction would keep them in the place of what they wrote
over. The owner finds them as gaps between the offsets of its own records, and writes those keys again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from streamapp.clock import Clock
from streamapp.engine.changelog import ChangelogReader
from streamapp.engine.ledger import Ledger
from streamapp.engine.restore import RestoreRequest, restore
from streamapp.engine.tables import LivePartition
from streamapp.errors import KafkaError, StateError
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.state.entry import CHECKPOINT_KEY, NO_EPOCH
from streamapp.state.epochs import (
    DOUBTED_PREFIX,
    EPOCH_HEADER,
    EPOCH_KEY,
    EPOCH_SEEN_KEY,
    ChangelogRecord,
    claim_value,
    epoch_of,
    next_epoch,
    restamped,
)
from streamapp.state.replay import REBUILD_KEY, Replay
from streamapp.state.store import CHANGELOG_OFFSET_KEY, WriteSet

log = logging.getLogger(__name__)

_CLAIM_TRIES = 10
_READ_S = 0.25

Ends = Callable[[Iterable[tuple[str, int]]], Awaitable[dict[tuple[str, int], int]]]


class Ownership:
    """Claims partitions and keeps their changelogs true.

    Args:
        producer: the one that writes everything to these changelogs, so that its offsets tell what others wrote.
        end_offsets: asks the broker where changelogs end.
        guard: awaited before a claim; returns once the group has certainly assigned the partitions to this worker.
    """

    def __init__(
        self,
        producer: DurableProducer,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        *,
        end_offsets: Ends,
        guard: Callable[[], Awaitable[None]],
    ) -> None:
        self._producer = producer
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._end_offsets = end_offsets
        self._guard = guard
        self._looked_ms = clock.monotonic_ms()
        self.owner = ""  # who claims, for people that read the changelog

    # --- claiming ----------------------------------------------------------------------------------------------------

    async def claim(self, partitions: Sequence[LivePartition]) -> None:
        """Take these partitions over; their stores are restored and nobody writes to them.

        Raises:
            FencedError: they are another's by now.
            StateError: another worker keeps writing to a changelog.
            ProduceError: the claim was not acknowledged.
        """
        waiting = list(partitions)
        for _ in range(_CLAIM_TRIES):
            if not waiting:
                return
            await self._guard()
            positions = [self._prepare(live) for live in waiting]
            offsets = await self._producer.send_all([self._claim_of(live) for live in waiting])
            behind: list[tuple[LivePartition, int]] = []
            for live, position, offset in zip(waiting, positions, offsets, strict=True):
                if offset != position:
                    behind.append((live, offset))
                    continue
                live.ledger = Ledger(offset + 1)
                live.store.write(WriteSet([(CHANGELOG_OFFSET_KEY, b"%d" % offset), (EPOCH_SEEN_KEY, live.epoch)]))
            await self._catch_up(behind)
            waiting = [live for live, _ in behind]
        if waiting:
            live = waiting[0]
            raise StateError(
                live.table.name,
                live.partition,
                f"table {live.table.name}, partition {live.partition}: somebody else keeps writing to "
                f"{live.table.changelog_topic}; is another app of the same id, in another group, running?",
            )

    @staticmethod
    def _prepare(live: LivePartition) -> int:
        """Note the next epoch, and what is doubted; the offset that the claim must get."""
        seen = Replay(live.store, windowed=live.table.definition.window is not None)
        live.epoch, live.doubted, live.ledger = next_epoch(seen.epoch), seen.doubted, None
        return seen.position

    def _claim_of(self, live: LivePartition) -> OutMessage:
        return OutMessage(live.table.changelog_topic, EPOCH_KEY, claim_value(live.epoch, self.owner), live.partition)

    async def _catch_up(self, behind: Sequence[tuple[LivePartition, int]]) -> None:
        requests = [
            RestoreRequest(
                live.table.name,
                live.partition,
                live.table.changelog_topic,
                live.store,
                0,
                offset + 1,
                live.table.definition.window is not None,
            )
            for live, offset in behind
            if offset >= 0  # else the next claim tells how far to read
        ]
        await restore(
            requests, self._settings, self._clock, on_restored=lambda request: None, is_wanted=lambda request: True
        )

    # --- saying again --------------------------------------------------------------------------------------------------

    async def mend(self, partitions: Sequence[LivePartition]) -> None:
        """Write again what a replaced owner wrote over; call it while no record of this worker is on its way.

        Raises:
            ProduceError, StateError, KafkaError: as a checkpoint.
        """
        owned = [live for live in partitions if live.ledger is not None and live.state is not None]
        await self._look_at_ends(owned)
        for live in owned:
            assert live.ledger is not None
            if live.ledger.foreign or live.doubted:
                await self._mend(live, live.ledger)

    async def _look_at_ends(self, owned: Sequence[LivePartition]) -> None:
        """Now and then: a partition that nothing is written to shows no gaps.

        No checkpoint depends on it, so none waits long for brokers that cannot tell: it is looked again the next time.
        """
        now_ms = self._clock.monotonic_ms()
        if not owned or now_ms - self._looked_ms < self._settings.changelog_watch_ms:
            return
        self._looked_ms = now_ms
        try:
            async with asyncio.timeout(self._settings.kafka_request_timeout_ms / 1000):
                ends = await self._end_offsets([(live.table.changelog_topic, live.partition) for live in owned])
        except (TimeoutError, KafkaError) as problem:
            log.warning(
                "the ends of the changelogs cannot be told now, they are looked at again: %s", problem or "no answer"
            )
            return
        for live in owned:
            assert live.ledger is not None
            live.ledger.found_end(ends[live.table.changelog_topic, live.partition])

    async def _mend(self, live: LivePartition, ledger: Ledger) -> None:
        topic, partition = live.table.changelog_topic, live.partition
        foreign = ledger.foreign
        records = [record for begin, end in foreign for record in await self._read(topic, partition, begin, end)]
        doubted = set(live.doubted)
        highest = NO_EPOCH
        for record in records:
            if record.key is None or record.key == REBUILD_KEY:
                continue
            highest = max(highest, epoch_of(record))
            if record.key != EPOCH_KEY:
                doubted.add(record.key)
        await self._guard()
        messages: list[OutMessage] = []
        if highest >= live.epoch:
            # claimed by a worker that did not know yet that it was replaced: only one of both has a lease, and it is here
            live.epoch = next_epoch(highest)
            messages.append(self._claim_of(live))
        elif any(record.key == EPOCH_KEY for record in records):
            # a claim of before that landed late: compaction would keep it in the place of this worker's
            messages.append(self._claim_of(live))
        changes = WriteSet()
        header = ((EPOCH_HEADER, live.epoch),)
        for key in sorted(doubted):
            value = live.store.get(key)
            if value is not None:
                value = restamped(key, value, live.epoch)
                changes.puts.append((key, value))
            told = header if value is None or key == CHECKPOINT_KEY else ()
            messages.append(OutMessage(topic, key, value, partition, told))
        offsets = await self._producer.send_all(messages)
        # what has come meanwhile is looked at the next time
        ledger.foreign = ledger.foreign[len(foreign) :]
        ledger.wrote(offsets)
        live.doubted = set()
        if live.state is not None:
            live.state.epoch = live.epoch
        changes.deletes = [DOUBTED_PREFIX + key for key in sorted(doubted)]
        changes.puts += [(CHANGELOG_OFFSET_KEY, b"%d" % ledger.position), (EPOCH_SEEN_KEY, live.epoch)]
        live.store.write(changes)
        if doubted:
            self._metrics.mended_keys.labels(live.table.name).inc(len(doubted))
            log.warning(
                "table %s, partition %d: %d records may be a replaced owner's; %d keys are written again",
                live.table.name,
                partition,
                len(records),
                len(doubted),
            )

    async def _read(self, topic: str, partition: int, begin: int, end: int) -> list[ChangelogRecord]:
        """The records of a range; those that compaction has taken meanwhile are missing."""
        place = (topic, partition)
        found: list[ChangelogRecord] = []
        position = begin
        async with asyncio.timeout(self._settings.flush_timeout_ms / 1000):
            async with ChangelogReader(self._settings, {place: begin}) as reader:
                while position < end:
                    for chunk in await reader.next(_READ_S):
                        found += [record for record in chunk.records() if record.offset < end]
                        position = end if chunk.nothing_here and chunk.high_watermark >= end else chunk.end
        return found
