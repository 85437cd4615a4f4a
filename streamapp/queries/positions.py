"""How far a subscriber has been told of a table, written into the ids of events, so that it can go on from there.

What stands is in the values: each says up to which source offset it counts. So a position is, per partition, what was
merged when the subscriber had been told of everything: a value changed since where it counts a later offset. That holds on
whichever worker the partition lives and however often it was restored, but for one thing: what was merged and not yet
durable when an owner died is merged again by the next one, and may then be judged otherwise (an idle source, the order of
two sources). A position therefore also says what was durable, and that is where another owner goes on from.
"""

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

#: an id that would be longer is not sent: it comes back in a header
ID_MAX_CHARS = 4_096
_VERSION = 1
_CHECK_BYTES = 4
_MARK_BYTES = 6
Place = tuple[bytes, int]  # whose state: a table's mark, a partition


@dataclass(frozen=True, slots=True)
class Position:
    """What of one partition has been told.

    Attributes:
        epoch: of the owner that told it.
        applied: per origin, the last offset that was merged.
        watermark: stream time then; windows that were closed by it have not changed since.
        durable: per origin, the last offset of the newest checkpoint then; -1: none.
        durable_watermark: that checkpoint's stream time.
    """

    epoch: int
    applied: tuple[int, ...]
    watermark: int
    durable: tuple[int, ...]
    durable_watermark: int


#: what a subscriber has been told of, all tables and partitions of its stream
Told = dict[Place, Position]

#: the ids of positions in one partition that were asked for last
_latest: dict[Place, tuple[Position, str]] = {}
_LATEST_MAX = 1_024
_Part = tuple[int, int, list[int], int, list[int], int]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[tuple[bytes, list[_Part]]]]).decode


def mark_of(identity: Iterable[object]) -> bytes:
    """What stands for a table in an id; another cluster, another definition or a rebuilt table has another one."""
    return blake2b("\x00".join(map(str, identity)).encode(), digest_size=_MARK_BYTES).digest()


def encode(told: Mapping[Place, Position]) -> str:
    """The id; empty where it would be too long, or nothing has been told of."""
    if len(told) == 1:
        # subscribers of one key: many of them are told the same
        place, position = next(iter(told.items()))
        known = _latest.get(place)
        if known is None or known[0] is not position:
            if len(_latest) >= _LATEST_MAX:
                _latest.clear()
            known = _latest[place] = position, _encoded(told)
        return known[1]
    return _encoded(told) if told else ""


def _encoded(told: Mapping[Place, Position]) -> str:
    tables: dict[bytes, list[_Part]] = {}
    for (mark, partition), at in told.items():
        part = (
            partition,
            at.epoch,
            list(at.applied),
            at.watermark,
            # as differences they are short
            [applied - durable for applied, durable in zip(at.applied, at.durable, strict=True)],
            at.watermark - at.durable_watermark,
        )
        tables.setdefault(mark, []).append(part)
    raw = _encode((_VERSION, list(tables.items())))
    text = base64.urlsafe_b64encode(_check(raw) + raw).decode().rstrip("=")
    return text if len(text) <= ID_MAX_CHARS else ""


def decode(text: str) -> Told | None:
    """The reverse of `encode`; None for what is no id of this version."""
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        raw = whole[_CHECK_BYTES:]
        if not text or len(text) > ID_MAX_CHARS or whole[:_CHECK_BYTES] != _check(raw):
            return None
        version, tables = _decode(raw)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    if version != _VERSION:
        return None
    told: Told = {}
    for mark, parts in tables:
        for partition, epoch, applied, watermark, behind, watermark_behind in parts:
            if len(applied) != len(behind):
                return None
            durable = tuple(high - less for high, less in zip(applied, behind, strict=True))
            told[mark, partition] = Position(epoch, tuple(applied), watermark, durable, watermark - watermark_behind)
    return told


def oldest(parts: Iterable[Mapping[Place, Position]]) -> Told:
    """What a subscriber of all these parts has been told for certain: of a place that several speak of, what all have told.

    A position is only as good as the part that says it: another part may still have an earlier value to tell.
    """
    told: Told = {}
    for part in parts:
        for place, at in part.items():
            known = told.get(place)
            told[place] = at if known is None or known is at else _older(known, at)
    return told


def _older(one: Position, other: Position) -> Position:
    if len(one.applied) != len(other.applied):
        return min(one, other, key=lambda at: at.epoch)
    return Position(
        min(one.epoch, other.epoch),
        tuple(map(min, one.applied, other.applied)),
        min(one.watermark, other.watermark),
        tuple(map(min, one.durable, other.durable)),
        min(one.durable_watermark, other.durable_watermark),
    )


def _check(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(_CHECK_BYTES)


def since(at: Position, epoch: int, applied: Sequence[int]) -> tuple[tuple[int, ...], int] | None:
    """From which offsets and stream time on a partition's values are news to a subscriber.

    Args:
        at: what it has been told.
        epoch: of the present owner.
        applied: per origin, what the present owner has merged.

    Returns:
        Per origin the offset behind which values are news, and a stream time by which all others are closed; None where the
        position cannot be of this partition, or is of a state that was lost.
    """
    if epoch == at.epoch:
        offsets, watermark = at.applied, at.watermark
    elif at.epoch < epoch:
        offsets, watermark = at.durable, at.durable_watermark
    else:
        return None
    if len(offsets) != len(applied) or any(told > have for told, have in zip(offsets, applied, strict=True)):
        return None
    return offsets, watermark
