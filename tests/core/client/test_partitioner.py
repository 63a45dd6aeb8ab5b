"""Partitions by key agree with Java's clients; without a key batches fill one partition after another."""

from __future__ import annotations

import pytest

from millstream.core.client.partitioner import KeylessPartitioner, murmur2, partition_of_key


# The vectors of Kafka's own UtilsTest.testMurmur2, signed as Java prints them.
@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert partition_of_key(key, 12) == (signed & 0x7FFFFFFF) % 12


def test_without_keys_one_partition_is_filled_before_the_next() -> None:
    partitioner = KeylessPartitioner(3, bytes_each=100)
    assert [partitioner.partition(50) for _ in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]
