"""Restoring: the changelog is read into the store, from where the store stands to the end.

One client reads all partitions that one assignment brought, in a thread of its own, so that readers of other partitions
are served meanwhile. The store is written as the changelog was, in batches that each hold their own position, so a crash
in the middle goes on from there.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamapp.clock import Clock
from streamapp.errors import StateError
from streamapp.kafka.config import confluent_config
from streamapp.settings import Settings
from streamapp.state.entry import CHECKPOINT_KEY, entry_offsets, time_key_of
from streamapp.state.store import CHANGELOG_OFFSET_KEY, HORIZON_KEY, StateStore, WriteSet

log = logging.getLogger(__name__)

REBUILD_KEY = b"r"
_CONSUME_MAX_RECORDS = 10_000
_CONSUME_WAIT_S = 0.05
_encode_offsets = msgspec.msgpack.Encoder().encode
_decode_offsets = msgspec.msgpack.Decoder(list[int]).decode


@dataclass
class RestoreRequest:
    """One partition to bring up to date.

    Attributes:
        table, partition, topic: whose changelog.
        store: where to; written from the restoring thread, nobody else may write it meanwhile.
        begin, end: the changelog's first and next offset, as the broker says.
        windowed: whether the store keeps the index in order of time.
        records: counts what was read.
    """

    table: str
    partition: int
    topic: str
    store: StateStore
    begin: int
    end: int
    windowed: bool
    records: int = 0

    @property
    def position(self) -> int:
        """The next changelog offset that the store has not seen."""
        raw = self.store.get(CHANGELOG_OFFSET_KEY)
        return int(raw) + 1 if raw is not None else self.begin


async def restore(
    requests: Sequence[RestoreRequest],
    settings: Settings,
    clock: Clock,
    *,
    on_restored: Callable[[RestoreRequest], None],
    is_wanted: Callable[[RestoreRequest], bool],
) -> None:
    """Bring all requested partitions up to date; each is reported on the event loop as soon as it is.

    Args:
        requests: what to restore.
        settings: brokers, and how long to wait without any progress.
        clock: for that time-out.
        on_restored: called once per request that was completed.
        is_wanted: False ends a request early, where the partition has been taken away meanwhile.

    Raises:
        StateError: no progress within `restore_timeout_ms`, or the store cannot be written.
    """
    loop = asyncio.get_running_loop()
    behind: list[RestoreRequest] = []
    for request in requests:
        if request.position >= request.end:
            on_restored(request)
        else:
            behind.append(request)

    def report(request: RestoreRequest) -> None:
        loop.call_soon_threadsafe(on_restored, request)

    if not behind:
        return
    reading = asyncio.ensure_future(asyncio.to_thread(_read, behind, settings, clock, report, is_wanted))
    try:
        await asyncio.shield(reading)
    except asyncio.CancelledError:
        # the thread ends by itself once nothing is wanted; until then nobody else may touch these stores
        await asyncio.wait({reading})
        raise


def starts_over(settings: Settings, place: tuple[str, int], begin: int, end: int) -> bool:
    """Whether a changelog partition begins with the mark of a rebuild; blocks."""
    if begin >= end:
        return False
    consumer = Consumer({**_client(settings), "queued.max.messages.kbytes": 1024}, logger=log)
    try:
        consumer.assign([TopicPartition(*place, begin)])
        first = consumer.poll(settings.kafka_request_timeout_ms / 1000)
        return first is not None and first.error() is None and first.key() == REBUILD_KEY
    finally:
        consumer.close()


def _client(settings: Settings) -> dict[str, Any]:
    return {
        **confluent_config(settings),
        "group.id": "streamapp-restore",  # the client insists on one; it never joins it
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "check.crcs": True,
    }


def _read(
    requests: Sequence[RestoreRequest],
    settings: Settings,
    clock: Clock,
    on_restored: Callable[[RestoreRequest], None],
    is_wanted: Callable[[RestoreRequest], bool],
) -> None:
    waiting = {(request.topic, request.partition): request for request in requests}
    consumer = Consumer(
        {
            **_client(settings),
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "fetch.max.bytes": 64 << 20,
            "max.partition.fetch.bytes": 8 << 20,
            "queued.min.messages": 200_000,
            "queued.max.messages.kbytes": 128 << 10,
        },
        logger=log,
    )
    try:
        consumer.assign([TopicPartition(r.topic, r.partition, max(r.position, r.begin)) for r in requests])
        last_progress = clock.monotonic_ms()
        while waiting:
            messages = consumer.consume(_CONSUME_MAX_RECORDS, _CONSUME_WAIT_S)
            grouped: dict[tuple[str, int], list[Any]] = {}
            ended: set[tuple[str, int]] = set()
            for message in messages:
                place = (message.topic(), message.partition())
                problem = message.error()
                if problem is None:
                    grouped.setdefault(place, []).append(message)
                elif problem.code() == KafkaError._PARTITION_EOF:
                    ended.add(place)
                elif not problem.retriable():
                    raise KafkaException(problem)
            for place, batch in grouped.items():
                if place in waiting:
                    _write(waiting[place], batch)
                    last_progress = clock.monotonic_ms()
            for place, request in list(waiting.items()):
                if not is_wanted(request):
                    del waiting[place]
                elif place in ended or request.position >= request.end:
                    del waiting[place]
                    on_restored(request)
            if clock.monotonic_ms() - last_progress > settings.restore_timeout_ms:
                names = ", ".join(f"{request.table}-{request.partition}" for request in waiting.values())
                raise StateError(
                    next(iter(waiting.values())).table,
                    None,
                    f"restoring {names}: nothing came from the changelog for {settings.restore_timeout_ms} ms; check the "
                    "brokers, or raise STREAMAPP_RESTORE_TIMEOUT_MS",
                )
    finally:
        consumer.close()


def _write(request: RestoreRequest, messages: Sequence[Any]) -> None:
    """Write records of one changelog partition to its store, as one atomic batch with their position."""
    store = request.store
    raw_horizon = store.get(HORIZON_KEY)
    horizon = _decode_offsets(raw_horizon) if raw_horizon is not None else []
    newest: dict[bytes, bytes | None] = {}
    for message in messages:
        key = message.key()
        if key is not None and key != REBUILD_KEY:
            newest[key] = message.value()
    changes = WriteSet()
    for key, value in newest.items():
        if key == CHECKPOINT_KEY:
            if value is not None:
                changes.puts.append((key, value))
            continue
        if value is None:
            changes.deletes.append(key)
            if request.windowed:
                changes.deletes.append(time_key_of(key))
            continue
        changes.puts.append((key, value))
        if request.windowed:
            changes.puts.append((time_key_of(key), b""))
        offsets = entry_offsets(value)
        if len(horizon) != len(offsets):
            horizon = [-1] * len(offsets)
        horizon = [max(pair) for pair in zip(horizon, offsets, strict=True)]
    if horizon:
        changes.puts.append((HORIZON_KEY, _encode_offsets(horizon)))
    changes.puts.append((CHANGELOG_OFFSET_KEY, str(messages[-1].offset()).encode()))
    store.write(changes)
    request.records += len(messages)
