"""Checkpoints: what has been merged becomes durable, in the one order that survives a crash at any point.

    1. dead letters are sent                                 and acknowledged
    2. values are sent                                       and acknowledged
    3. tombstones and late records are sent                  and acknowledged
    4. the checkpoint records are sent                       and acknowledged
    5. final records are sent                                and acknowledged
    6. each store takes its values, checkpoint and changelog offset in one atomic write
    7. only now may the source offsets be committed

All partitions of the worker share each round trip, and one that would be empty is left out. A crash before 4 leaves values
that the next run recognises by their own offsets; it passes over the records that they hold, hence 1 before 2. A merged
session is durable before the tombstones of what it covers, hence 2 before 3. A crash after 4 leaves a changelog that is
ahead of the store, which restoring mends. Final records go out only after the checkpoint that closes their windows, so a
repeat has the same value; the next checkpoint tells that they are out, and without it they are sent again. Any failure
stops the worker for good: what the broken checkpoint held is in no later one, so there is no later one.
"""

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import orjson

from streamapp.clock import Clock
from streamapp.engine.lane import SourceLane
from streamapp.engine.tables import LivePartition
from streamapp.errors import StateError
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.metrics import Metrics
from streamapp.records.codec import plain
from streamapp.state.batch import FinalWindow, FlushPlan, LateRecord
from streamapp.state.entry import CHECKPOINT_KEY
from streamapp.state.epochs import EPOCH_HEADER

if TYPE_CHECKING:
    from streamapp.state.partition import PartitionState

#: beyond this many changes a store is written in a thread, so that readers do not wait
_WRITE_IN_THREAD_MIN = 1_000
_MESSAGES_PER_TURN = 500


class Checkpointer:
    """Runs one checkpoint at a time over all partitions and lanes.

    Args:
        producer: for changelogs, final and late records and dead letters.
        committed: the consumer group's position on (topic, partition), -1 where unknown.
        timeout_ms: bound on one checkpoint.
        guard: awaited before each step; it returns once the partitions are certainly this worker's, and raises where they
            are not any more.
        mend: awaited at the beginning, while nothing is on its way: writes again what a replaced owner wrote over.
    """

    def __init__(
        self,
        producer: DurableProducer,
        metrics: Metrics,
        clock: Clock,
        *,
        committed: Callable[[str, int], int],
        timeout_ms: int,
        guard: Callable[[], Awaitable[None]] | None = None,
        mend: Callable[[Sequence[LivePartition]], Awaitable[None]] | None = None,
    ) -> None:
        self._producer = producer
        self._metrics = metrics
        self._clock = clock
        self._committed = committed
        self._timeout_ms = timeout_ms
        self._guard = guard or _no_guard
        self._mend = mend
        self._lock = asyncio.Lock()
        self._broken = False
        self._awaited = ""  # what the checkpoint under way waits for
        self.cluster_id = ""

    async def reset(self) -> None:
        """Wait for the checkpoint under way, and forget whether it broke.

        For when all partitions are given up, and will be restored from what is durable.
        """
        async with self._lock:
            self._broken = False

    async def flush(self, partitions: Iterable[LivePartition], lanes: Iterable[SourceLane]) -> None:
        """Make all that has been merged durable, then let the lanes' offsets be committed.

        Args:
            partitions: what is made durable.
            lanes: all that feed them now; of a live view those, too, that are opened while this waits: what they feed may
                get into this checkpoint, their offsets do not.

        Raises:
            ProduceError: a record was not acknowledged.
            StateError: the disk refused, the time-out passed, or an earlier checkpoint was not completed.
            FencedError: the partitions are not this worker's any more.
        """
        # taken together: what a lane has merged is durable only where all that it feeds is part of the checkpoint
        parts, fed = list(partitions), list(lanes)
        async with self._lock:
            if self._broken:
                raise StateError(
                    "*",
                    None,
                    "an earlier checkpoint was not completed, so nothing after it can be made durable; start the worker "
                    "again, it goes on from the last complete one",
                )
            self._broken = True  # until it is through: cancelling breaks it as well
            try:
                async with asyncio.timeout(self._timeout_ms / 1000):
                    await self._flush(parts, fed, lanes)
                self._broken = False
            except TimeoutError:
                raise StateError(
                    "*",
                    None,
                    f"a checkpoint took longer than {self._timeout_ms} ms, at last it waited for {self._awaited}; check "
                    "the brokers and the disk, or raise STREAMAPP_FLUSH_TIMEOUT_MS",
                ) from None

    async def _flush(
        self, partitions: Sequence[LivePartition], lanes: Sequence[SourceLane], open_lanes: Iterable[SourceLane]
    ) -> None:
        await self._owned()
        if self._mend is not None:
            self._awaited = "what the changelogs hold of replaced owners"
            await self._mend(partitions)
        # what a plan holds may be more than these positions say, never less; it is merged from here on
        positions = [(lane, lane.applied) for lane in lanes]
        plans: list[tuple[LivePartition, PartitionState, FlushPlan]] = []
        beside: list[OutMessage] = []
        finals: list[OutMessage] = []
        for live in partitions:
            plan = self._plan(live)
            if plan is None or live.state is None:
                continue
            plans.append((live, live.state, plan))
            # readers and lanes get a turn: thousands of changes hold the event loop for many milliseconds
            await asyncio.sleep(0)
            topic, partition = live.table.changelog_topic, live.partition
            beside += [OutMessage(topic, key, None, partition, _whose(live)) for key in plan.tombstones]
            beside += [_late_message(live, late) for late in plan.late]
            if live.table.definition.publish_final:
                for final in plan.finals:
                    finals.append(_final_message(live, final))
                    if len(finals) % _MESSAGES_PER_TURN == 0:
                        await asyncio.sleep(0)
        values = _ValueMessages(plans)
        # after the plans, and of the lanes that there are by now: of a record that a plan passes over, the dead letter is
        # among them, even if its lane was opened after this began
        rejected: list[OutMessage] = []
        for lane in dict.fromkeys([*lanes, *open_lanes]):
            rejected += lane.rejected
            lane.rejected = []
        started = self._clock.monotonic_ms()
        await self._send("dead letters", rejected)
        sent = await self._send("values", values)
        _note(sent, ((live, len(plan.values), 0) for live, _, plan in plans))
        await self._owned()
        sent = await self._send("tombstones and late records", beside)
        _note(sent, ((live, len(plan.tombstones), len(plan.late)) for live, _, plan in plans))
        await self._owned()
        offsets = await self._send(
            "checkpoint records",
            [
                OutMessage(
                    live.table.changelog_topic, CHECKPOINT_KEY, plan.checkpoint.encode(), live.partition, _whose(live)
                )
                for live, _, plan in plans
            ],
        )
        _note(offsets, ((live, 1, 0) for live, _, _ in plans))
        await self._owned()
        await self._send("final records", finals)
        await self._owned()
        elapsed_s = (self._clock.monotonic_ms() - started) / 1000
        # each plan is let go of as soon as its store has it: together they are what a worker needs most memory for
        unwritten = deque(zip(plans, offsets, strict=True))
        plans.clear()
        while unwritten:
            (live, state, plan), checkpoint_offset = unwritten.popleft()
            offset = checkpoint_offset if checkpoint_offset >= 0 else state.changelog_offset
            if live.ledger is not None:
                # a store has seen nothing behind the first record that somebody else may have written
                offset = live.ledger.position if checkpoint_offset < 0 else min(offset, live.ledger.position)
            self._awaited = f"the store of {live.table.name}-{live.partition} to be written"
            if plan.changes.puts_count > _WRITE_IN_THREAD_MIN:
                await asyncio.to_thread(state.write_flush, plan, offset)
            else:
                state.write_flush(plan, offset)
            state.finish_flush(plan)
            self._count(live, plan, elapsed_s)
        for lane, position in positions:
            lane.durable = max(lane.durable, position)

    async def _owned(self) -> None:
        self._awaited = "the group to confirm that the partitions are this worker's"
        await self._guard()

    async def _send(self, what: str, messages: Collection[OutMessage]) -> list[int]:
        self._awaited = f"{len(messages)} {what} to be acknowledged"
        return await self._producer.send_all(messages)

    def _plan(self, live: LivePartition) -> FlushPlan | None:
        if live.state is None:
            return None
        table = live.table
        committed = [self._committed(topic, live.partition) for topic in table.input_topics]
        return live.state.prepare_flush(self.cluster_id, table.topic_ids, committed)

    def _count(self, live: LivePartition, plan: FlushPlan, elapsed_s: float) -> None:
        name, metrics = live.table.name, self._metrics
        metrics.commits.labels(name).inc()
        metrics.changelog_records.labels(name).inc(len(plan.values) + len(plan.tombstones) + 1)
        metrics.changelog_seconds.labels(name).observe(elapsed_s)
        if plan.finals:
            metrics.final_records.labels(name).inc(len(plan.finals))
        if plan.expired:
            metrics.expired_windows.labels(name).inc(plan.expired)


class _ValueMessages(Collection[OutMessage]):
    """The values of several plans as messages, each made only when it is asked for: a plan may hold tens of thousands.

    Args:
        plans: the caller's own list; when it is emptied, nothing here holds them.
    """

    def __init__(self, plans: "Sequence[tuple[LivePartition, PartitionState, FlushPlan]]") -> None:
        self._plans = plans

    def __len__(self) -> int:
        return sum(len(plan.values) for _, _, plan in self._plans)

    def __iter__(self) -> Iterator[OutMessage]:
        for live, _, plan in self._plans:
            topic, partition = live.table.changelog_topic, live.partition
            for key, value in plan.values.items():
                yield OutMessage(topic, key, value, partition)

    def __contains__(self, message: object) -> bool:
        return any(message == one for one in self)


def _whose(live: LivePartition) -> Sequence[tuple[str, bytes]]:
    """The header of a record whose value does not tell the owner's epoch."""
    return ((EPOCH_HEADER, live.epoch),) if live.ledger is not None else ()


def _note(offsets: Sequence[int], parts: Iterable[tuple[LivePartition, int, int]]) -> None:
    """Write down what is this worker's own; parts are (partition, records of its changelog, further records)."""
    begin = 0
    for live, count, further in parts:
        if live.ledger is not None:
            live.ledger.wrote(offsets[begin : begin + count])
        begin += count + further


async def _no_guard() -> None:
    """Where nobody else could own the partitions."""


def _final_message(live: LivePartition, final: FinalWindow) -> OutMessage:
    body = orjson.dumps(final.record(live.table.name))
    return OutMessage(live.table.final_topic, final.key.encode(), body, live.partition)


def _late_message(live: LivePartition, late: LateRecord) -> OutMessage:
    """A record that came too late, with the windows that it missed; the same id however often it is sent."""
    topic = live.table.definition.sources[late.source].topic
    partition = late.origin if live.table.definition.rekey is not None else live.partition
    record = late.record
    body = {
        "id": f"{live.table.name}:{topic}-{partition}-{late.offset}",
        "table": live.table.name,
        "key": late.key,
        "topic": topic,
        "partition": partition,
        "offset": late.offset,
        "event_time": late.event_time,
        "watermark": late.watermark,
        "missed_windows": list(late.missed),
        "record": base64.b64encode(record).decode() if isinstance(record, bytes) else plain(record),
    }
    return OutMessage(live.table.late_topic, late.key.encode(), orjson.dumps(body, default=str), live.partition)
