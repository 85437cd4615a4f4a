"""Which partition a key belongs to: the default of the Java clients, and of every producer here.

Source: Austin Appleby's MurmurHash2 (32 bit) with Kafka's seed, `org.apache.kafka.common.utils.Utils.murmur2`;
librdkafka's `murmur2` and `murmur2_random` choose the same.
"""

import functools
import struct

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 of `data`, as an unsigned integer (Java shows the same bits as a signed one)."""
    length = len(data)
    hashed = _SEED ^ length
    whole = length & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mixed = (word * _MULTIPLIER) & _MASK
        mixed ^= mixed >> 24
        hashed = ((hashed * _MULTIPLIER) & _MASK) ^ ((mixed * _MULTIPLIER) & _MASK)
    if length > whole:
        hashed ^= int.from_bytes(data[whole:], "little")
        hashed = (hashed * _MULTIPLIER) & _MASK
    hashed ^= hashed >> 13
    hashed = (hashed * _MULTIPLIER) & _MASK
    return hashed ^ (hashed >> 15)


@functools.lru_cache(maxsize=65_536)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition, 0-based, that a record with this key goes to.

    Args:
        key: the record's key as it is on the topic, not a JSON text of it.
        partitions: how many the topic has.

    Raises:
        ValueError: `partitions` is not positive.
    """
    if partitions <= 0:
        raise ValueError(f"a topic has at least one partition, got {partitions}")
    return (murmur2(key) & 0x7FFFFFFF) % partitions
