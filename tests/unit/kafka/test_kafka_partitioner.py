"""The partitioner against the vectors of Kafka's own tests (`UtilsTest.testMurmur2`)."""

import pytest

from streamapp.kafka.partitioner import murmur2, partition_for

VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("data", "java"), VECTORS)
def test_murmur2_equals_java(data, java):
    assert murmur2(data) == java & 0xFFFFFFFF


@pytest.mark.parametrize("length", range(9))
def test_murmur2_of_every_tail_length_equals_aiokafka(length):
    from aiokafka.partitioner import murmur2 as theirs

    data = bytes(range(200, 200 + length))
    assert murmur2(data) == theirs(bytearray(data)) & 0xFFFFFFFF


def test_partition_is_always_within_the_topic():
    assert {partition_for(b"key-%d" % i, 7) for i in range(500)} == set(range(7))


def test_partition_of_a_topic_without_partitions_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        partition_for(b"x", 0)
