"""How far the source of each re-keyed table has been forwarded: told in the metadata of the group's commits.

The group's position says how far *some* version of the app has come, not that a certain table was among what it fed: a
table that is added later, or comes back, has all of the source before it. So a commit names the re-keyed tables, each with
the next offset to forward; and a table that is not named there begins at its own beginning. Repeats are told by their
origin, so to begin too early costs time only.

A table is named with the identity of its re-key topic: where that was created anew, nothing of it has been forwarded. And
with the stream time of what was forwarded: what comes after it is judged late by that, whoever forwards it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from streamapp.errors import ConfigurationError
from streamapp.state.definition import MAX_TIME_MS

if TYPE_CHECKING:
    from streamapp.engine.tables import RunningTable

#: what a broker takes as a commit's metadata, unless `offset.metadata.max.bytes` says otherwise there
METADATA_MAX_BYTES = 4_096
_NAME = "forwarded"
#: librdkafka hands metadata on without an end, and its Python binding reads on to the next zero byte: so it ends with one
_END = "\0"
_LARGEST_OFFSET = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Forwarded:
    """How far one re-keyed table has come on one source partition.

    Attributes:
        topic_id: the identity of the re-key topic that holds the records.
        next_offset: everything below it is there, acknowledged.
        stream_time: the greatest event time of a record that is there, ms; -1 where there is none. It may count records
            behind `next_offset`, which are there as well and come again as repeats.
    """

    topic_id: str
    next_offset: int
    stream_time: int = -1


def encode(forwarded: Mapping[str, Forwarded]) -> str:
    """The metadata of a commit, by name of the table; empty where no table is named."""
    if not forwarded:
        return ""
    named = {name: [one.topic_id, one.next_offset, one.stream_time] for name, one in sorted(forwarded.items())}
    return orjson.dumps({_NAME: named}).decode() + _END


def decode(metadata: str) -> dict[str, Forwarded]:
    """What `encode` was given; nothing where the metadata is somebody else's."""
    try:
        named = orjson.loads(metadata.removesuffix(_END))[_NAME]
        return {
            name: Forwarded(str(topic_id), int(offset), int(time)) for name, (topic_id, offset, time) in named.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def merged(found: Mapping[str, Forwarded], own: Mapping[str, Forwarded]) -> dict[str, Forwarded]:
    """What a commit has to name: what was found there, and what this worker has forwarded; never less than was known.

    Tables that this worker does not know (another version of the app may have them) keep their place, as far as there is
    room for it.
    """
    result = {**found, **own}
    for name, known in found.items():
        one = result[name]
        if one.topic_id == known.topic_id:
            offset, time = max(one.next_offset, known.next_offset), max(one.stream_time, known.stream_time)
            result[name] = Forwarded(one.topic_id, offset, time)
    for name in sorted(found.keys() - own.keys()):
        if len(encode(result)) <= METADATA_MAX_BYTES:
            break
        del result[name]
    return result


def check_room(tables: Sequence["RunningTable"]) -> None:
    """All re-keyed tables of a source must find room in the metadata of one commit.

    Raises:
        ConfigurationError: they do not.
    """
    by_source: dict[str, dict[str, Forwarded]] = {}
    for table in tables:
        if table.definition.rekey is not None:
            named = by_source.setdefault(table.definition.sources[0].topic, {})
            named[table.name] = Forwarded(table.topic_ids[0], _LARGEST_OFFSET, MAX_TIME_MS)
    for topic, named in by_source.items():
        needed = len(encode(named))
        if needed > METADATA_MAX_BYTES:
            raise ConfigurationError(
                f"{len(named)} re-keyed tables read {topic}: to note how far each has come takes {needed} bytes, a commit "
                f"has room for {METADATA_MAX_BYTES}; give them shorter names, or let some of them read another topic"
            )
